"""The PCI-to-PCI bridge (PCI-to-PCI Bridge Architecture 1.2): a bus below, seen through the windows that software sets.

What nobody takes in a window falls through to whoever else decodes the address above, in the end to the host bridge's
ones: a master abort. Windows are one union, so that nested bridges cost no more than their number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from dbt.machine.memory import Windows
from dbt.machine.pci.bar import rank
from dbt.machine.pci.bus import PciBus
from dbt.machine.pci.config import IO, MEMORY, Header, Type1
from dbt.machine.pci.function import Identity, PciFunction

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dbt.machine.machine import Machine
    from dbt.machine.pci.bar import Bar
    from dbt.machine.pci.function import Where

ISA, VGA, VGA16, RESET = 1 << 2, 1 << 3, 1 << 4, 1 << 6  # of BRIDGE_CONTROL
VGA_MEMORY, VGA_PORTS = (0xA0000, 0xBFFFF), ((0x3B0, 0x3BB), (0x3C0, 0x3DF))
SLOT_ID, FIRST_IN_CHASSIS = 0x04, 0x20
WINDOW = 2  # windows rank with this BAR, which bridges have not


def union(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same addresses, first to last, as sorted ranges that do not touch. What ends before it starts is none."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(span for span in ranges if span[0] <= span[1]):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(last, found[-1][1])
        else:
            found.append((first, last))
    return found


class PciBridge(PciFunction):
    """A PCI-to-PCI bridge; `secondary` is the bus below. `chassis`: its number in Slot Identification; 0: none."""

    HEADER = Type1
    PCI = Identity(vendor=0x1B36, device=0x0001, class_code=0x060400)

    def __init__(
        self,
        name: str,
        machine: Machine,
        *,
        bars: Iterable[Bar] | None = None,
        identity: Identity | None = None,
        chassis: int = 1,
        **where: Unpack[Where],
    ) -> None:
        self.secondary = PciBus(f"{name}.bus", machine, bridge=self, zero=where["bus"].zero)
        self._memory = Windows(f"{name}.memory", self.secondary.memory)
        self._io = Windows(f"{name}.ports", self.secondary.io)
        self._in_reset = False
        super().__init__(name, machine, **where, bars=bars, identity=identity)
        self.bus.memory.place(self._memory, 0, rank(self.devfn, WINDOW))
        self.bus.io.place(self._io, 0, rank(self.devfn, WINDOW))
        for register in (Type1.STATUS, Type1.SECONDARY_STATUS):
            self.config.preset(register, 0x00A0)  # 66 MHz, fast back-to-back
        if chassis:
            at = self.add_capability(SLOT_ID, bytes((FIRST_IN_CHASSIS, chassis)), bytes((0, 0xFF)))
            self.config.fix(at + 2, 1)

    def as_bridge(self) -> PciBridge | None:
        """It is one."""
        return self

    def leads_to(self, number: int) -> bool:
        """Whether configuration cycles of that bus go through it."""
        secondary = self.config.get(Type1.SECONDARY_BUS)
        return number == secondary or secondary < number <= self.config.get(Type1.SUBORDINATE_BUS)

    @property
    def holds_reset(self) -> bool:
        """Secondary Bus Reset is set."""
        return bool(self.config.get(Type1.BRIDGE_CONTROL) & RESET)

    def windows(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """(memory, ports) that are below, as the registers have them."""
        get = self.config.get
        command, control = get(Header.COMMAND), get(Type1.BRIDGE_CONTROL)
        memory, ports = [], []
        if command & MEMORY:
            memory.append(((get(Type1.MEMORY_BASE) & 0xFFF0) << 16, (get(Type1.MEMORY_LIMIT) & 0xFFF0) << 16 | 0xFFFFF))
            base = (get(Type1.PREFETCHABLE_BASE) & 0xFFF0) << 16 | get(Type1.PREFETCHABLE_BASE_UPPER) << 32
            limit = (get(Type1.PREFETCHABLE_LIMIT) & 0xFFF0) << 16 | get(Type1.PREFETCHABLE_LIMIT_UPPER) << 32
            memory.append((base, limit | 0xFFFFF))
            if control & VGA:
                memory.append(VGA_MEMORY)
        if command & IO:
            first, last = (get(Type1.IO_BASE) & 0xF0) << 8, (get(Type1.IO_LIMIT) & 0xF0) << 8 | 0xFFF
            if control & ISA:  # the rest of each KiB are images of ISA's ports
                ports += [(at, at + 0xFF) for at in range(first, last, 1 << 10)]
            else:
                ports.append((first, last))
            if control & VGA:
                every = range(1) if control & VGA16 else range(64)  # without, bits 15:10 are not decoded
                ports += [(first + (n << 10), last + (n << 10)) for n in every for first, last in VGA_PORTS]
        return union(memory), union(ports)

    def _refresh(self) -> None:
        super()._refresh()
        self._show()

    def _show(self) -> None:
        for shown, ranges in zip((self._memory, self._io), self.windows(), strict=True):
            shown.ranges = tuple((first, last + 1) for first, last in ranges)

    def remaster(self) -> None:
        """What is below masters the bus through this bridge."""
        before = self.dma.enabled
        super().remaster()
        if self.dma.enabled != before:
            self.secondary.remaster()

    def on_config_write(self, offset: int, size: int) -> None:
        """Bridge control resets the bus below when it gets set."""
        del offset, size
        if self.holds_reset and not self._in_reset:
            self._reset_below()
        self._in_reset = self.holds_reset

    def _reset_below(self) -> None:
        for function in self.secondary.functions.values():
            function.bus_reset()

    def bus_reset(self) -> None:
        """The bus below is reset as well."""
        super().bus_reset()
        self._reset_below()

    def on_reset(self) -> None:
        """The bus below is not held in reset."""
        self._in_reset = False

    def on_restore(self) -> None:
        """What is below is restored by itself."""
        self._in_reset = self.holds_reset
