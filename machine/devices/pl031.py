"""Arm PrimeCell real-time clock, PL031 r1p3 (DDI 0224): seconds, and an interrupt when they match.

The counter is the machine's wall clock plus an offset, so nothing ticks; a timer is set for the match.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.clock import SECOND
from dbt.machine.device import Device
from dbt.machine.lines import Line
from dbt.machine.registers import RO, RW, WO, Register, State, View, Window

if TYPE_CHECKING:
    from dbt.machine.machine import Machine

ALL = 0xFFFF_FFFF
IDENTITY = (0x31, 0x10, 0x14, 0x00, 0x0D, 0xF0, 0x05, 0xB1)


class PL031(Device):
    """Arm PrimeCell real-time clock, PL031 r1p3 (DDI 0224)."""

    WINDOW = Window(0x1000)
    RTCDR = View(0x000, RO, "seconds")
    RTCMR = Register(0x004, RW, "match")
    RTCLR = Register(0x008, RW, "load: sets the seconds")
    RTCCR = Register(0x00C, RW, "control: always on", mask=1, reset=1, fields={"START": 0})
    RTCIMSC = Register(0x010, RW, "interrupt mask", mask=1, fields={"RTC": 0})
    RTCRIS = Register(0x014, RO, "raw interrupt", fields={"RTC": 0})
    RTCMIS = View(0x018, RO, "masked interrupt", fields={"RTC": 0})
    RTCICR = View(0x01C, WO, "clear interrupt", mask=1, fields={"RTC": 0})
    RTCPeriphID = View(0xFE0, RO, "identity", count=8)

    offset = State()  # seconds, what the guest has set against the machine's clock, modulo 2**32

    def __init__(self, name: str, machine: Machine, irq: Line | None = None) -> None:
        super().__init__(name, machine)
        self.irq = irq or Line(f"{name}.irq")
        self.match = self.clock.timer(self._matched)

    def on_reset(self) -> None:
        """The time goes on; wait for the match."""
        self._wait()
        self._update()

    @RTCDR.on_read
    def _seconds(self) -> int:
        return (self.machine.wall // SECOND + self.offset) & ALL

    @RTCLR.on_write
    def _load(self, value: int) -> None:
        self.RTCLR = value
        self.offset = (value - self.machine.wall // SECOND) & ALL
        self._set_match()

    @RTCMR.after_write
    def _set_match(self) -> None:
        self._wait()
        if self._seconds() == self.RTCMR:
            self._matched()

    def _wait(self) -> None:
        """Set the timer for the next match, at most 2**32 seconds away."""
        wait = (self.RTCMR - self._seconds()) & ALL or 1 << 32
        self.match.at((self.machine.wall // SECOND + wait - self.machine.epoch) * SECOND)

    def _matched(self) -> None:
        self.RTCRIS = 1
        self._wait()
        self._update()

    @RTCCR.on_write
    def _control(self, value: int) -> None:
        if not value & 1:
            self.guest_error("RTCCR: the clock cannot be switched off")

    @RTCIMSC.after_write
    def _update(self) -> None:
        self.irq.set(bool(self.RTCRIS & self.RTCIMSC))

    @RTCMIS.on_read
    def _masked(self) -> int:
        return self.RTCRIS & self.RTCIMSC

    @RTCICR.on_write
    def _clear(self, value: int) -> None:
        self.RTCRIS &= ~value
        self._update()

    @RTCPeriphID.on_read
    def _identity(self, index: int) -> int:
        return IDENTITY[index]
