"""Local APIC of one CPU: xAPIC page, x2APIC MSRs, IA32_APIC_BASE (Intel SDM volume 3, chapter 11).

    bus = ApicBus()
    apic = LocalApic("apic0", machine, number=0, bus=bus, processor=cpu)
    space = apic.own_space()          # the CPU's: the machine's memory, and the page where IA32_APIC_BASE has it

The CPU looks at the line `intr` and calls `acknowledge`; `read_msr` and `write_msr` answer None and False where it has
to raise #GP. Parts: apic_core.py (priorities, acceptance), apic_timer.py, apic_bus.py (destinations).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.clock import SECOND
from dbt.machine.devices.apic_bus import (
    EXTINT,
    FIXED,
    INIT,
    LOWEST,
    RESERVED,
    STARTUP,
    ApicBus,
    Message,
    Processor,
)
from dbt.machine.devices.apic_core import (
    BSP,
    ENABLED,
    EXTD,
    ILLEGAL_REGISTER,
    MASKED,
    REMOTE_IRR,
    SEND_ILLEGAL,
    SOFTWARE_ENABLE,
    TRIGGER,
    ApicCore,
)
from dbt.machine.devices.apic_timer import ApicTimer
from dbt.machine.memory import AddressSpace, Attributes, Container, overlay
from dbt.machine.registers import RO, WO

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.lines import Line
    from dbt.machine.machine import Machine

IA32_APIC_BASE, IA32_TSC_DEADLINE, X2APIC_MSRS = 0x1B, 0x6E0, range(0x800, 0x900)
X2_ICR, X2_SELF_IPI = 0x830, 0x83F
X2_MISSING = frozenset({0x090, 0x0C0, 0x0E0, 0x310})  # registers that x2APIC does not have
NO_SHORTHAND, SELF, ALL, OTHERS = range(4)
ICR_LEVEL, ICR_LOGICAL = 1 << 14, 1 << 11


class LocalApic(ApicTimer):
    """Intel local APIC (SDM volume 3, chapter 11), xAPIC and x2APIC."""

    VERSION = 2  # 1 had sets of vectors as one number each

    def __init__(
        self, name: str, machine: Machine, *, number: int, bus: ApicBus, processor: Processor | None = None,
        intr: Line | None = None, acknowledge_pic: Callable[[], int] | None = None,
        frequency: int = SECOND, tsc_frequency: int = SECOND, physical_bits: int = 40,
    ) -> None:  # fmt: skip
        super().__init__(
            name, machine, number=number, bus=bus, processor=processor, intr=intr, acknowledge_pic=acknowledge_pic,
            frequency=frequency, tsc_frequency=tsc_frequency,
        )  # fmt: skip
        self._base_bits = (1 << physical_bits) - (1 << 12) | ENABLED | EXTD | BSP
        self._page = self.region.handler
        self.region.handler = self
        self._root: Container | None = None  # of the CPU's own space

    def own_space(self) -> AddressSpace:
        """The CPU's space of memory."""
        space = overlay(f"{self.name}.memory", self.machine.memory, [(self.base & ~0xFFF, self.region)])
        self._root = self.region.parent
        self._place()
        return space

    def _place(self) -> None:
        if self._root is not None:
            with self._root.changes():
                self.region.enabled = self.enabled and not self.x2apic
                self._root.move(self.region, self.base & ~0xFFF)

    def on_reset(self) -> None:
        """As after power-on."""
        self._follow()

    def on_restore(self) -> None:
        """The page, the timer and the line follow from the state."""
        self.adopt()
        self.counted = min(self.counted, self.clock.now)
        self._follow()

    def _follow(self) -> None:
        self._place()
        self.arm()
        self.update()

    def on_init(self) -> None:
        """INIT: as after power-on but for the ID, IA32_APIC_BASE and what belongs to the CPU (11.4.7.3)."""
        kept = {name: self.__dict__[name] for name in ("ID", "base", "lint", "tsc_offset")}
        self._initial()
        self.__dict__.update(kept)
        self.waits = int(not self.base & BSP)
        self._follow()

    # The page: the handler of the region

    def read(self, offset: int, size: int, attributes: Attributes) -> int:
        """A read of the page; reserved offsets are errors (11.5.3)."""
        if offset not in READABLE:
            self.error(ILLEGAL_REGISTER)
        return self._page.read(offset, size, attributes)

    def write(self, offset: int, size: int, value: int, attributes: Attributes) -> None:
        """A write, as above."""
        if offset not in WRITABLE:
            self.error(ILLEGAL_REGISTER)
        self._page.write(offset, size, value, attributes)

    # Registers

    @ApicCore.ID.on_read
    def _id(self) -> int:
        return self.number if self.x2apic else self.ID

    @ApicCore.LDR.on_read
    def _ldr(self) -> int:
        return self.logical_identity()

    @ApicCore.DFR.on_write
    def _set_dfr(self, value: int) -> None:
        if value >> 28 not in {0, 0xF}:
            self.guest_error("DFR knows the models flat and cluster only", f": {value:#x}")
        self.DFR = value | 0x0FFF_FFFF

    @ApicCore.PPR.on_read
    def _ppr(self) -> int:
        return self.priority()

    @ApicCore.TPR.after_write
    def _new_priority(self) -> None:
        self.update()

    @property
    def cr8(self) -> int:
        """The task priority as CR8 shows it (11.8.6)."""
        return self.TPR >> 4

    @cr8.setter
    def cr8(self, value: int) -> None:
        self.TPR = (value & 15) << 4
        self.update()

    @ApicCore.EOI.on_write
    def _eoi(self, value: int) -> None:
        if value:
            self.guest_error("EOI is written with other than 0")
        self.end()

    @ApicCore.SVR.on_write
    def _set_svr(self, value: int) -> None:
        self.SVR = value & 0x11FF
        if not value & SOFTWARE_ENABLE:
            for name in ("LVT_TIMER", "LVT_THERMAL", "LVT_PERF", "LVT_LINT0", "LVT_LINT1", "LVT_ERROR"):
                self.__dict__[name] |= MASKED
        self.arm()
        self.update()

    @ApicCore.ISR.on_read
    def _isr(self, index: int) -> int:
        return self.in_service[index]

    @ApicCore.TMR.on_read
    def _tmr(self, index: int) -> int:
        return self.by_level[index]

    @ApicCore.IRR.on_read
    def _irr(self, index: int) -> int:
        return self.requested[index]

    @ApicCore.ESR.on_write
    def _set_esr(self, value: int) -> None:
        del value
        self.ESR, self.errors = self.errors, 0
        self.arm()  # a timer with an illegal vector errs anew

    def _entry(self, value: int) -> int:
        return value if self.software_enabled else value | MASKED

    @ApicCore.LVT_THERMAL.on_write
    def _set_thermal(self, value: int) -> None:
        self.LVT_THERMAL = self._entry(value & 0x107FF)

    @ApicCore.LVT_PERF.on_write
    def _set_perf(self, value: int) -> None:
        self.LVT_PERF = self._entry(value & 0x107FF)

    @ApicCore.LVT_ERROR.on_write
    def _set_error(self, value: int) -> None:
        self.LVT_ERROR = self._entry(value & 0x100FF)

    @ApicCore.LVT_LINT0.on_write
    def _set_lint0(self, value: int) -> None:
        kept = self.LVT_LINT0 & REMOTE_IRR if value & TRIGGER else 0
        self.LVT_LINT0 = self._entry(value & 0x1A7FF) | kept
        self.look_at_lint(0)
        self.update()

    @ApicCore.LVT_LINT1.on_write
    def _set_lint1(self, value: int) -> None:
        if value & TRIGGER:
            self.guest_error("LINT1 is always an edge")
        self.LVT_LINT1 = self._entry(value & 0x1A7FF)

    # Interprocessor interrupts (11.6.1)

    @ApicCore.ICR.on_write
    def _command(self, value: int) -> None:
        self.ICR = value & 0xCCFFF
        self.send(value, self.ICR2 if self.x2apic else self.ICR2 >> 24)

    def send(self, command: int, destination: int) -> None:
        """What the low half of ICR says."""
        mode, vector, shorthand = command >> 8 & 7, command & 0xFF, command >> 18 & 3
        if mode in {FIXED, LOWEST} and vector < 16:
            self.error(SEND_ILLEGAL)
            return
        if mode == INIT and not command & ICR_LEVEL:
            return  # de-assert: only older APICs synchronised their arbitration by it
        if (
            mode in {RESERVED, EXTINT}
            or (shorthand in {SELF, ALL} and mode != FIXED)
            or (mode == STARTUP and not command & ICR_LEVEL)
        ):
            self.guest_error("ICR has a combination that is not valid", f": {command:#x}")
            return
        logical = bool(command & ICR_LOGICAL)
        if self.x2apic:
            message = Message(destination, mode, vector, logical)
        else:
            message = Message.of_byte(destination, mode, vector, logical=logical)
        among: list[ApicCore] | None = None
        if shorthand == SELF:
            among = [self]
        elif shorthand != NO_SHORTHAND:
            among = [apic for apic in self.bus.apics if apic.enabled and (shorthand == ALL or apic is not self)]
        self.bus.send(message, among)

    # MSRs (11.4.4, 11.12)

    def read_msr(self, index: int) -> int | None:
        """RDMSR; None: #GP."""
        if index == IA32_APIC_BASE:
            return self.base
        if index == IA32_TSC_DEADLINE:
            return self.read_deadline()
        offset = (index - X2APIC_MSRS.start) << 4
        if not self.x2apic or index not in X2APIC_MSRS or offset not in READABLE or offset in X2_MISSING:
            return None
        if index == X2_ICR:
            return self.ICR2 << 32 | self.ICR
        return self._page.read(offset, 4, self._self())

    def write_msr(self, index: int, value: int) -> bool:
        """WRMSR; False: #GP."""
        if index == IA32_APIC_BASE:
            return self._set_base(value)
        if index == IA32_TSC_DEADLINE:
            self.write_deadline(value)
            return True
        if not self.x2apic or index not in X2APIC_MSRS:
            return False
        if index == X2_ICR:
            if value & 0xFFFF_FFFF & ~0xCCFFF:
                return False
            self.ICR2, self.ICR = value >> 32, value & 0xCCFFF
            self.send(self.ICR, self.ICR2)
            return True
        if index == X2_SELF_IPI:
            if value >> 8:
                return False
            self.send(SELF << 18 | value, 0)
            return True
        offset = (index - X2APIC_MSRS.start) << 4
        register = WRITABLE.get(offset)
        if register is None or offset in X2_MISSING or offset in {0x020, 0x0D0}:
            return False
        if value & ~(0 if offset in {0x0B0, 0x280} else register.mask | register.unimplemented):
            return False
        self._page.write(offset, 4, value, self._self())
        return True

    def _self(self) -> Attributes:
        return Attributes(cpu=self.number)

    def _set_base(self, value: int) -> bool:
        """Modes change along the arrows of figure 11-27 only."""
        old, new = self.base & (ENABLED | EXTD), value & (ENABLED | EXTD)
        if value & ~self._base_bits or new == EXTD:
            return False
        if (old == 0 and new == ENABLED | EXTD) or (old == ENABLED | EXTD and new == ENABLED):
            return False
        if old and not new:  # disabled: the state is lost (11.4.3)
            kept = {name: self.__dict__[name] for name in ("lint", "tsc_offset", "waits")}
            self._initial()
            self.__dict__.update(kept)
        if new == ENABLED | EXTD and old == ENABLED:
            self.ICR2 = 0
        self.base = value
        self._follow()
        return True


READABLE = {offset: register for offset, register in LocalApic.LAYOUTS["WINDOW"].every() if register.access != WO}
WRITABLE = {offset: register for offset, register in LocalApic.LAYOUTS["WINDOW"].every() if register.access != RO}
