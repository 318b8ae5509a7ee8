"""A PCI bus: its functions, the configuration cycles to them, and the four interrupt wires.

What functions show is in two containers, `memory` and `io`, which a host bridge places in the machine's spaces and a
PCI-to-PCI bridge shows through its windows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.errors import MapError
from dbt.machine.lines import Line
from dbt.machine.memory import Container
from dbt.machine.pci.config import MULTIFUNCTION, Header, Type1

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.machine import Machine
    from dbt.machine.pci.bridge import PciBridge
    from dbt.machine.pci.function import PciFunction

SLOTS, PINS = 32, 4


def swizzle(slot: int, pin: int) -> int:
    """On which of the four wires a pin is (PCI-to-PCI Bridge 1.2, 9.1)."""
    return (slot + pin) % PINS


class PciBus:
    """`intx`: the wires, of a root bus. `route`: which of them a slot's pin is on. `zero`: address zero is decoded."""

    def __init__(
        self,
        name: str,
        machine: Machine,
        *,
        memory: Container | None = None,
        io: Container | None = None,
        bridge: PciBridge | None = None,
        route: Callable[[int, int], int] = swizzle,
        zero: bool = False,
    ) -> None:
        self.name = name
        self.machine = machine
        self.memory = memory or Container(f"{name}.memory", 1 << 64)
        self.io = io or Container(f"{name}.io", 1 << 16)
        self.bridge = bridge
        self.route = route
        self.zero = zero
        self.functions: dict[int, PciFunction] = {}  # by slot << 3 | function, in that order
        self.intx = tuple(Line(f"{name}.int{letter}") for letter in "abcd")
        self.asserted = [0] * PINS  # how many functions assert each wire

    @property
    def number(self) -> int:
        """What software calls the bus: its bridge's register; a root bus is 0."""
        return self.bridge.config.get(Type1.SECONDARY_BUS) if self.bridge else 0

    def add(self, function: PciFunction) -> None:
        """Plug a function in: its constructor calls this."""
        slot, number = function.devfn >> 3, function.devfn & 7
        if function.devfn in self.functions:
            raise MapError(f"{function.name}: in slot {slot}.{number} of {self.name} is something else")
        self.functions[function.devfn] = function
        self.functions = dict(sorted(self.functions.items()))
        first = self.functions.get(slot << 3)
        if first and any(other >> 3 == slot and other & 7 for other in self.functions):
            first.config.preset(Header.HEADER_TYPE, first.config.get(Header.HEADER_TYPE) | MULTIFUNCTION)

    def free_slot(self, first: int = 0) -> int:
        """The lowest slot with nothing in it."""
        taken = {devfn >> 3 for devfn in self.functions}
        for slot in range(first, SLOTS):
            if slot not in taken:
                return slot
        raise MapError(f"{self.name} has no free slot")

    # Configuration cycles

    def find(self, number: int, devfn: int) -> PciFunction | None:
        """The function at such a place on this bus or below: None is a master abort."""
        bus = self
        while number != bus.number:
            below = next((bridge for bridge in bus.bridges() if bridge.leads_to(number)), None)
            if below is None:
                return None
            bus = below.secondary
        return None if bus.resetting else bus.functions.get(devfn)

    def bridges(self) -> list[PciBridge]:
        """Those on this bus."""
        return [bridge for function in self.functions.values() if (bridge := function.as_bridge())]

    @property
    def resetting(self) -> bool:
        """Whether the bridge holds the bus in reset."""
        return bool(self.bridge and self.bridge.holds_reset)

    def config_read(self, number: int, devfn: int, offset: int, size: int) -> int:
        """A read of configuration space, which never fails: ones where nothing is."""
        function = self.find(number, devfn)
        if function is None or offset + size > function.config.size:
            return (1 << 8 * size) - 1
        return function.config_read(offset, size)

    def config_write(self, number: int, devfn: int, offset: int, size: int, value: int) -> None:
        """A write, dropped where nothing is."""
        function = self.find(number, devfn)
        if function is not None and offset + size <= function.config.size:
            function.config_write(offset, size, value)

    # Interrupts and bus mastering

    def drive(self, slot: int, pin: int, level: bool) -> None:
        """A function's pin changes to `level`: up through the bridges to the root's wire."""
        root = self.root
        wire = root.route(*self.upward(slot, pin))
        root.asserted[wire] += 1 if level else -1
        root.intx[wire].set(root.asserted[wire] > 0)

    @property
    def root(self) -> PciBus:
        """The bus at the top."""
        bus = self
        while bus.bridge is not None:
            bus = bus.bridge.bus
        return bus

    def upward(self, slot: int, pin: int) -> tuple[int, int]:
        """(slot, pin) of the root bus that a slot's pin here comes out at."""
        bus = self
        while bus.bridge is not None:
            pin, slot, bus = swizzle(slot, pin), bus.bridge.devfn >> 3, bus.bridge.bus
        return slot, pin

    def masters(self) -> bool:
        """Whether what functions here write and read gets up to memory: all bridges on the way may be masters."""
        return self.bridge is None or self.bridge.dma.enabled

    def remaster(self) -> None:
        """The bridge may or may no more forward what comes from here."""
        for function in self.functions.values():
            function.remaster()
