"""Arm Generic Interrupt Controller, GICv2 (IHI 0048B): distributor and CPU interfaces, without the security extensions.

Both interrupt groups are there. Interrupts 0 to 31 are each CPU's own; who accesses is in the access's attributes. SGIs
are always enabled. Priorities have 8 bits. Virtualisation is not there. This file has the CPU interfaces (section 4.4).
"""

from __future__ import annotations

from dbt.machine.devices.gic_core import SPURIOUS, dropped, with_word, word_of
from dbt.machine.devices.gicv2_core import ACKCTL, EOIMODE, GROUP1_PENDING, IIDR
from dbt.machine.devices.gicv2_distributor import WORD, Distributor
from dbt.machine.registers import RO, RW, WO, Register, View, Window


class GICv2(Distributor):
    """Arm Generic Interrupt Controller version 2 (IHI 0048B), without security extensions."""

    GICC = Window(0x2000, WORD)
    GICC_CTLR = View(
        0x00, RW, "control, of this CPU", mask=0x21F, window=GICC,
        fields={"EnableGrp0": 0, "EnableGrp1": 1, "AckCtl": 2, "FIQEn": 3, "CBPR": 4, "EOImode": 9},
    )  # fmt: skip
    GICC_PMR = View(0x04, RW, "priority mask", mask=0xFF, window=GICC)
    GICC_BPR = View(0x08, RW, "binary point", mask=7, window=GICC)
    GICC_IAR = View(0x0C, RO, "acknowledge", window=GICC, fields={"INTID": (9, 0), "CPUID": (12, 10)})
    GICC_EOIR = View(0x10, WO, "end of interrupt", mask=0x1FFF, window=GICC)
    GICC_RPR = View(0x14, RO, "running priority", window=GICC)
    GICC_HPPIR = View(0x18, RO, "highest priority pending", window=GICC)
    GICC_ABPR = View(0x1C, RW, "binary point of group 1", mask=7, window=GICC)
    GICC_AIAR = View(0x20, RO, "acknowledge group 1", window=GICC)
    GICC_AEOIR = View(0x24, WO, "end of interrupt of group 1", mask=0x1FFF, window=GICC)
    GICC_AHPPIR = View(0x28, RO, "highest priority pending of group 1", window=GICC)
    GICC_APR = View(0xD0, RW, "active priorities of group 0", count=4, window=GICC)
    GICC_NSAPR = View(0xE0, RW, "active priorities of group 1", count=4, window=GICC)
    GICC_IIDR = Register(0xFC, RO, "implementer", reset=IIDR, window=GICC)
    GICC_DIR = View(0x1000, WO, "deactivate", mask=0x1FFF, window=GICC)

    @GICC_CTLR.on_read
    def _control(self) -> int:
        return self.control[self._cpu]

    @GICC_CTLR.on_write
    def _set_control(self, value: int) -> None:
        self.control[self._cpu] = value & 0x21F
        self._look(1 << self._cpu)

    @GICC_PMR.on_read
    def _priority_mask(self) -> int:
        return self.mask[self._cpu]

    @GICC_PMR.on_write
    def _set_priority_mask(self, value: int) -> None:
        self.mask[self._cpu] = value & 0xFF
        self._look(1 << self._cpu)

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
        slot = self._slot(number // 32, cpu)
        affected = self.activate(slot, number % 32)
        if number < 16:
            self.sgi_sources[16 * cpu + number] &= ~(1 << (found >> 10))
            if self.sgi_sources[16 * cpu + number]:
                self.latched[slot] |= 1 << number
        self._ran(cpu, affected)
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
        levels[cpu] = dropped(levels[cpu])
        affected = 0
        if not self.control[cpu] & EOIMODE:
            affected = self.deactivate(self._slot(number // 32, cpu), number % 32)
        self._ran(cpu, affected)

    @GICC_DIR.on_write
    def _deactivate(self, value: int) -> None:
        cpu, number = self._cpu, value & 0x3FF
        if not self.control[cpu] & EOIMODE:
            self.guest_error("GICC_DIR is written without EOImode")
        elif number < 32 * self.words:
            self._change(self.active, self._slot(number // 32, cpu), 1 << number % 32, 0)

    @GICC_RPR.on_read
    def _running_priority(self) -> int:
        return min(self._running(self._cpu), 0xFF)

    @GICC_APR.on_read
    def _levels_0(self, index: int) -> int:
        return word_of(self.active_0[self._cpu], index)

    @GICC_APR.on_write
    def _set_levels_0(self, index: int, value: int) -> None:
        self.active_0[self._cpu] = with_word(self.active_0[self._cpu], index, value)
        self._look(1 << self._cpu)

    @GICC_NSAPR.on_read
    def _levels_1(self, index: int) -> int:
        return word_of(self.active_1[self._cpu], index)

    @GICC_NSAPR.on_write
    def _set_levels_1(self, index: int, value: int) -> None:
        self.active_1[self._cpu] = with_word(self.active_1[self._cpu], index, value)
        self._look(1 << self._cpu)
