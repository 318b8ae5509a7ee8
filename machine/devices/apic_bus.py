"""What local APICs, I/O APICs and MSIs say to each other (Intel SDM volume 3, chapter 11: 11.6 and 11.11).

A message names CPUs by physical or logical destination; those that take it are found here. Lowest priority goes to the
CPU of the lowest processor priority, among equal ones to that of the lowest APIC ID.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.devices.apic_core import ApicCore

FIXED, LOWEST, SMI, RESERVED, NMI, INIT, STARTUP, EXTINT = range(8)
BROADCAST = 0xFFFF_FFFF
EVERYBODY = 0xFF  # the same where a destination has 8 bits
MSI_BASE, MSI_SIZE = 0xFEE0_0000, 0x10_0000


class Processor:
    """A CPU as its local APIC sees it, besides the line `intr`; the base is one that does nothing."""

    def nmi(self) -> None:
        """A non-maskable interrupt."""

    def smi(self) -> None:
        """A system management interrupt."""

    def init(self) -> None:
        """Be as after INIT: the boot processor starts at the reset vector, others wait for `start`."""

    def start(self, page: int) -> None:
        """Start in real mode at `page` << 12."""


@dataclass(frozen=True, slots=True)
class Message:
    """`destination` has 32 bits, as x2APIC has it; see `of_byte` for the others."""

    destination: int
    mode: int
    vector: int = 0
    logical: bool = False
    level: bool = False  # triggered by a level: its end is told to the I/O APICs

    @classmethod
    def of_byte(cls, destination: int, mode: int, vector: int, *, logical: bool, level: bool = False) -> Message:
        """A message of somebody whose destinations have 8 bits."""
        wide = BROADCAST if destination == EVERYBODY and not logical else destination
        return cls(wide, mode, vector, logical, level)


class ApicBus:
    """All local APICs of a machine, and who wants to know of ends of level-triggered interrupts."""

    def __init__(self) -> None:
        self.apics: list[ApicCore] = []
        self._ends: list[Callable[[int], None]] = []

    def on_end(self, listener: Callable[[int], None]) -> None:
        """Call `listener(vector)` at each EOI that is broadcast."""
        self._ends.append(listener)

    def end(self, vector: int) -> None:
        """Broadcast an EOI."""
        for listener in self._ends:
            listener(vector)

    def send(self, message: Message, among: list[ApicCore] | None = None) -> bool:
        """Deliver to whom the message names, or to `among`. Whether anybody took it."""
        if among is None:
            among = [apic for apic in self.apics if apic.addressed(message.destination, logical=message.logical)]
        if message.mode == LOWEST:
            able = [apic for apic in among if apic.software_enabled]
            among = [min(able, key=lambda apic: (apic.priority() >> 4, apic.identity))] if able else []
        taken = False
        for apic in among:
            taken |= apic.deliver(message)
        return taken

    def msi(self, offset: int, data: int, requester: int) -> bool:
        """A write to the MSI range (11.11): the address has the destination, `data` the rest."""
        del requester
        mode = data >> 8 & 7
        destination, redirect, logical = offset >> 12 & 0xFF, offset >> 3 & 1, offset >> 2 & 1
        if redirect and mode == FIXED:  # the hint: one of those that are named
            mode = LOWEST
        level = bool(data & 0x8000)
        if level and not data & 0x4000:
            return False  # the level went away: nothing to deliver
        return self.send(
            Message.of_byte(destination, mode, data & 0xFF, logical=bool(logical), level=level and mode <= LOWEST)
        )
