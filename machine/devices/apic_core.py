"""Local APIC: what it remembers, priorities, acceptance and end of interrupts, local inputs and errors.

Intel SDM volume 3, sections 11.5 (local vector table, errors), 11.6 (messages), 11.8 (handling of interrupts).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.device import Device
from dbt.machine.devices.apic_bus import (
    BROADCAST,
    EVERYBODY,
    EXTINT,
    FIXED,
    INIT,
    LOWEST,
    NMI,
    RESERVED,
    SMI,
    STARTUP,
    ApicBus,
    Message,
    Processor,
)
from dbt.machine.devices.apic_native import OFFERED, SETTINGS, SPURIOUS, TASK, shared
from dbt.machine.devices.apic_vectors import has, put, take, top
from dbt.machine.lines import Line
from dbt.machine.memory import AccessSizes
from dbt.machine.native import apic as native
from dbt.machine.native.apic import ASKS, EXTERNAL, LEVEL, NOTHING, PIC, TIMER
from dbt.machine.registers import RO, RW, WO, Fields, Register, State, States, View, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.machine import Machine

EXTD, ENABLED, BSP = 1 << 10, 1 << 11, 1 << 8  # IA32_APIC_BASE
DEFAULT_BASE = 0xFEE0_0000
SOFTWARE_ENABLE, SUPPRESS_EOI = 1 << 8, 1 << 12  # SVR
MASKED, TRIGGER, REMOTE_IRR, LOW_ACTIVE = 1 << 16, 1 << 15, 1 << 14, 1 << 13  # local vector table
SEND_ILLEGAL, RECEIVE_ILLEGAL, ILLEGAL_REGISTER = 0x20, 0x40, 0x80  # ESR
VERSION = 0x14 | 5 << 16 | 1 << 24  # six local vectors, EOI broadcasts can be suppressed
LVT_FIELDS: Fields = {"VECTOR": (7, 0), "MODE": (10, 8), "POLARITY": 13, "RIRR": 14, "TRIGGER": 15, "MASK": 16}
WORD = AccessSizes((4, 4), (4, 4))


class ApicCore(Device):
    """The registers that every part of it uses; see LocalApic for the whole."""

    KEPT = frozenset({"lint"})  # what others drive
    WINDOW = Window(0x1000, WORD)
    ID = Register(0x020, RW, "physical ID", mask=0xFF << 24)
    VER = Register(0x030, RO, "version", reset=VERSION, fields={"VERSION": (7, 0), "MAXLVT": (23, 16), "SUPPRESS": 24})
    TPR = Register(0x080, RW, "task priority", mask=0xFF)
    APR = View(0x090, RO, "arbitration priority")
    PPR = View(0x0A0, RO, "processor priority")
    EOI = View(0x0B0, WO, "end of interrupt")
    RRD = Register(0x0C0, RO, "remote read: not there since Pentium 4")
    LDR = Register(0x0D0, RW, "logical destination", mask=0xFF << 24)
    DFR = Register(0x0E0, RW, "destination format: flat or cluster", reset=0xFFFF_FFFF, mask=0xF << 28)
    SVR = Register(0x0F0, RW, "spurious vector", reset=0xFF, mask=0x11FF, unimplemented=0x200,
                   fields={"VECTOR": (7, 0), "ENABLE": 8, "FOCUS": 9, "SUPPRESS": 12})  # fmt: skip
    ISR = View(0x100, RO, "in service", count=8, stride=0x10)
    TMR = View(0x180, RO, "triggered by level", count=8, stride=0x10)
    IRR = View(0x200, RO, "requested", count=8, stride=0x10)
    ESR = Register(0x280, RW, "errors, as of the last write",
                   fields={"SENDILLEGAL": 5, "RECEIVEILLEGAL": 6, "ILLEGALREGISTER": 7})  # fmt: skip
    ICR = Register(0x300, RW, "interrupt command; writing sends", mask=0xCCFFF,
                   fields={"VECTOR": (7, 0), "MODE": (10, 8), "LOGICAL": 11, "LEVEL": 14, "TRIGGER": 15,
                           "SHORTHAND": (19, 18)})  # fmt: skip
    ICR2 = Register(0x310, RW, "interrupt command: destination", mask=0xFF << 24)
    LVT_TIMER = Register(0x320, RW, "local vector: timer", reset=MASKED, mask=0x700FF,
                         fields={"VECTOR": (7, 0), "MASK": 16, "MODE": (18, 17)})  # fmt: skip
    LVT_THERMAL = Register(0x330, RW, "local vector: thermal sensor", reset=MASKED, mask=0x107FF, fields=LVT_FIELDS)
    LVT_PERF = Register(0x340, RW, "local vector: performance counters", reset=MASKED, mask=0x107FF, fields=LVT_FIELDS)
    LVT_LINT0 = Register(0x350, RW, "local vector: LINT0", reset=MASKED, mask=0x1A7FF, fields=LVT_FIELDS)
    LVT_LINT1 = Register(0x360, RW, "local vector: LINT1", reset=MASKED, mask=0x1A7FF, fields=LVT_FIELDS)
    LVT_ERROR = Register(0x370, RW, "local vector: errors", reset=MASKED, mask=0x100FF, fields=LVT_FIELDS)
    TIMER_INITIAL = Register(0x380, RW, "timer: initial count")
    TIMER_CURRENT = View(0x390, RO, "timer: current count")
    TIMER_DIVIDE = Register(0x3E0, RW, "timer: divide configuration", mask=0xB)

    base = State(DEFAULT_BASE | ENABLED, bits=64)  # IA32_APIC_BASE
    in_service = States(8)  # sets of vectors, as the registers have them
    requested = States(8)
    by_level = States(8)
    errors = State(bits=8)  # since ESR was written
    lint = State(bits=2)  # the wires
    external = State(bits=1)  # a message asked for an interrupt of the 8259
    waits = State(bits=1)  # for a start-up message

    def __init__(
        self, name: str, machine: Machine, *, number: int, bus: ApicBus, processor: Processor | None,
        intr: Line | None, acknowledge_pic: Callable[[], int] | None,
    ) -> None:  # fmt: skip
        self.number = number  # APIC ID after a reset
        self.shared = shared(machine)
        super().__init__(name, machine)
        self.bus = bus
        self.processor = processor or Processor()
        self.intr = intr or Line(f"{name}.intr")
        self._acknowledge_pic = acknowledge_pic
        self.lint0 = Line(f"{name}.lint0", lambda level: self._wire(0, level))
        self.lint1 = Line(f"{name}.lint1", lambda level: self._wire(1, level))
        bus.apics.append(self)

    def _initial(self) -> None:
        super()._initial()
        self.adopt()
        self.ID = (self.number & 0xFF) << 24
        if not self.number:
            self.base |= BSP
        else:
            self.waits = 1

    def adopt(self) -> None:
        """Let native code have the sets, if there is any."""
        if self.shared:
            self.shared.adopt(self.__dict__)

    # Who it is

    @property
    def enabled(self) -> bool:
        """IA32_APIC_BASE enables it; else LINT0 and LINT1 are the CPU's INTR and NMI."""
        return bool(self.base & ENABLED)

    @property
    def x2apic(self) -> bool:
        """Its registers are MSRs, its ID has 32 bits."""
        return bool(self.base & EXTD)

    @property
    def software_enabled(self) -> bool:
        """It takes interrupts."""
        return self.enabled and bool(self.SVR & SOFTWARE_ENABLE)

    @property
    def identity(self) -> int:
        """The physical ID."""
        return self.number if self.x2apic else self.ID >> 24

    def logical_identity(self) -> int:
        """LDR: in x2APIC mode it follows from the ID (11.12.10.2)."""
        return self.number >> 4 << 16 | 1 << (self.number & 15) if self.x2apic else self.LDR

    def addressed(self, destination: int, *, logical: bool) -> bool:
        """Whether a destination means this one (11.6.2)."""
        if not self.enabled:
            return False
        if destination == BROADCAST:
            return True
        if not logical:
            return destination == self.identity
        mine = self.logical_identity()
        if self.x2apic:
            return destination >> 16 == mine >> 16 and bool(destination & mine & 0xFFFF)
        mine >>= 24
        if self.DFR >> 28 == 0xF:
            return bool(destination & mine)
        if destination == EVERYBODY:
            return True
        return destination >> 4 == mine >> 4 and bool(destination & mine & 0xF)

    # Priorities (11.8.3)

    def priority(self) -> int:
        """PPR."""
        serving = max(top(self.in_service), 0)
        return self.TPR if serving >> 4 <= self.TPR >> 4 else serving & 0xF0

    def pending(self) -> int:
        """The vector that is to be served now; -1 if there is none."""
        first = top(self.requested)
        return first if first >> 4 > self.priority() >> 4 else -1

    @APR.on_read
    def _arbitration(self) -> int:
        serving, asking = max(top(self.in_service), 0) >> 4, max(top(self.requested), 0) >> 4
        if asking <= self.TPR >> 4 and serving < self.TPR >> 4:
            return self.TPR
        return max(self.TPR >> 4, asking, serving) << 4

    def _pic(self) -> bool:
        """Whether the 8259 asks, by a message or through LINT0."""
        entry = self.LVT_LINT0
        return bool(self.external) or (entry >> 8 & 7 == EXTINT and not entry & MASKED and self._active(0))

    def _asked(self) -> bool:
        """Whether the 8259 asks the CPU."""
        return self._pic() if self.enabled else bool(self.lint & 1)

    def update(self) -> None:
        """Drive the CPU's line."""
        if self.shared:
            words = self.shared.words
            words[TASK], words[SPURIOUS] = self.TPR, self.SVR & 0xFF
            words[SETTINGS] = (native.ENABLED if self.enabled else 0) | (PIC if self._asked() else 0)
            self._drive(words[OFFERED])  # what native code has done since
            self._drive(self.shared.settle())
        else:
            self.intr.set((self.enabled and self.pending() >= 0) or self._asked())

    def _drive(self, offered: int) -> None:
        self.intr.set(offered & ASKS != 0)

    def acknowledge(self) -> int:
        """The CPU takes an interrupt: its vector. If the request went away meanwhile, the spurious one."""
        if self.shared:
            return self.acknowledged(self.shared.acknowledge())
        vector = self.pending() if self.enabled else -1
        if vector >= 0:
            take(self.requested, vector)
            put(self.in_service, vector)
            return self.acknowledged(vector | TIMER)
        return self.acknowledged(EXTERNAL if self._asked() else self.SVR & 0xFF | native.SPURIOUS)

    def acknowledged(self, found: int) -> int:
        """Do what is left to do once the CPU has taken an interrupt (machine/native/apic.py); the vector."""
        vector = found & 0xFF
        if found & TIMER:
            self.taken(vector)
        elif found & EXTERNAL:
            vector = self.SVR & 0xFF
            if self._acknowledge_pic:
                self.external = 0
                vector = self._acknowledge_pic()
        self.update()
        return vector

    def taken(self, vector: int) -> None:
        """`vector` may be requested anew."""

    # Acceptance (11.8.4)

    def deliver(self, message: Message) -> bool:
        """A message for this CPU; whether it was taken."""
        mode, vector = message.mode, message.vector
        if mode in {FIXED, LOWEST}:
            return self.accept(vector, level=message.level)
        if mode == EXTINT:
            if not self.software_enabled:
                return False
            self.external = 1
            self.update()
        elif mode == STARTUP:
            if not self.waits:
                return False
            self.waits = 0
            self.processor.start(vector)
        elif mode == RESERVED:
            return False
        else:
            self._signal(mode)
        return True

    def _signal(self, mode: int) -> None:
        if mode == NMI:
            self.processor.nmi()
        elif mode == SMI:
            self.processor.smi()
        elif mode == INIT:
            self.on_init()
            self.processor.init()

    def on_init(self) -> None:
        """What INIT does to the APIC."""

    def accept(self, vector: int, *, level: bool) -> bool:
        """Request a vector."""
        if not self.software_enabled:
            return False
        if vector < 16:
            self.error(RECEIVE_ILLEGAL)
            return False
        if self.shared:
            self._drive(self.shared.words[OFFERED])
            self._drive(self.shared.accept(vector, level))
            return True
        put(self.requested, vector)
        (put if level else take)(self.by_level, vector)
        self.update()
        return True

    # The end (11.8.5)

    def end(self) -> None:
        """EOI: the highest vector in service is done; spurious interrupts are ended as well."""
        if self.shared:
            self.ended(self.shared.end())
            return
        vector = top(self.in_service)
        if vector < 0:
            self.ended(NOTHING)
            return
        take(self.in_service, vector)
        self.ended(vector | LEVEL if has(self.by_level, vector) else vector)

    def ended(self, found: int) -> None:
        """Do what is left to do once a vector was ended."""
        vector = found & 0xFF
        if found & LEVEL:
            if self.LVT_LINT0 & REMOTE_IRR and vector == self.LVT_LINT0 & 0xFF:
                self.LVT_LINT0 &= ~REMOTE_IRR
                self.look_at_lint(0)
            if not self.SVR & SUPPRESS_EOI:
                self.bus.end(vector)
        if found != NOTHING:
            self.update()

    # Local inputs (11.5.1)

    def _active(self, pin: int) -> bool:
        entry = self.LVT_LINT1 if pin else self.LVT_LINT0
        return bool(self.lint >> pin & 1) != bool(entry & LOW_ACTIVE)

    def _wire(self, pin: int, level: bool) -> None:
        if bool(self.lint >> pin & 1) == level:
            return
        self.lint ^= 1 << pin
        if not self.enabled:
            if pin and level:
                self.processor.nmi()
            self.update()
            return
        entry = self.LVT_LINT1 if pin else self.LVT_LINT0
        if not entry & MASKED and self._active(pin) and not self._by_level(pin):
            mode = entry >> 8 & 7
            if mode == FIXED:
                self.accept(entry & 0xFF, level=False)
            else:
                self._signal(mode)
        self.look_at_lint(pin)
        self.update()

    def _by_level(self, pin: int) -> bool:
        """LINT0 may be a level (LINT1 is always an edge), of fixed interrupts only."""
        return not pin and bool(self.LVT_LINT0 & TRIGGER) and not self.LVT_LINT0 >> 8 & 7

    def look_at_lint(self, pin: int) -> None:
        """Request a level that is there and is not being served."""
        entry = self.LVT_LINT0
        asks = not pin and self._by_level(0) and self._active(0)
        if asks and not entry & (MASKED | REMOTE_IRR) and self.accept(entry & 0xFF, level=True):
            self.LVT_LINT0 |= REMOTE_IRR

    def local(self, entry: int) -> None:
        """An interrupt of the APIC itself or of its CPU, by its local vector."""
        if entry & MASKED or not self.enabled:
            return
        if entry >> 8 & 7 == FIXED:
            self.accept(entry & 0xFF, level=False)
        else:
            self._signal(entry >> 8 & 7)

    def thermal(self) -> None:
        """The thermal sensor of the CPU asks."""
        self.local(self.LVT_THERMAL)

    def performance(self) -> None:
        """A performance counter of the CPU asks; the entry is masked by it (11.5.1)."""
        entry = self.LVT_PERF
        self.LVT_PERF |= MASKED
        self.local(entry)

    # Errors (11.5.3)

    def error(self, bit: int) -> None:
        """Note an error, and ask if it is new."""
        new = bit & ~self.errors
        self.errors |= bit
        if new:
            self.local(self.LVT_ERROR)
