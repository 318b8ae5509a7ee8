"""The root of QEMU's generic PCI Express host: what slot 0 shows, and the windows in which processors see the bus.

Hosts without port instructions have a window of memory for ports as well. What nobody answers in a window is ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.pci import Identity, PciBus, PciFunction, ecam, window

if TYPE_CHECKING:
    from dbt.machine.machine import Machine

BUSES = 256


class GpexRoot(PciFunction):
    """The root function of QEMU's generic PCI Express host."""

    PCI = Identity(vendor=0x1B36, device=0x0008, class_code=0x060000)


class GpexHost:
    """A root bus and its windows: each is (address, size), at which the bus has the same addresses, but ports from 0.

    The bus's ports are the machine's port space, which nothing else is in.
    """

    def __init__(
        self,
        name: str,
        machine: Machine,
        *,
        ecam_at: int,
        memory: tuple[tuple[int, int], ...],
        ports_at: int,
        buses: int = BUSES,
    ) -> None:
        self.bus = PciBus(name, machine, io=machine.io, zero=True)
        system = machine.system
        system.place(ecam(f"{name}.ecam", self.bus, buses), ecam_at)
        for number, (at, size) in enumerate(memory):
            system.place(window(f"{name}.window{number}", self.bus.memory, at, size), at)
        system.place(window(f"{name}.ports", self.bus.io, 0, self.bus.io.size), ports_at)
        self.root = GpexRoot(f"{name}.root", machine, bus=self.bus, slot=0)
