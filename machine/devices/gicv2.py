"""Arm Generic Interrupt Controller, GICv2 (IHI 0048B): distributor and CPU interfaces, without the security extensions.

Both interrupt groups are there. Interrupts 0 to 31 are each CPU's own; who accesses is in the access's attributes. SGIs
are always enabled. Priorities have 8 bits. Virtualisation is not there.

Words of 32 interrupts are kept as lists: the first eight are interrupts 0 to 31 of each CPU, then the shared ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.device import Device
from dbt.machine.errors import MapError
from dbt.machine.lines import Line
from dbt.machine.memory import AccessSizes
from dbt.machine.registers import RO, RW, WO, Register, Registers, States, Window

if TYPE_CHECKING:
    from dbt.machine.machine import Machine

CPUS, WORDS = 8, 32
LISTED = CPUS + WORDS - 1
PRIVATE = 32
BYTES = CPUS * PRIVATE + 32 * (WORDS - 1)
WORD = AccessSizes((1, 4))
GRP0, GRP1, ACKCTL, FIQEN, CBPR, EOIMODE = 1, 2, 4, 8, 0x10, 0x200
SPURIOUS, GROUP1_PENDING, IDLE = 1023, 1022, 0x100
IDENTITY = (0x04, 0, 0, 0, 0x90, 0xB4, 0x2B, 0x00, 0x0D, 0xF0, 0x05, 0xB1)  # GIC-400: architecture version 2
IIDR = 0x0002_043B


def bits(word: int) -> list[int]:
    """The numbers of the bits that are set."""
    found = []
    while word:
        low = word & -word
        found.append(low.bit_length() - 1)
        word ^= low
    return found


class GICv2(Device):
    """Arm Generic Interrupt Controller version 2 (IHI 0048B), without security extensions."""

    GICD = Window(0x1000, WORD)
    GICC = Window(0x2000, WORD)
    GICD_CTLR = Register(0x000, RW, "enable groups", mask=3, fields={"EnableGrp0": 0, "EnableGrp1": 1})
    GICD_TYPER = Register(0x004, RO, "type", fields={"ITLinesNumber": (4, 0), "CPUNumber": (7, 5)})
    GICD_IIDR = Register(0x008, RO, "implementer", reset=IIDR)
    GICD_IGROUPR = Registers(0x080, RW, "groups", count=WORDS)
    GICD_ISENABLER = Registers(0x100, RW, "set enable", count=WORDS)
    GICD_ICENABLER = Registers(0x180, RW, "clear enable", count=WORDS)
    GICD_ISPENDR = Registers(0x200, RW, "set pending", count=WORDS)
    GICD_ICPENDR = Registers(0x280, RW, "clear pending", count=WORDS)
    GICD_ISACTIVER = Registers(0x300, RW, "set active", count=WORDS)
    GICD_ICACTIVER = Registers(0x380, RW, "clear active", count=WORDS)
    GICD_IPRIORITYR = Registers(0x400, RW, "priorities", count=1020, size=1)
    GICD_ITARGETSR = Registers(0x800, RW, "CPUs that shared interrupts go to", count=1020, size=1)
    GICD_ICFGR = Registers(0xC00, RW, "edges: two bits for each interrupt", count=64)
    GICD_SGIR = Register(
        0xF00, WO, "software interrupts", mask=0x03FF_800F,
        fields={"SGIINTID": (3, 0), "NSATT": 15, "CPUTargetList": (23, 16), "TargetListFilter": (25, 24)},
    )  # fmt: skip
    GICD_CPENDSGIR = Registers(0xF10, RW, "clear pending SGIs", count=16, size=1)
    GICD_SPENDSGIR = Registers(0xF20, RW, "set pending SGIs", count=16, size=1)
    GICD_ID = Registers(0xFD0, RO, "identity", count=12)

    GICC_CTLR = Register(
        0x00, RW, "control, of this CPU", mask=0x21F, window=GICC,
        fields={"EnableGrp0": 0, "EnableGrp1": 1, "AckCtl": 2, "FIQEn": 3, "CBPR": 4, "EOImode": 9},
    )  # fmt: skip
    GICC_PMR = Register(0x04, RW, "priority mask", mask=0xFF, window=GICC)
    GICC_BPR = Register(0x08, RW, "binary point", mask=7, window=GICC)
    GICC_IAR = Register(0x0C, RO, "acknowledge", window=GICC, fields={"INTID": (9, 0), "CPUID": (12, 10)})
    GICC_EOIR = Register(0x10, WO, "end of interrupt", mask=0x1FFF, window=GICC)
    GICC_RPR = Register(0x14, RO, "running priority", window=GICC)
    GICC_HPPIR = Register(0x18, RO, "highest priority pending", window=GICC)
    GICC_ABPR = Register(0x1C, RW, "binary point of group 1", mask=7, window=GICC)
    GICC_AIAR = Register(0x20, RO, "acknowledge group 1", window=GICC)
    GICC_AEOIR = Register(0x24, WO, "end of interrupt of group 1", mask=0x1FFF, window=GICC)
    GICC_AHPPIR = Register(0x28, RO, "highest priority pending of group 1", window=GICC)
    GICC_APR = Registers(0xD0, RW, "active priorities of group 0", count=4, window=GICC)
    GICC_NSAPR = Registers(0xE0, RW, "active priorities of group 1", count=4, window=GICC)
    GICC_IIDR = Register(0xFC, RO, "implementer", reset=IIDR, window=GICC)
    GICC_DIR = Register(0x1000, WO, "deactivate", mask=0x1FFF, window=GICC)

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

    # Distributor

    @GICD_CTLR.after_write
    def _distributor(self) -> None:
        self._update()

    @GICD_TYPER.on_read
    def _type(self) -> int:
        return self.words - 1 | self.cpus - 1 << 5

    def _change(self, which: list[int], word: int, clear: int, put: int, keep: int = 0) -> None:
        """Bits of a word of `which`, but those of `keep`."""
        if word < self.words:
            slot = self._slot(word)
            if word == WORDS - 1:
                keep |= 0xF000_0000  # 1020 to 1023 are no interrupts
            which[slot] = which[slot] & ~(clear & ~keep) | put & ~keep
            self._update()

    def _shown(self, which: list[int], word: int) -> int:
        return which[self._slot(word)] if word < self.words else 0

    @GICD_IGROUPR.on_read
    def _groups(self, word: int) -> int:
        return self._shown(self.group, word)

    @GICD_IGROUPR.on_write
    def _set_groups(self, word: int, value: int) -> None:
        self._change(self.group, word, 0xFFFF_FFFF, value)

    @GICD_ISENABLER.on_read
    @GICD_ICENABLER.on_read
    def _enables(self, word: int) -> int:
        return self._shown(self.enabled, word)

    @GICD_ISENABLER.on_write
    def _enable(self, word: int, value: int) -> None:
        self._change(self.enabled, word, 0, value)

    @GICD_ICENABLER.on_write
    def _disable(self, word: int, value: int) -> None:
        self._change(self.enabled, word, value, 0, 0 if word else 0xFFFF)

    @GICD_ISPENDR.on_read
    @GICD_ICPENDR.on_read
    def _pendings(self, word: int) -> int:
        return self._pending(self._slot(word)) if word < self.words else 0

    @GICD_ISPENDR.on_write
    def _pend(self, word: int, value: int) -> None:
        self._change(self.latched, word, 0, value, 0 if word else 0xFFFF)

    @GICD_ICPENDR.on_write
    def _unpend(self, word: int, value: int) -> None:
        self._change(self.latched, word, value, 0, 0 if word else 0xFFFF)

    @GICD_ISACTIVER.on_read
    @GICD_ICACTIVER.on_read
    def _actives(self, word: int) -> int:
        return self._shown(self.active, word)

    @GICD_ISACTIVER.on_write
    def _activate(self, word: int, value: int) -> None:
        self._change(self.active, word, 0, value)

    @GICD_ICACTIVER.on_write
    def _deactivate_word(self, word: int, value: int) -> None:
        self._change(self.active, word, value, 0)

    @GICD_IPRIORITYR.on_read
    def _priority(self, number: int) -> int:
        return self.priority[self._byte(number, self._cpu)] if number < 32 * self.words else 0

    @GICD_IPRIORITYR.on_write
    def _set_priority(self, number: int, value: int) -> None:
        if number < 32 * self.words:
            self.priority[self._byte(number, self._cpu)] = value
            self._update()

    @GICD_ITARGETSR.on_read
    def _target(self, number: int) -> int:
        if self.cpus == 1 or number >= 32 * self.words:
            return 0
        return 1 << self._cpu if number < PRIVATE else self.targets[self._byte(number, 0)]

    @GICD_ITARGETSR.on_write
    def _set_target(self, number: int, value: int) -> None:
        if PRIVATE <= number < 32 * self.words and self.cpus > 1:
            self.targets[self._byte(number, 0)] = value & (1 << self.cpus) - 1
            self._update()

    @GICD_ICFGR.on_read
    def _configuration(self, index: int) -> int:
        word = self._shown(self.edge, index // 2) >> 16 * (index % 2) & 0xFFFF
        return sum(2 << 2 * bit for bit in bits(word))

    @GICD_ICFGR.on_write
    def _configure(self, index: int, value: int) -> None:
        word = sum(1 << bit for bit in range(16) if value >> 2 * bit & 2)
        if index:
            shift = 16 * (index % 2)
            self._change(self.edge, index // 2, 0xFFFF << shift, word << shift)

    @GICD_SGIR.on_write
    def _generate(self, value: int) -> None:
        me, number = self._cpu, value & 15
        chosen = value >> 24 & 3
        everybody = (1 << self.cpus) - 1
        if chosen == 3:
            self.guest_error("GICD_SGIR: TargetListFilter is reserved")
            return
        targets = (value >> 16 & 0xFF, everybody & ~(1 << me), 1 << me)[chosen] & everybody
        for cpu in bits(targets):
            self._send(cpu, number, 1 << me)
        self._update()

    def _send(self, cpu: int, number: int, sources: int) -> None:
        self.sgi_sources[16 * cpu + number] |= sources
        if sources:
            self.latched[cpu] |= 1 << number

    @GICD_CPENDSGIR.on_read
    @GICD_SPENDSGIR.on_read
    def _sources(self, number: int) -> int:
        return self.sgi_sources[16 * self._cpu + number]

    @GICD_SPENDSGIR.on_write
    def _pend_sgi(self, number: int, value: int) -> None:
        self._send(self._cpu, number, value & (1 << self.cpus) - 1)
        self._update()

    @GICD_CPENDSGIR.on_write
    def _unpend_sgi(self, number: int, value: int) -> None:
        cpu = self._cpu
        self.sgi_sources[16 * cpu + number] &= ~value
        if not self.sgi_sources[16 * cpu + number]:
            self.latched[cpu] &= ~(1 << number)
        self._update()

    @GICD_ID.on_read
    def _identity(self, index: int) -> int:
        return IDENTITY[index]

    # CPU interface

    @GICC_CTLR.on_read
    def _control(self) -> int:
        return self.control[self._cpu]

    @GICC_CTLR.on_write
    def _set_control(self, value: int) -> None:
        self.control[self._cpu] = value & 0x21F
        self._update()

    @GICC_PMR.on_read
    def _priority_mask(self) -> int:
        return self.mask[self._cpu]

    @GICC_PMR.on_write
    def _set_priority_mask(self, value: int) -> None:
        self.mask[self._cpu] = value & 0xFF
        self._update()

    @GICC_BPR.on_read
    def _point(self) -> int:
        return self.binary_point[self._cpu]

    @GICC_BPR.on_write
    def _set_point(self, value: int) -> None:
        self.binary_point[self._cpu] = value & 7

    @GICC_ABPR.on_read
    def _point_1(self) -> int:
        return self.binary_point_1[self._cpu]

    @GICC_ABPR.on_write
    def _set_point_1(self, value: int) -> None:
        self.binary_point_1[self._cpu] = max(value & 7, 1)

    @GICC_IAR.on_read
    def _acknowledge(self) -> int:
        return self._take(self._highest())

    @GICC_AIAR.on_read
    def _acknowledge_1(self) -> int:
        return self._take(self._highest_1())

    @GICC_HPPIR.on_read
    def _highest(self) -> int:
        cpu = self._cpu
        _, number, group = self._best(cpu)
        if group and not self.control[cpu] & ACKCTL:
            return GROUP1_PENDING
        return self._with_source(cpu, number)

    @GICC_AHPPIR.on_read
    def _highest_1(self) -> int:
        cpu = self._cpu
        _, number, group = self._best(cpu)
        return self._with_source(cpu, number) if group else SPURIOUS

    def _with_source(self, cpu: int, number: int) -> int:
        if number >= 16:
            return number
        sources = self.sgi_sources[16 * cpu + number]
        return number | ((sources & -sources).bit_length() - 1) << 10 if sources else number

    def _take(self, found: int) -> int:
        """Acknowledge what is pending, if it may interrupt what runs."""
        cpu, number = self._cpu, found & 0x3FF
        if number >= 1020:
            return found
        priority, _, group = self._best(cpu)
        if priority >= self._running(cpu):
            return SPURIOUS
        level = 1 << self._group_priority(cpu, priority, group) // 2
        if group:
            self.active_1[cpu] |= level
        else:
            self.active_0[cpu] |= level
        slot, bit = self._slot(number // 32, cpu), 1 << number % 32
        self.active[slot] |= bit
        if number < 16:
            self.sgi_sources[16 * cpu + number] &= ~(1 << (found >> 10))
        if number >= 16 or not self.sgi_sources[16 * cpu + number]:
            self.latched[slot] &= ~bit
        self._update()
        return found

    @GICC_EOIR.on_write
    @GICC_AEOIR.on_write
    def _end(self, value: int) -> None:
        cpu, number = self._cpu, value & 0x3FF
        if number >= 32 * self.words or number >= 1020:
            return  # spurious ones are ended as well
        if not self.active_0[cpu] | self.active_1[cpu]:
            self.guest_error("the end of an interrupt is written while none is active")
            return
        group = self.group[self._slot(number // 32, cpu)] >> number % 32 & 1
        levels = self.active_1 if group else self.active_0
        levels[cpu] &= levels[cpu] - 1 if levels[cpu] else 0
        if not self.control[cpu] & EOIMODE:
            self.active[self._slot(number // 32, cpu)] &= ~(1 << number % 32)
        self._update()

    @GICC_DIR.on_write
    def _deactivate(self, value: int) -> None:
        cpu, number = self._cpu, value & 0x3FF
        if not self.control[cpu] & EOIMODE:
            self.guest_error("GICC_DIR is written without EOImode")
        elif number < 32 * self.words:
            self.active[self._slot(number // 32, cpu)] &= ~(1 << number % 32)
            self._update()

    @GICC_RPR.on_read
    def _running_priority(self) -> int:
        return min(self._running(self._cpu), 0xFF)

    @GICC_APR.on_read
    def _levels_0(self, index: int) -> int:
        return self.active_0[self._cpu] >> 32 * index & 0xFFFF_FFFF

    @GICC_APR.on_write
    def _set_levels_0(self, index: int, value: int) -> None:
        self.active_0[self._cpu] = self._replaced(self.active_0[self._cpu], index, value)
        self._update()

    @GICC_NSAPR.on_read
    def _levels_1(self, index: int) -> int:
        return self.active_1[self._cpu] >> 32 * index & 0xFFFF_FFFF

    @GICC_NSAPR.on_write
    def _set_levels_1(self, index: int, value: int) -> None:
        self.active_1[self._cpu] = self._replaced(self.active_1[self._cpu], index, value)
        self._update()

    @staticmethod
    def _replaced(levels: int, index: int, value: int) -> int:
        return levels & ~(0xFFFF_FFFF << 32 * index) | value << 32 * index
