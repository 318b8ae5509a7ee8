"""A PCI card with three kinds of BAR, a ROM and both kinds of messages, and a driver of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.memory import AccessSizes
from dbt.machine.pci import ROM, Bar, Identity, PciBus, PciFunction
from dbt.machine.registers import RW, Register, Registers, Window

from tests.machine.pci import ECAM, Config, Function, machine
from tests.machine.qtest import Ours

if TYPE_CHECKING:
    from dbt.machine.log import Log
    from dbt.machine.machine import Machine


class Card(PciFunction):
    """Three kinds of BAR, a ROM, both kinds of messages."""

    PCI = Identity(vendor=0x1AF4, device=0x4242, class_code=0xFF0001, revision=7, pin=1)
    REGS = Window(0x1800)
    PORTS = Window(0x20, AccessSizes((1, 4), (1, 4)))
    WIDE = Window(0x4000)
    FLASH = Window(0x1000)
    BARS = (
        Bar(0, "REGS"), Bar(1, "PORTS", io=True), Bar(2, "WIDE", bits=64, prefetchable=True), Bar(ROM, "FLASH"),
    )  # fmt: skip
    CTRL = Register(0, RW, "interrupt pin", mask=1)
    SCRATCH = Register(4, RW, "anything")
    PORT = Register(0, RW, "anything", window=PORTS)
    CELL = Registers(0, RW, "anything", count=4, window=WIDE)

    def __init__(self, name: str, machine: Machine, *, bus: PciBus, slot: int, function: int = 0) -> None:
        super().__init__(name, machine, bus=bus, slot=slot, function=function)
        self.add_msi(8, masking=True)
        self.add_msix(5, bar=4)
        self.add_capability(0x09, bytes((6, 1, 2, 3)), bytes((0, 0xF0)))

    @CTRL.after_write
    def _ctrl(self) -> None:
        self.intx.set(bool(self.CTRL))

    def on_restore(self) -> None:
        """The pin is what the register says."""
        self._ctrl()

    def on_reset(self) -> None:
        """The pin is down."""
        self._ctrl()


def build(slot: int = 3, log: Log | None = None) -> tuple[Machine, Card, Function]:
    made, bus = machine(log=log)
    card = Card("card", made, bus=bus, slot=slot)
    made.reset()
    return made, card, Config(Ours(made), ECAM).function(0x1AF4, 0x4242)
