"""The GICv2's state, and which interrupt each CPU is to see: what its registers (IHI 0048B) are about.

The first eight slots are interrupts 0 to 31 of each CPU, then come the shared ones.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from dbt.machine.devices.gic_core import NOTHING, InterruptBank, bits, running
from dbt.machine.devices.gic_native import BEST, RUNNING, SETTINGS, shared, unpacked
from dbt.machine.errors import MapError
from dbt.machine.lines import Line
from dbt.machine.native.gic import FIQ, IRQ, SPLIT
from dbt.machine.registers import States

if TYPE_CHECKING:
    from dbt.machine.machine import Machine

CPUS, WORDS = 8, 32
SLOTS = CPUS + WORDS - 1
PRIVATE = 32
GRP0, GRP1, ACKCTL, FIQEN, CBPR, EOIMODE = 1, 2, 4, 8, 0x10, 0x200
GROUP1_PENDING = 1022
IIDR = 0x0002_043B


class GicCore(InterruptBank):
    """Everything but the registers."""

    GICD_CTLR: int

    group = States(SLOTS)
    enabled = States(SLOTS)
    latched = States(SLOTS)
    level = States(SLOTS)
    active = States(SLOTS)
    edge = States(SLOTS)
    priority = States(32 * SLOTS, bits=8)
    targets = States(32 * SLOTS, bits=8)
    sgi_sources = States(CPUS * 16, bits=8)  # of each CPU and SGI: who sent it
    control = States(CPUS)
    mask = States(CPUS, bits=8)
    binary_point = States(CPUS, bits=3)
    binary_point_1 = States(CPUS, bits=3, reset=1)
    active_0 = States(CPUS, bits=128)  # active priorities
    active_1 = States(CPUS, bits=128)

    def __init__(self, name: str, machine: Machine, *, cpus: int = 1, interrupts: int = 288) -> None:
        super().__init__(name, machine)
        if not 1 <= cpus <= CPUS or interrupts % 32 or not 64 <= interrupts <= 1024:
            raise MapError(f"{name}: {cpus} CPUs and {interrupts} interrupts: 1 to 8, and 64 to 1024 by 32")
        self.cpus = cpus
        self.words = interrupts // 32
        self.irq = [Line(f"{name}.irq{cpu}") for cpu in range(cpus)]
        self.fiq = [Line(f"{name}.fiq{cpu}") for cpu in range(cpus)]
        self._start()
        numbers = [self._first(slot) for slot in range(SLOTS)]
        self.shared = shared(machine, numbers, cpus, masks=True)
        if self.shared:
            self._refresh_all(range(SLOTS))
            self._share_routes()

    def _start(self) -> None:
        for cpu in range(CPUS):
            self.enabled[cpu] = self.edge[cpu] = 0xFFFF  # SGIs

    def on_reset(self) -> None:
        """Inputs stay as they are."""
        self._start()
        self._take_inputs()
        self.on_restore()

    def on_restore(self) -> None:
        """The inputs are those that were saved; whoever drives them is restored as well."""
        self._refresh_all(range(SLOTS))
        self._share_routes()
        self._look(-1)

    def spi(self, number: int) -> Line:
        """The input of shared interrupt 32 + `number`."""
        return self._input(CPUS + number // 32, number % 32, f"{self.name}.spi{number}")

    def ppi(self, cpu: int, number: int) -> Line:
        """The input of a CPU's own interrupt 16 + `number`."""
        return self._input(cpu, 16 + number, f"{self.name}.ppi{cpu}.{number}")

    # Where things of an interrupt are

    @property
    def _cpu(self) -> int:
        return self.attributes.cpu if 0 <= self.attributes.cpu < self.cpus else 0

    def _slot(self, word: int, cpu: int | None = None) -> int:
        return CPUS + word - 1 if word else self._cpu if cpu is None else cpu

    def _at(self, number: int, cpu: int) -> int:
        """Where the bytes of an interrupt are."""
        return 32 * self._slot(number // 32, cpu) + number % 32

    def slot_of(self, word: int) -> int | None:
        """The first words are each CPU's own."""
        return self._slot(word) if word < self.words else None

    def fixed(self, state: str, word: int) -> int:
        """SGIs are always enabled, edges, and made pending elsewhere; 1020 to 1023 are no interrupts."""
        if not word:
            return 0xFFFF if state in {"enabled", "latched", "edge"} else 0
        return 0xF000_0000 if word == WORDS - 1 else 0

    def _first(self, slot: int) -> int:
        return 0 if slot < CPUS else 32 * (slot - CPUS + 1)

    def _cpus(self, slot: int, bit: int) -> int:
        if slot < CPUS:
            return 1 << slot
        return self.targets[32 * slot + bit] if self.cpus > 1 else 1

    # The most urgent interrupt of a CPU

    def _best(self, cpu: int) -> tuple[int, int, int]:
        """(priority, number, group) of the most urgent pending interrupt: priority 0x100 if there is none."""
        if self.shared:
            best, group = unpacked(self.shared.cpu[cpu][BEST])
            return (*best, group) if best[0] < self.mask[cpu] else (*NOTHING, 0)
        control = self.GICD_CTLR & self.control[cpu]
        first = self.offer(2 * cpu) if control & GRP0 else NOTHING
        second = self.offer(2 * cpu + 1) if control & GRP1 else NOTHING
        found, group = (second, 1) if second < first else (first, 0)
        return (*found, group) if found[0] < self.mask[cpu] else (*NOTHING, 0)

    def _running(self, cpu: int) -> int:
        return running(self.active_0[cpu] | self.active_1[cpu])

    def _ran(self, cpu: int, affected: int) -> None:
        """What a CPU runs is different; `affected`: the CPUs that see more that is."""
        if self.shared:
            self.shared.cpu[cpu][RUNNING] = self._running(cpu)
            self.resolve()
        else:
            self._look(affected | 1 << cpu)

    def _group_priority(self, cpu: int, priority: int, group: int) -> int:
        point = self.binary_point[cpu]
        if group and not self.control[cpu] & CBPR:
            point = max(self.binary_point_1[cpu], 1) - 1
        return priority & ~((2 << point) - 1)

    def _look(self, cpus: int) -> None:
        if self.shared:
            for cpu in bits(cpus & (1 << self.cpus) - 1):
                self._share(cpu)
            self.resolve()
            return
        for cpu in bits(cpus & (1 << self.cpus) - 1):
            priority, _, group = self._best(cpu)
            up = priority < self._running(cpu)
            fast = up and not group and bool(self.control[cpu] & FIQEN)
            self.fiq[cpu].set(fast)
            self.irq[cpu].set(up and not fast)

    # What native code is told

    def resolve(self) -> None:
        """Set the lines of the CPUs that see something else."""
        assert self.shared
        for cpu in self.shared.settle():
            best = self.shared.cpu[cpu][BEST]
            self.fiq[cpu].set(best & FIQ != 0)
            self.irq[cpu].set(best & IRQ != 0)

    def _share(self, cpu: int) -> None:
        """A CPU's settings. The priority that runs is compared as a whole."""
        assert self.shared
        control = self.control[cpu]
        self.shared.cpu[cpu][:SETTINGS] = array("Q", (
            self.GICD_CTLR & control & (GRP0 | GRP1), self.mask[cpu], self._running(cpu), 0xFF, 0xFF,
            SPLIT if control & FIQEN else 0,
        ))  # fmt: skip

    def share_route(self, slot: int, bit: int) -> None:
        """Where an interrupt goes."""
        if self.shared:
            self.shared.route[32 * slot + bit] = self._cpus(slot, bit)

    def _share_routes(self) -> None:
        for slot in range(SLOTS):
            for bit in range(32):
                self.share_route(slot, bit)
