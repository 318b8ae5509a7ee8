"""The GICv3's CPU interface: the system registers of one CPU (IHI 0069, section 12.2).

They are as EL1 has them with one security state (GICD_CTLR.DS is 1), without legacy operation and virtualisation.
A CPU calls `read` and `write` with the encoding of its MRS or MSR: bits 20 to 5 of the instruction, from op0 to op2.
Group 0 interrupts raise `fiq`, group 1 interrupts `irq`. Priorities have 8 bits, of which 7 may preempt.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from dbt.machine.device import Device
from dbt.machine.devices.gic_core import IDLE, NOTHING, SPURIOUS, dropped, running, with_word, word_of
from dbt.machine.devices.gic_native import BEST, ENABLES, LIMIT, LPI, RUNNING, SETTINGS, packed, unpacked
from dbt.machine.lines import Line
from dbt.machine.memory import AccessSizes, Attributes
from dbt.machine.native import gic as native
from dbt.machine.registers import RO, RW, WO, Register, State, View, Window

if TYPE_CHECKING:
    from dbt.machine.devices.gic_core import Offer
    from dbt.machine.devices.gicv3 import GICv3
    from dbt.machine.devices.gicv3_redistributor import GICv3Redistributor
    from dbt.machine.machine import Machine

SPECIAL, LPIS = 1020, 8192  # the first special INTID, the first LPI
CBPR, EOIMODE, PMHE = 1, 2, 0x40
INTID = 0xFFFFFF
SGIR = 0xFF_01FF_0FFF_FFFF & ~(0xF << 28)  # Aff3, IRM, Aff2, INTID, Aff1, TargetList


def encoding(op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    """The number of a system register: bits 20 to 5 of MRS and MSR."""
    return op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2


def at(crm: int, op2: int, crn: int = 12) -> int:
    """Where a register of this interface is in its window: all have op0 3, op1 0."""
    return 8 * encoding(3, 0, crn, crm, op2)


def name_of(offset: int) -> str:
    """How assemblers write the register at an offset without its name: S3_0_C12_C12_0."""
    number = offset // 8
    fields = number >> 14, number >> 11 & 7, number >> 7 & 15, number >> 3 & 15, number & 7
    return "S{}_{}_C{}_C{}_{}".format(*fields)


class GICv3CpuInterface(Device):
    """CPU interface of a GICv3 (IHI 0069): system registers, one security state."""

    ICC = Window(1 << 19, AccessSizes((8, 8), (8, 8)), placed=False, where=name_of)
    ICC_PMR_EL1 = Register(at(6, 0, crn=4), RW, "priority mask", size=8, mask=0xFF)
    ICC_IAR0_EL1 = View(at(8, 0), RO, "acknowledge group 0", size=8)
    ICC_EOIR0_EL1 = View(at(8, 1), WO, "end of interrupt, group 0", size=8, mask=INTID)
    ICC_HPPIR0_EL1 = View(at(8, 2), RO, "highest priority pending, group 0", size=8)
    ICC_BPR0_EL1 = Register(at(8, 3), RW, "binary point, group 0", size=8, mask=7)
    ICC_AP0R_EL1 = View(at(8, 4), RW, "active priorities, group 0", count=4, size=8, mask=0xFFFF_FFFF)
    ICC_AP1R_EL1 = View(at(9, 0), RW, "active priorities, group 1", count=4, size=8, mask=0xFFFF_FFFF)
    ICC_DIR_EL1 = View(at(11, 1), WO, "deactivate", size=8, mask=INTID)
    ICC_RPR_EL1 = View(at(11, 3), RO, "running priority", size=8)
    ICC_SGI1R_EL1 = View(at(11, 5), WO, "generate SGIs of group 1", size=8, mask=SGIR)
    ICC_ASGI1R_EL1 = View(at(11, 6), WO, "generate SGIs of the other security state", size=8, mask=SGIR)
    ICC_SGI0R_EL1 = View(at(11, 7), WO, "generate SGIs of group 0", size=8, mask=SGIR)
    ICC_IAR1_EL1 = View(at(12, 0), RO, "acknowledge group 1", size=8)
    ICC_EOIR1_EL1 = View(at(12, 1), WO, "end of interrupt, group 1", size=8, mask=INTID)
    ICC_HPPIR1_EL1 = View(at(12, 2), RO, "highest priority pending, group 1", size=8)
    ICC_BPR1_EL1 = Register(at(12, 3), RW, "binary point, group 1", size=8, reset=1, mask=7)
    ICC_CTLR_EL1 = Register(
        at(12, 4), RW, "control", size=8, reset=0x8700, mask=CBPR | EOIMODE | PMHE,
        fields={
            "CBPR": 0, "EOImode": 1, "PMHE": 6, "PRIbits": (10, 8), "IDbits": (13, 11), "SEIS": 14, "A3V": 15,
            "RSS": 18, "ExtRange": 19,
        },
    )  # fmt: skip
    ICC_SRE_EL1 = Register(
        at(12, 5), RW, "system register enable: always", size=8, reset=7, mask=0, fields={"SRE": 0, "DFB": 1, "DIB": 2}
    )
    ICC_IGRPEN0_EL1 = Register(at(12, 6), RW, "enable group 0", size=8, mask=1)
    ICC_IGRPEN1_EL1 = Register(at(12, 7), RW, "enable group 1", size=8, mask=1)

    active_0 = State(bits=128)  # active priorities: bit p is group priority 2 p
    active_1 = State(bits=128)

    def __init__(self, name: str, machine: Machine, gic: GICv3, redistributor: GICv3Redistributor) -> None:
        super().__init__(name, machine)
        self.gic = gic
        self.redistributor = redistributor
        self.number = redistributor.number
        self.irq = Line(f"{name}.irq")
        self.fiq = Line(f"{name}.fiq")
        self._bank = self.banks["ICC"]
        self._layout = self.LAYOUTS["ICC"]
        self._me = Attributes(cpu=self.number)
        self.words: memoryview | None = None  # what native code has of this (machine/native/gic.py: Cpu)

    def on_reset(self) -> None:
        """Nothing is active and no group enabled."""
        self.gic.look(1 << self.number)

    def on_restore(self) -> None:
        """What is shifted by has to be small, whatever was saved."""
        self.ICC_BPR0_EL1 &= 7
        self.ICC_BPR1_EL1 = max(self.ICC_BPR1_EL1 & 7, 1)
        self.gic.look(1 << self.number)

    # What a CPU calls

    def read(self, register: int) -> int | None:
        """MRS. None: there is no such register, or it is not to be read."""
        offset = 8 * register
        if offset not in self._layout.reads:
            return None
        with self.machine.lock:
            return self._bank.read(offset, 8, self._me)

    def write(self, register: int, value: int) -> bool:
        """MSR. False: there is no such register, or it is not to be written."""
        offset = 8 * register
        if offset not in self._layout.writes:
            return False
        with self.machine.lock:
            self._bank.write(offset, 8, value, self._me)
        return True

    # The most urgent interrupt

    @property
    def enables(self) -> int:
        """The groups that are enabled here and in the distributor."""
        return (self.ICC_IGRPEN0_EL1 | self.ICC_IGRPEN1_EL1 << 1) & self.gic.GICD_CTLR

    @property
    def running(self) -> int:
        """The group priority of what runs; 0x100 if nothing does."""
        return running(self.active_0 | self.active_1)

    def wanted(self) -> tuple[Offer, int]:
        """The most urgent pending interrupt of the groups that are enabled, and its group."""
        if self.words:
            return unpacked(self.words[BEST])
        enables = self.enables
        first = self.gic.offer_for(self, 0) if enables & 1 else NOTHING
        second = self.gic.offer_for(self, 1) if enables & 2 else NOTHING
        return (second, 1) if second < first else (first, 0)

    def _highest(self) -> tuple[Offer, int]:
        return (NOTHING, 0) if self.redistributor.asleep else self.wanted()

    def _mask(self, group: int) -> int:
        """The bits of a priority that may preempt."""
        if group and not self.ICC_CTLR_EL1 & CBPR:
            return 0xFF & ~((1 << self.ICC_BPR1_EL1) - 1)
        return 0xFF & ~((2 << self.ICC_BPR0_EL1) - 1)

    def _may_interrupt(self, priority: int, group: int) -> bool:
        if priority >= self.ICC_PMR_EL1:
            return False
        level = self.running
        if level == IDLE:
            return True
        mask = self._mask(group)
        return priority & mask < level & mask

    def takes_part(self, group: int, priority: int) -> bool:
        """Whether an interrupt that may go to any CPU may come here."""
        hidden = self.ICC_CTLR_EL1 & PMHE and priority >= self.ICC_PMR_EL1
        return bool(self.redistributor.takes(group) and self.enables >> group & 1 and not hidden)

    def update(self) -> None:
        """Set the lines to the CPU, or wake it."""
        (priority, _), group = self.wanted()
        asleep = self.redistributor.asleep
        up = not asleep and self._may_interrupt(priority, group)
        self.fiq.set(up and not group)
        self.irq.set(up and bool(group))
        self.redistributor.wake_request.set(asleep and priority < IDLE)

    def _changed(self) -> None:
        self.gic.look(1 << self.number)

    def _ran(self, affected: int) -> None:
        """What runs is different; `affected`: the CPUs that see more that is."""
        if self.words:
            self.words[RUNNING] = self.running
            self.words[LPI] = packed(self.redistributor.lpis.best)
            self.gic.resolve()
        else:
            self.gic.look(affected | 1 << self.number)

    # What native code is told and tells

    def share(self) -> None:
        """All settings, and the most urgent LPI."""
        if self.words:
            flags = native.SPLIT | (native.ASLEEP if self.redistributor.asleep else 0)
            flags |= native.PMHE if self.ICC_CTLR_EL1 & PMHE else 0
            flags |= native.TAKES * (self.redistributor.takes(0) | self.redistributor.takes(1) << 1)
            self.words[: SETTINGS + 1] = array("Q", (
                self.enables & 3, self.ICC_PMR_EL1, self.running, self._mask(0), self._mask(1), flags,
                packed(self.redistributor.lpis.best),
            ))  # fmt: skip

    def share_enables(self) -> None:
        """The groups that are enabled, when it is only these that are other ones."""
        if self.words:
            self.words[ENABLES] = self.enables & 3

    def signal(self) -> None:
        """Set the lines as native code says."""
        if self.words:
            best = self.words[BEST]
            self.fiq.set(best & native.FIQ != 0)
            self.irq.set(best & native.IRQ != 0)
            self.redistributor.wake_request.set(best & native.WAKE != 0)

    # Acknowledge and end

    @ICC_IAR0_EL1.on_read
    def _acknowledge_0(self) -> int:
        return self._acknowledge(0)

    @ICC_IAR1_EL1.on_read
    def _acknowledge_1(self) -> int:
        return self._acknowledge(1)

    def _acknowledge(self, wanted: int) -> int:
        (priority, number), group = self._highest()
        if group != wanted or not self._may_interrupt(priority, group):
            return SPURIOUS
        level = 1 << (priority & self._mask(group)) // 2
        if group:
            self.active_1 |= level
        else:
            self.active_0 |= level
        self._ran(self.gic.activate_for(self.redistributor, number))
        return number

    @ICC_HPPIR0_EL1.on_read
    def _pending_0(self) -> int:
        (_, number), group = self._highest()
        return SPURIOUS if group else number

    @ICC_HPPIR1_EL1.on_read
    def _pending_1(self) -> int:
        (_, number), group = self._highest()
        return number if group else SPURIOUS

    @ICC_EOIR0_EL1.on_write
    def _end_0(self, value: int) -> None:
        self._end(value & INTID, 0)

    @ICC_EOIR1_EL1.on_write
    def _end_1(self, value: int) -> None:
        self._end(value & INTID, 1)

    def _end(self, number: int, group: int) -> None:
        """Drop the running priority, if it is one of that group; and deactivate, if that is not apart."""
        if SPECIAL <= number < LPIS:
            return  # spurious ones are ended as well
        level = self.running
        if level == IDLE or running(self.active_1 if group else self.active_0) != level:
            self.guest_error(f"ICC_EOIR{group}_EL1 is written while nothing of that group runs")
            return
        if group:
            self.active_1 = dropped(self.active_1)
        else:
            self.active_0 = dropped(self.active_0)
        affected = 0 if self.ICC_CTLR_EL1 & EOIMODE else self.gic.deactivate_for(self.redistributor, number)
        self._ran(affected)

    @ICC_DIR_EL1.on_write
    def _deactivate(self, value: int) -> None:
        if not self.ICC_CTLR_EL1 & EOIMODE:
            self.guest_error("ICC_DIR_EL1 is written without EOImode")
            return
        self.gic.look(self.gic.deactivate_for(self.redistributor, value & INTID))

    # Priorities

    @ICC_RPR_EL1.on_read
    def _running_priority(self) -> int:
        return min(self.running, 0xFF)

    @ICC_BPR1_EL1.on_read
    def _point_1(self) -> int:
        return min(self.ICC_BPR0_EL1 + 1, 7) if self.ICC_CTLR_EL1 & CBPR else self.ICC_BPR1_EL1

    @ICC_BPR1_EL1.on_write
    def _set_point_1(self, value: int) -> None:
        if not self.ICC_CTLR_EL1 & CBPR:
            self.ICC_BPR1_EL1 = max(value & 7, 1)
            self._changed()

    @ICC_AP0R_EL1.on_read
    def _levels_0(self, index: int) -> int:
        return word_of(self.active_0, index)

    @ICC_AP0R_EL1.on_write
    def _set_levels_0(self, index: int, value: int) -> None:
        self.active_0 = with_word(self.active_0, index, value)
        self._changed()

    @ICC_AP1R_EL1.on_read
    def _levels_1(self, index: int) -> int:
        return word_of(self.active_1, index)

    @ICC_AP1R_EL1.on_write
    def _set_levels_1(self, index: int, value: int) -> None:
        self.active_1 = with_word(self.active_1, index, value)
        self._changed()

    @ICC_PMR_EL1.after_write
    def _limit(self) -> None:
        if self.words:
            self.words[LIMIT] = self.ICC_PMR_EL1
            self.gic.resolve()
        else:
            self._changed()

    @ICC_BPR0_EL1.after_write
    @ICC_CTLR_EL1.after_write
    @ICC_IGRPEN0_EL1.after_write
    @ICC_IGRPEN1_EL1.after_write
    def _settings(self) -> None:
        self._changed()

    # Software interrupts

    @ICC_SGI0R_EL1.on_write
    @ICC_ASGI1R_EL1.on_write
    def _generate_0(self, value: int) -> None:
        """With one security state, the group 1 of the other one is group 0."""
        self.gic.generate(value, 0, self.number)

    @ICC_SGI1R_EL1.on_write
    def _generate_1(self, value: int) -> None:
        self.gic.generate(value, 1, self.number)
