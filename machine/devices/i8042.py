"""Intel 8042 as a PC's keyboard controller (IBM PS/2 technical reference, "Keyboard and auxiliary device controller").

It has a keyboard and a mouse, takes one byte at a time from either, and translates the keyboard's from set 2 to set 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.device import Device
from dbt.machine.devices.ps2_codes import TRANSLATED
from dbt.machine.devices.ps2_keyboard import Ps2Keyboard
from dbt.machine.devices.ps2_mouse import Ps2Mouse
from dbt.machine.lines import Line
from dbt.machine.memory import AccessSizes
from dbt.machine.registers import RO, RW, WO, Fifo, Register, State, States, View, Window

if TYPE_CHECKING:
    from dbt.machine.input import Input
    from dbt.machine.machine import Machine

BYTE = AccessSizes((1, 1), (1, 1))
OBF, SYS, CMD, UNLOCKED, AUX = 0x01, 0x04, 0x08, 0x10, 0x20  # status
KBD_INT, AUX_INT, KBD_OFF, AUX_OFF, TRANSLATE = 0x01, 0x02, 0x10, 0x20, 0x40  # command byte
NOT_RESET, A20, KBD_FULL, AUX_FULL = 0x01, 0x02, 0x10, 0x20  # output port
RESPONSE, KEYBOARD, MOUSE = range(3)  # where a byte comes from


class I8042(Device):
    """Intel 8042 keyboard controller of a PC, with its keyboard and mouse."""

    DATA_PORT = Window(1, BYTE)
    COMMAND_PORT = Window(1, BYTE)
    DATA = Register(0, RW, "data", size=1, window=DATA_PORT)
    STATUS = Register(
        0, RO, "status", size=1, reset=CMD | UNLOCKED, window=COMMAND_PORT,
        fields={"OBF": 0, "IBF": 1, "SYS": 2, "CMD": 3, "UNLOCKED": 4, "AUX": 5, "TIMEOUT": 6, "PARITY": 7},
    )  # fmt: skip
    COMMAND = View(0, WO, "command", size=1, window=COMMAND_PORT)

    ram = States(32, bits=8)  # the command byte is the first
    output = State(0xCF, bits=8)  # the output port, without what the buffer says
    wants = State(bits=8)  # the command that awaits a byte in the data port
    responses = Fifo(4)
    for_mouse = State(bits=4)  # which of these count as the mouse's
    released = State(bits=1)  # the keyboard's last byte said that a key is up

    def __init__(
        self, name: str, machine: Machine, irq: Line | None = None, mouse_irq: Line | None = None,
        a20: Line | None = None, user: Input | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name, machine)
        self.irq, self.mouse_irq = irq or Line(f"{name}.irq1"), mouse_irq or Line(f"{name}.irq12")
        self.a20 = a20 or Line(f"{name}.a20")
        self.keyboard = Ps2Keyboard(f"{name}.keyboard", machine, self._load, user)
        self.mouse = Ps2Mouse(f"{name}.mouse", machine, self._load, user)

    def _initial(self) -> None:
        super()._initial()
        self.ram[0] = KBD_INT | AUX_INT

    def on_reset(self) -> None:
        """The address line 20 is let through."""
        self._drive()

    def on_restore(self) -> None:
        """Lines follow from the state."""
        if self.for_mouse >> len(self.responses):
            self.for_mouse = 0
        self._drive()

    def _drive(self) -> None:
        full, mode = self.STATUS & OBF, self.ram[0]
        self.irq.set(bool(full and not self.STATUS & AUX and mode & KBD_INT))
        self.mouse_irq.set(bool(full and self.STATUS & AUX and mode & AUX_INT))
        self.a20.set(bool(self.output & A20))

    # The output buffer

    def _load(self) -> None:
        """Fill the output buffer, if it is empty and somebody has a byte."""
        while not self.STATUS & OBF:
            mode = self.ram[0]
            if self.responses:
                value, aux = self.responses.pop(0), self.for_mouse & 1
                self.for_mouse >>= 1
            elif self.keyboard.waiting() and not mode & KBD_OFF:
                taken = self._translated(self.keyboard.pop())
                if taken is None:
                    continue  # a prefix: its byte follows
                value, aux = taken, 0
            elif self.mouse.waiting() and not mode & AUX_OFF:
                value, aux = self.mouse.pop(), 1
            else:
                break
            self.DATA = value
            self.STATUS = self.STATUS & ~AUX | OBF | (AUX if aux else 0)
        self._drive()

    def _translated(self, value: int) -> int | None:
        if not self.ram[0] & TRANSLATE:
            return value
        if value == 0xF0:
            self.released = 1
            return None
        up, self.released = self.released << 7, 0
        return TRANSLATED[value] | up

    def _respond(self, value: int, *, mouse: bool = False) -> None:
        if len(self.responses) == 4:
            self.guest_error("commands are given and no responses taken")
            return
        self.for_mouse |= mouse << len(self.responses)
        self.responses.append(value)
        self._load()

    @DATA.on_read
    def _read(self) -> int:
        value = self.DATA
        if self.STATUS & OBF:
            self.STATUS &= ~(OBF | AUX)
            self._drive()
            self._load()
        return value

    # Commands

    @DATA.on_write
    def _write(self, value: int) -> None:
        wants, self.wants = self.wants, 0
        self.STATUS &= ~CMD
        if 0x60 <= wants < 0x80:
            self.ram[wants - 0x60] = value
            self.STATUS = self.STATUS & ~SYS | value & SYS
            self._load()
        elif wants == 0xD1:
            self._set_output(value)
        elif wants == 0xD2:
            self._respond(value)
        elif wants == 0xD3:
            self._respond(value, mouse=True)
        elif wants == 0xD4:
            self.ram[0] &= ~AUX_OFF
            self.mouse.write(value)
        else:
            self.ram[0] &= ~KBD_OFF
            self.keyboard.write(value)

    def _set_output(self, value: int) -> None:
        self.output = value & ~(KBD_FULL | AUX_FULL)
        self._drive()
        if not value & NOT_RESET:
            self.machine.power.reset(self.name)

    @STATUS.on_read
    def _status(self) -> int:
        return self.STATUS

    @COMMAND.on_write
    def _command(self, value: int) -> None:
        self.STATUS |= CMD
        self.wants = 0
        if 0x20 <= value < 0x40:
            self._respond(self.ram[value - 0x20])
        elif 0x60 <= value < 0x80 or value in {0xD1, 0xD2, 0xD3, 0xD4}:
            self.wants = value
        elif value in {0xA7, 0xA8}:
            self._switch(AUX_OFF, off=value == 0xA7)
        elif value in {0xAD, 0xAE}:
            self._switch(KBD_OFF, off=value == 0xAD)
        elif value in ANSWERS:
            if value == 0xAA:
                self.STATUS |= SYS
            self._respond(ANSWERS[value])
        elif value == 0xD0:
            self._respond(self._output_port())
        elif value in {0xDD, 0xDF}:
            self._set_output(self.output & ~A20 | (A20 if value == 0xDF else 0))
        elif value >= 0xF0:  # pulse the low bits that are zeroes
            if not value & NOT_RESET:
                self.machine.power.reset(self.name)
        else:
            self.unimplemented(f"command {value:#x}")

    def _switch(self, bit: int, *, off: bool) -> None:
        self.ram[0] = self.ram[0] | bit if off else self.ram[0] & ~bit
        self._load()

    def _output_port(self) -> int:
        full = self.STATUS & OBF
        return self.output | ((AUX_FULL if self.STATUS & AUX else KBD_FULL) if full else 0)


# Commands with one answer: no password, tests that pass, the input port (not locked), the test inputs.
ANSWERS = {0xA4: 0xF1, 0xA9: 0x00, 0xAA: 0x55, 0xAB: 0x00, 0xC0: 0x80, 0xE0: 0x00}
