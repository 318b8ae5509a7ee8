"""PCI: buses, functions that drivers find and place, bridges, and how processors reach configuration space.

    bus = PciBus("pci", machine)
    machine.place(bus.memory, 0)                        # or an Alias of a part of it: a window
    machine.place(ecam("ecam", bus), 0x40_1000_0000)
    E1000("nic", machine, bus=bus, slot=2)

config.py: configuration space and headers; function.py: the base of devices; bar.py: base addresses; bus.py: routing of
configuration cycles and interrupt pins; msi.py: messages; bridge.py: buses below; host.py: ECAM, 0xCF8 and 0xCFC.
"""

from dbt.machine.pci.bar import ROM, Bar
from dbt.machine.pci.bridge import PciBridge
from dbt.machine.pci.bus import PciBus
from dbt.machine.pci.config import Capability, ConfigSpace, Header, Type0, Type1
from dbt.machine.pci.function import Identity, PciFunction
from dbt.machine.pci.host import ConfigPorts, Ones, ecam, window

__all__ = [
    "ROM",
    "Bar",
    "Capability",
    "ConfigPorts",
    "ConfigSpace",
    "Header",
    "Identity",
    "Ones",
    "PciBridge",
    "PciBus",
    "PciFunction",
    "Type0",
    "Type1",
    "ecam",
    "window",
]
