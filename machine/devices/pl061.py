"""Arm PrimeCell general purpose input/output, PL061 (DDI 0190): eight pins, each with an interrupt.

Address bits 9:2 of an access to GPIODATA say which pins it is about. Pins that nobody drives are low.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.device import Device
from dbt.machine.lines import Line
from dbt.machine.registers import RO, RW, WO, Register, State, View, Window

if TYPE_CHECKING:
    from dbt.machine.machine import Machine

PINS = 8
IDENTITY = (0x61, 0x10, 0x04, 0x00, 0x0D, 0xF0, 0x05, 0xB1)


class PL061(Device):
    """Arm PrimeCell general purpose input/output, PL061 (DDI 0190)."""

    WINDOW = Window(0x1000, partial=True)
    GPIODATA = View(0x000, RW, "pins, those that the address selects", count=256, mask=0xFF)
    GPIODIR = Register(0x400, RW, "direction: ones are outputs", mask=0xFF)
    GPIOIS = Register(0x404, RW, "interrupt sense: ones are levels", mask=0xFF)
    GPIOIBE = Register(0x408, RW, "both edges", mask=0xFF)
    GPIOIEV = Register(0x40C, RW, "event: ones are rising edges or high levels", mask=0xFF)
    GPIOIE = Register(0x410, RW, "interrupt mask: ones are enabled", mask=0xFF)
    GPIORIS = View(0x414, RO, "raw interrupts")
    GPIOMIS = View(0x418, RO, "masked interrupts")
    GPIOIC = View(0x41C, WO, "clear edges", mask=0xFF)
    GPIOAFSEL = Register(0x420, RW, "mode control", mask=0xFF)
    GPIOPeriphID = View(0xFE0, RO, "identity", count=8)

    output = State(bits=8)
    inputs = State(bits=8)
    edges = State(bits=8)  # what was seen of interrupts by edges

    def __init__(self, name: str, machine: Machine, irq: Line | None = None) -> None:
        super().__init__(name, machine)
        self.irq = irq or Line(f"{name}.irq")
        self.pins = [Line(f"{name}.out{pin}") for pin in range(PINS)]
        self._wires: dict[int, Line] = {}
        self._seen = 0  # the inputs at the last look, for edges: changes of the direction are none

    def input(self, pin: int) -> Line:
        """A wire that drives a pin while that is an input."""

        def changed(level: bool) -> None:
            self.inputs = self.inputs & ~(1 << pin) | level << pin
            self._update()

        self._wires[pin] = Line(f"{self.name}.in{pin}", changed)
        return self._wires[pin]

    def on_reset(self) -> None:
        """The levels that are outside stay as they are; changes by the reset are no edges."""
        self.inputs = sum(line.level << pin for pin, line in self._wires.items())
        self._seen = self.inputs
        self._update()

    def on_restore(self) -> None:
        """The inputs are those that were saved; whoever drives them is restored as well."""
        self._seen = self.inputs
        self._update()

    @property
    def levels(self) -> int:
        """All pins."""
        return self._pins()

    def _pins(self) -> int:
        return self.output & self.GPIODIR | self.inputs & ~self.GPIODIR

    @GPIODIR.after_write
    @GPIOIS.after_write
    @GPIOIBE.after_write
    @GPIOIEV.after_write
    @GPIOIE.after_write
    def _update(self) -> None:
        now = self.inputs
        changed = (now ^ self._seen) & ~self.GPIODIR & ~self.GPIOIS
        self._seen = now
        self.edges |= changed & (self.GPIOIBE | ~(now ^ self.GPIOIEV))
        for pin, line in enumerate(self.pins):
            line.set(bool(self.output & self.GPIODIR & 1 << pin))
        self.irq.set(bool(self._raw() & self.GPIOIE))

    @GPIODATA.on_read
    def _read(self, index: int) -> int:
        return self._pins() & index

    @GPIODATA.on_write
    def _write(self, index: int, value: int) -> None:
        mask = index & self.GPIODIR
        self.output = self.output & ~mask | value & mask
        self._update()

    @GPIORIS.on_read
    def _raw(self) -> int:
        return self.edges & ~self.GPIOIS & 0xFF | ~(self._pins() ^ self.GPIOIEV) & self.GPIOIS

    @GPIOMIS.on_read
    def _masked(self) -> int:
        return self._raw() & self.GPIOIE

    @GPIOIC.on_write
    def _clear(self, value: int) -> None:
        self.edges &= ~value
        self._update()

    @GPIOPeriphID.on_read
    def _identity(self, index: int) -> int:
        return IDENTITY[index]
