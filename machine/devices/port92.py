"""A PC's port 0x92 (IBM PS/2 technical reference, system control port A): fast A20 and fast reset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.device import Device
from dbt.machine.lines import Line
from dbt.machine.memory import AccessSizes
from dbt.machine.registers import RW, Register, Window

if TYPE_CHECKING:
    from dbt.machine.machine import Machine


class Port92(Device):
    """System control port A of a PC: A20 and reset; `a20` is up while the address line is let through."""

    WINDOW = Window(1, AccessSizes((1, 1), (1, 1)))
    PORT = Register(0, RW, "control", size=1, mask=0x03, unimplemented=0xC8, fields={"RESET": 0, "A20": 1})

    def __init__(self, name: str, machine: Machine, a20: Line | None = None) -> None:
        super().__init__(name, machine)
        self.a20 = a20 or Line(f"{name}.a20")

    def on_reset(self) -> None:
        """The line follows."""
        self.a20.set(bool(self.PORT & 2))

    @PORT.on_write
    def _write(self, value: int) -> None:
        rises = value & ~self.PORT & 1
        self.PORT = value & 0x03
        self.a20.set(bool(value & 2))
        if rises:
            self.machine.power.reset(self.name)
