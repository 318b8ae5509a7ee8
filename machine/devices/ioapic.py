"""Intel I/O APIC (82093AA, order number 290566), with the EOI register of version 0x20.

Registers are reached through IOREGSEL and IOWIN. An input is asserted by what its wire has and its entry's polarity
says; edges on masked inputs are lost (section 3.2.4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.device import Device
from dbt.machine.devices.apic_bus import LOWEST, ApicBus, Message
from dbt.machine.lines import Line
from dbt.machine.memory import AccessSizes
from dbt.machine.registers import RO, RW, WO, Fields, Register, Registers, State, View, Window

if TYPE_CHECKING:
    from dbt.machine.machine import Machine

PINS = 24
VERSION = 0x20 | PINS - 1 << 16
MASKED, LEVEL, REMOTE_IRR, LOW_ACTIVE, LOGICAL = 1 << 16, 1 << 15, 1 << 14, 1 << 13, 1 << 11
WRITABLE = 0xFF << 56 | MASKED | LEVEL | LOW_ACTIVE | LOGICAL | 0x7FF
ENTRY: Fields = {"VECTOR": (7, 0), "MODE": (10, 8), "LOGICAL": 11, "POLARITY": 13, "RIRR": 14, "LEVEL": 15, "MASK": 16,
         "DESTINATION": (63, 56)}  # fmt: skip


class IoApic(Device):
    """Intel 82093AA I/O APIC with 24 inputs; version 0x20 has an EOI register."""

    KEPT = frozenset({"wires"})  # what others drive
    WINDOW = Window(0x1000, AccessSizes((1, 4), (4, 4)))
    INDIRECT = Window(0x400, AccessSizes((4, 4), (4, 4)), partial=True, placed=False)  # a register at 4 * its index
    IOREGSEL = Register(0x00, RW, "which register IOWIN is", mask=0xFF)
    IOWIN = View(0x10, RW, "that register")
    EOI = View(0x40, WO, "end of interrupt, by vector", mask=0xFF)
    ID = Register(0x00, RW, "identification", mask=0xF << 24, window=INDIRECT)
    VER = Register(0x04, RO, "version", reset=VERSION, window=INDIRECT, fields={"VERSION": (7, 0), "MAXIRE": (23, 16)})
    ARB = View(0x08, RO, "arbitration identification", window=INDIRECT)
    REDIRECTION = Registers(0x40, RW, "redirection", count=PINS, size=8, reset=MASKED, mask=WRITABLE, window=INDIRECT,
                            fields=ENTRY)  # fmt: skip

    wires = State(bits=PINS)

    def __init__(self, name: str, machine: Machine, *, bus: ApicBus) -> None:
        super().__init__(name, machine)
        self.bus = bus
        bus.on_end(self.end)

    def input(self, number: int, *, low: bool = False) -> Line:
        """The wire of an input; `low`: it is pulled to ground when the line is set, as PCI's are."""
        if low:
            self.wires |= 1 << number
        return Line(f"{self.name}.intin{number}", lambda level: self._wire(number, level != low))

    def _asserted(self, number: int) -> bool:
        return bool(self.wires >> number & 1) != bool(self.REDIRECTION[number] & LOW_ACTIVE)

    def _wire(self, number: int, up: bool) -> None:
        if bool(self.wires >> number & 1) == up:
            return
        self.wires ^= 1 << number
        entry = self.REDIRECTION[number]
        if entry & MASKED or not self._asserted(number):
            return
        if entry & LEVEL:
            self._look(number)
        else:
            self._send(entry)

    def _look(self, number: int) -> None:
        """Send for a level that is there, if nobody serves it."""
        entry = self.REDIRECTION[number]
        if entry & LEVEL and not entry & (MASKED | REMOTE_IRR) and self._asserted(number):
            if entry >> 8 & 7 <= LOWEST:
                self.REDIRECTION[number] |= REMOTE_IRR
            self._send(entry)

    def _send(self, entry: int) -> None:
        mode, vector = entry >> 8 & 7, entry & 0xFF
        logical, level = bool(entry & LOGICAL), bool(entry & LEVEL) and mode <= LOWEST
        self.bus.send(Message.of_byte(entry >> 56, mode, vector, logical=logical, level=level))

    def end(self, vector: int) -> None:
        """An EOI: levels of that vector may ask again."""
        ended = []
        for number, entry in enumerate(self.REDIRECTION):
            if entry & 0xFF == vector and entry & REMOTE_IRR:
                self.REDIRECTION[number] &= ~REMOTE_IRR
                ended.append(number)
        for number in ended:
            self._look(number)

    # Registers

    @IOWIN.on_read
    def _read(self) -> int:
        return self.banks["INDIRECT"].read(4 * self.IOREGSEL, 4, self.attributes)

    @IOWIN.on_write
    def _write(self, value: int) -> None:
        self.banks["INDIRECT"].write(4 * self.IOREGSEL, 4, value, self.attributes)

    @EOI.on_write
    def _eoi(self, value: int) -> None:
        self.end(value & 0xFF)

    @ARB.on_read
    def _arbitration(self) -> int:
        return self.ID

    @REDIRECTION.on_write
    def _redirect(self, number: int, value: int) -> None:
        kept = self.REDIRECTION[number] & REMOTE_IRR if value & LEVEL else 0
        self.REDIRECTION[number] = value & WRITABLE | kept
        self._look(number)
