"""Intel 8259A interrupt controller (231468), and the pair of them that a PC has, with its edge/level registers.

An edge that was seen stays requested until it is acknowledged, also if the input falls meanwhile, as chip sets have it.
Buffered mode and the MCS-80 vectors are not there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.device import Device
from dbt.machine.lines import Line
from dbt.machine.memory import AccessSizes
from dbt.machine.registers import RO, RW, WO, Register, State, View, Window

if TYPE_CHECKING:
    from dbt.machine.machine import Machine

BYTE = AccessSizes((1, 1), (1, 1))
CASCADE = 2  # the master's input that the slave is on
READY, ICW2, ICW3, ICW4 = range(4)  # what the next write to port 1 is


class I8259(Device):
    """Intel 8259A programmable interrupt controller (231468), with an edge/level control register."""

    WINDOW = Window(2, BYTE)
    ELCR_WINDOW = Window(1, BYTE)
    COMMAND = View(0, WO, "ICW1, OCW2 or OCW3, by bits 4 and 3", size=1)
    STATUS = View(0, RO, "IRR or ISR, as OCW3 chose; or the poll", size=1)
    DATA = Register(1, RW, "OCW1: the mask; ICW2 to ICW4 after ICW1", size=1)
    ELCR = Register(0, RW, "inputs that are levels", size=1, window=ELCR_WINDOW)

    irr = State(bits=8)
    isr = State(bits=8)
    seen = State(bits=8)  # the inputs
    base = State(bits=8)  # vector of input 0
    expected = State(bits=2)
    wants_icw4 = State(bits=1)
    single = State(bits=1)
    automatic_eoi = State(bits=1)
    rotates = State(bits=1)  # at automatic EOI
    special_mask = State(bits=1)
    fully_nested = State(bits=1)  # special fully nested mode: the slave may interrupt itself
    polled = State(bits=1)
    shows_isr = State(bits=1)
    top = State(bits=3)  # the input of highest priority

    def __init__(self, name: str, machine: Machine, output: Line | None = None, *, levels: int, master: bool) -> None:
        super().__init__(name, machine)
        self.output = output or Line(f"{name}.int")
        self._may_be_level = levels
        self._master = master

    def input(self, number: int) -> Line:
        """The wire of an input."""

        def changed(level: bool) -> None:
            bit = 1 << number
            if level and (self.ELCR & bit or not self.seen & bit):
                self.irr |= bit
            elif not level and self.ELCR & bit:
                self.irr &= ~bit
            self.seen = self.seen | bit if level else self.seen & ~bit
            self._update()

        return Line(f"{self.name}.ir{number}", changed)

    def on_reset(self) -> None:
        """Nothing is requested."""
        self._update()

    # Priorities

    def _first(self, bits: int) -> int:
        """The priority (0 is highest) of the most urgent of `bits`; 8 if there is none."""
        turned = (bits | bits << 8) >> self.top & 0xFF
        return (turned & -turned).bit_length() - 1 if turned else 8

    def pending(self) -> int | None:
        """The input that asks for the processor."""
        wanted = self._first(self.irr & ~self.DATA)
        busy = self.isr
        if self.special_mask:
            busy &= ~self.DATA
        if self.fully_nested and self._master:
            busy &= ~(1 << CASCADE)
        return wanted + self.top & 7 if wanted < self._first(busy) else None

    def accept(self, number: int) -> None:
        """The processor takes an input's interrupt."""
        if not self.ELCR >> number & 1:
            self.irr &= ~(1 << number)
        if not self.automatic_eoi:
            self.isr |= 1 << number
        elif self.rotates:
            self.top = number + 1 & 7
        self._update()

    def _update(self) -> None:
        self.output.set(self.pending() is not None)

    # Registers

    def _poll(self) -> int:
        self.polled = 0
        number = self.pending()
        if number is None:
            return 0
        self.accept(number)
        return 0x80 | number

    @STATUS.on_read
    def _status(self) -> int:
        if self.polled:
            return self._poll()
        return self.isr if self.shows_isr else self.irr

    @DATA.on_read
    def _mask(self) -> int:
        return self._poll() if self.polled else self.DATA

    @COMMAND.on_write
    def _command(self, value: int) -> None:
        if value & 0x10:
            self._icw1(value)
        elif value & 0x08:
            if value & 0x04:
                self.polled = 1
            if value & 0x02:
                self.shows_isr = value & 1
            if value & 0x40:
                self.special_mask = value >> 5 & 1
        else:
            self._ocw2(value >> 5, value & 7)
        self._update()

    def _icw1(self, value: int) -> None:
        if value & 0x08:
            self.unimplemented("ICW1 asks for levels on all inputs: chip sets have the ELCR for that")
        self.irr &= self.ELCR
        self.seen &= self.ELCR
        self.DATA = self.isr = self.base = self.top = 0
        self.automatic_eoi = self.rotates = self.special_mask = self.fully_nested = 0
        self.polled = self.shows_isr = 0
        self.wants_icw4 = value & 1
        self.single = value >> 1 & 1
        self.expected = ICW2

    def _ocw2(self, command: int, level: int) -> None:
        if command in {0, 4}:
            self.rotates = command >> 2
        elif command in {1, 5}:
            served = self.isr & ~self.DATA if self.special_mask else self.isr
            priority = self._first(served)
            if priority < 8:
                number = priority + self.top & 7
                self.isr &= ~(1 << number)
                if command == 5:
                    self.top = number + 1 & 7
        elif command in {3, 7}:
            self.isr &= ~(1 << level)
            if command == 7:
                self.top = level + 1 & 7
        elif command == 6:
            self.top = level + 1 & 7

    @DATA.on_write
    def _data(self, value: int) -> None:
        after_icw3 = ICW4 if self.wants_icw4 else READY
        if self.expected == READY:
            self.DATA = value
        elif self.expected == ICW2:
            self.base = value & 0xF8
            self.expected = after_icw3 if self.single else ICW3
        elif self.expected == ICW3:  # where the slave is: a PC's wires say so
            self.expected = after_icw3
        else:
            self.fully_nested = value >> 4 & 1
            self.automatic_eoi = value >> 1 & 1
            self.expected = READY
            if value & 0x08:
                self.unimplemented("ICW4 asks for buffered mode")
            if not value & 0x01:
                self.guest_error("ICW4 asks for MCS-80 mode")
        self._update()

    @ELCR.on_write
    def _levels(self, value: int) -> None:
        if value & ~self._may_be_level:
            self.guest_error(f"ELCR: bits {value & ~self._may_be_level:#x} are always edges")
        self.ELCR = value & self._may_be_level


class PicPair:
    """A PC's sixteen inputs, of which 2 is the slave's: `inputs`, the processor's line `intr`, and `acknowledge`."""

    def __init__(self, machine: Machine, intr: Line | None = None, name: str = "pic") -> None:
        self.intr = intr or Line("intr")
        self.master = I8259(f"{name}0", machine, self.intr, levels=0xF8, master=True)
        self.slave = I8259(f"{name}1", machine, self.master.input(CASCADE), levels=0xDE, master=False)
        self.inputs = [chip.input(number) for chip in (self.master, self.slave) for number in range(8)]

    def acknowledge(self) -> int:
        """The processor's INTA: the vector. Requests that went away meanwhile are input 7, without service."""
        number = self.master.pending()
        if number is None:
            return self.master.base + 7
        if number != CASCADE:
            self.master.accept(number)
            return self.master.base + number
        inner = self.slave.pending()
        if inner is not None:
            self.slave.accept(inner)
        self.master.accept(number)
        return self.slave.base + (7 if inner is None else inner)
