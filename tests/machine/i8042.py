"""A machine with a keyboard controller and port 0x92, for tests: what goes in and out."""

from __future__ import annotations

from dbt.machine.devices.i8042 import I8042
from dbt.machine.devices.port92 import Port92
from dbt.machine.input import Input
from dbt.machine.lines import OrGate
from dbt.machine.machine import PORTS, Machine

from tests.machine.qtest import Ours

DATA, STATUS = 0x60, 0x64
KEY_A, KEY_SHIFT, KEY_UP, KEY_PAUSE, KEY_F7 = 30, 42, 103, 119, 65


class Pc:
    """A machine with the controller and port 0x92, and what goes in and out."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.user = Input()
        self.i8042 = I8042("i8042", self.machine, user=self.user)
        gate = OrGate(self.i8042.a20)
        self.i8042.a20 = gate.input()
        self.a20 = gate.output
        self.port92 = Port92("port92", self.machine, gate.input())
        self.machine.place(self.i8042, DATA, PORTS, "DATA_PORT")
        self.machine.place(self.i8042, STATUS, PORTS, "COMMAND_PORT")
        self.machine.place(self.port92, 0x92, PORTS)
        self.machine.reset()
        self.bus = Ours(self.machine)

    def got(self) -> bytes:
        """All that waits; the mouse's and the keyboard's."""
        taken = bytearray()
        while self.bus.inp(STATUS) & 1:
            taken.append(self.bus.inp(DATA))
        return bytes(taken)

    def keyboard(self, *values: int) -> bytes:
        answers = b""
        for value in values:
            self.bus.out(DATA, value)
            answers += self.got()
        return answers

    def mouse(self, *values: int) -> bytes:
        answers = b""
        for value in values:
            self.bus.out(STATUS, 0xD4)
            self.bus.out(DATA, value)
            answers += self.got()
        return answers

    def mode(self, value: int) -> None:
        self.bus.out(STATUS, 0x60)
        self.bus.out(DATA, value)

    def press(self, *codes: int) -> bytes:
        for code in codes:
            self.user.key(code, True)
            self.user.key(code, False)
        return self.got()
