"""The GICv2's state, its inputs, and which interrupt each CPU is to see: what its registers (IHI 0048B) are about.

Words of 32 interrupts are kept as lists: the first eight are interrupts 0 to 31 of each CPU, then the shared ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.device import Device
from dbt.machine.errors import MapError
from dbt.machine.lines import Line
from dbt.machine.registers import States

if TYPE_CHECKING:
    from dbt.machine.machine import Machine

CPUS, WORDS = 8, 32
LISTED = CPUS + WORDS - 1
PRIVATE = 32
BYTES = CPUS * PRIVATE + 32 * (WORDS - 1)
GRP0, GRP1, ACKCTL, FIQEN, CBPR, EOIMODE = 1, 2, 4, 8, 0x10, 0x200
SPURIOUS, GROUP1_PENDING, IDLE = 1023, 1022, 0x100
IIDR = 0x0002_043B


def bits(word: int) -> list[int]:
    """The numbers of the bits that are set."""
    found = []
    while word:
        low = word & -word
        found.append(low.bit_length() - 1)
        word ^= low
    return found


class GicCore(Device):
    """Everything but the registers."""

    GICD_CTLR: int

    group = States(LISTED)
    enabled = States(LISTED)
    latched = States(LISTED)  # pending by an edge, by software
    level = States(LISTED)  # the inputs
    active = States(LISTED)
    edge = States(LISTED)
    priority = States(BYTES, bits=8)
    targets = States(BYTES, bits=8)
    sgi_sources = States(CPUS * 16, bits=8)  # of each CPU and SGI: who sent it
    control = States(CPUS)
    mask = States(CPUS, bits=8)
    binary_point = States(CPUS, bits=3)
    binary_point_1 = States(CPUS, bits=3, reset=1)
    active_0 = States(CPUS, bits=128)  # active priorities: bit p is group priority 2 p
    active_1 = States(CPUS, bits=128)

    def __init__(self, name: str, machine: Machine, *, cpus: int = 1, interrupts: int = 288) -> None:
        super().__init__(name, machine)
        if not 1 <= cpus <= CPUS or interrupts % 32 or not 64 <= interrupts <= 1024:
            raise MapError(f"{name}: {cpus} CPUs and {interrupts} interrupts: 1 to 8, and 64 to 1024 by 32")
        self.cpus = cpus
        self.words = interrupts // 32
        self.irq = [Line(f"{name}.irq{cpu}") for cpu in range(cpus)]
        self.fiq = [Line(f"{name}.fiq{cpu}") for cpu in range(cpus)]
        self._wires: list[tuple[int, int, Line]] = []
        self._start()

    def _start(self) -> None:
        for cpu in range(CPUS):
            self.enabled[cpu] = self.edge[cpu] = 0xFFFF  # SGIs

    def on_reset(self) -> None:
        """Inputs stay as they are."""
        self._start()
        for slot, number, line in self._wires:
            self.level[slot] |= line.level << number
        self._update()

    def on_restore(self) -> None:
        """The inputs are those that were saved; whoever drives them is restored as well."""
        self._update()

    # Inputs

    def spi(self, number: int) -> Line:
        """The input of shared interrupt 32 + `number`."""
        return self._input(CPUS + number // 32, number % 32, f"{self.name}.spi{number}")

    def ppi(self, cpu: int, number: int) -> Line:
        """The input of a CPU's own interrupt 16 + `number`."""
        return self._input(cpu, 16 + number, f"{self.name}.ppi{cpu}.{number}")

    def _input(self, slot: int, bit: int, name: str) -> Line:
        def changed(level: bool) -> None:
            if level and self.edge[slot] >> bit & 1:
                self.latched[slot] |= 1 << bit
            self.level[slot] = self.level[slot] & ~(1 << bit) | level << bit
            self._update()

        line = Line(name, changed)
        self._wires.append((slot, bit, line))
        return line

    # Where things of an interrupt are

    @property
    def _cpu(self) -> int:
        return self.attributes.cpu if 0 <= self.attributes.cpu < self.cpus else 0

    def _slot(self, word: int, cpu: int | None = None) -> int:
        return CPUS + word - 1 if word else self._cpu if cpu is None else cpu

    @staticmethod
    def _byte(number: int, cpu: int) -> int:
        return cpu * PRIVATE + number if number < PRIVATE else CPUS * PRIVATE + number - PRIVATE

    def _pending(self, slot: int) -> int:
        return self.latched[slot] | self.level[slot] & ~self.edge[slot]

    # The most urgent interrupt of a CPU

    def _best(self, cpu: int) -> tuple[int, int, int]:
        """(priority, number, group) of the most urgent pending interrupt: priority 0x100 if there is none."""
        found = (IDLE, SPURIOUS, 0)
        control = self.GICD_CTLR & self.control[cpu]
        for word in range(self.words):
            slot = self._slot(word, cpu)
            wanted = self._pending(slot) & self.enabled[slot] & ~self.active[slot]
            if not control & GRP0:
                wanted &= self.group[slot]
            if not control & GRP1:
                wanted &= ~self.group[slot]
            for bit in bits(wanted):
                number = 32 * word + bit
                at = self._byte(number, cpu)
                shared = number >= PRIVATE and self.cpus > 1
                if self.priority[at] < found[0] and (not shared or self.targets[at] >> cpu & 1):
                    found = self.priority[at], number, self.group[slot] >> bit & 1
        return found if found[0] < self.mask[cpu] else (IDLE, SPURIOUS, 0)

    def _running(self, cpu: int) -> int:
        """The group priority of what runs; 0x100 if nothing does."""
        levels = self.active_0[cpu] | self.active_1[cpu]
        return 2 * ((levels & -levels).bit_length() - 1) if levels else IDLE

    def _group_priority(self, cpu: int, priority: int, group: int) -> int:
        point = self.binary_point[cpu]
        if group and not self.control[cpu] & CBPR:
            point = max(self.binary_point_1[cpu], 1) - 1
        return priority & ~((2 << point) - 1)

    def _update(self) -> None:
        for cpu in range(self.cpus):
            priority, _, group = self._best(cpu)
            up = priority < self._running(cpu)
            fast = up and not group and bool(self.control[cpu] & FIQEN)
            self.fiq[cpu].set(fast)
            self.irq[cpu].set(up and not fast)
