"""The memory map: a graph of regions, flattened into address spaces, and how devices reach memory through them.

    system = Container("system", 1 << 64)
    system.place(RAM("ram", 1 << 30), 0x4000_0000)
    system.place(MMIO("uart", 0x1000, handler, AccessSizes(valid=(1, 4))), 0x0900_0000)
    space = AddressSpace("memory", system)            # bits=16 and Unassigned.ONES: x86's ports
    space.read(0x0900_0018, 4)                        # a CPU's access; attributes say whose
    DmaPort("disk", space).dma_write(0x4000_0000, b"…")

regions.py: what there is; flat.py: the view; space.py: accesses; access.py: their sizes and attributes; ram.py: bytes
and dirty pages; dma.py: ports of devices; loading.py: images.
"""

from dbt.machine.memory.access import (
    CPU0,
    DECODE_ERROR,
    DEVICE_ERROR,
    OK,
    AccessSizes,
    Attributes,
    Transaction,
)
from dbt.machine.memory.dma import DmaPort, Mapping
from dbt.machine.memory.flat import FlatView, Section, flatten
from dbt.machine.memory.loading import load, load_file
from dbt.machine.memory.ram import PAGE, DirtyTracker, Memory
from dbt.machine.memory.regions import MMIO, RAM, ROM, Alias, Container, Handler, Region, ROMDevice, Windows
from dbt.machine.memory.space import AddressSpace, Unassigned, overlay

__all__ = [
    "CPU0",
    "DECODE_ERROR",
    "DEVICE_ERROR",
    "MMIO",
    "OK",
    "PAGE",
    "RAM",
    "ROM",
    "AccessSizes",
    "AddressSpace",
    "Alias",
    "Attributes",
    "Container",
    "DirtyTracker",
    "DmaPort",
    "FlatView",
    "Handler",
    "Mapping",
    "Memory",
    "ROMDevice",
    "Region",
    "Section",
    "Transaction",
    "Unassigned",
    "Windows",
    "flatten",
    "load",
    "load_file",
    "overlay",
]
