"""Where `virt` has PCI Express: with memory above 4 GiB, or all of it below, for guests of 32 bits without LPAE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbt.machine.boards.devicetree import cells, strings, wide
from dbt.machine.pci.assign import Ranges
from dbt.machine.pci.bus import PINS

if TYPE_CHECKING:
    from dbt.machine.boards.devicetree import Node
    from dbt.machine.pci import PciBus

SHARED = 32  # the global number of the first shared interrupt
IRQ = 3  # the shared interrupt of INTA#, and the others behind it
PORTS, PORTS_SIZE, FIRST_PORT = 0x3EFF_0000, 1 << 16, 0x1000
WINDOW = (0x1000_0000, 0x2EFF_0000)


@dataclass(frozen=True, slots=True)
class Layout:
    """`ecam` and windows of memory are (address, size); the bus has the same addresses."""

    ecam: tuple[int, int]
    windows: tuple[tuple[int, int], ...]

    @property
    def last_bus(self) -> int:
        """The highest number of a bus."""
        return (self.ecam[1] >> 20) - 1

    def ranges(self) -> Ranges:
        """For assignment: ports above those that ISA had."""
        high = self.windows[1] if len(self.windows) > 1 else None
        return Ranges(memory=WINDOW, io=(FIRST_PORT, PORTS_SIZE - FIRST_PORT), high=high)

    def add_node(self, root: Node, bus: PciBus, gic: int, messages: int) -> None:
        """The host bridge (bindings pci-host-ecam-generic and PCI's own), with phandles of what takes interrupts."""
        routes = b"".join(
            # unit address of the slot and pin; parent's address, then an interrupt of its three cells
            cells(slot << 11, 0, 0, pin + 1, gic, 0, 0, 0, IRQ + bus.route(slot, pin), 4)
            for slot in range(PINS)
            for pin in range(PINS)
        )
        # ports, memory of 32 bits, of 64: the address on the bus, on the board, and the size
        windows = [cells(1 << 24) + wide(0, PORTS, PORTS_SIZE)]
        windows += [cells(2 + number << 24) + wide(at, at, size) for number, (at, size) in enumerate(self.windows)]
        root.add(f"pcie@{WINDOW[0]:x}", {
            "compatible": strings("pci-host-ecam-generic"),
            "device_type": strings("pci"),
            "#address-cells": cells(3),
            "#size-cells": cells(2),
            "linux,pci-domain": cells(0),
            "bus-range": cells(0, self.last_bus),
            "dma-coherent": b"",
            "msi-map": cells(0, messages, 0, 0x1_0000),
            "reg": wide(*self.ecam),
            "ranges": b"".join(windows),
            "#interrupt-cells": cells(1),
            "interrupt-map": routes,
            "interrupt-map-mask": cells((PINS - 1) << 11, 0, 0, 7),
        })  # fmt: skip


HIGH = Layout((0x40_1000_0000, 256 << 20), (WINDOW, (0x80_0000_0000, 0x80_0000_0000)))
LOW = Layout((0x3F00_0000, 16 << 20), (WINDOW,))
