"""Local APIC timer: one-shot, periodic, TSC-deadline (Intel SDM volume 3, 11.5.4).

Counts are computed from the time. A period that nobody can see (masked, or its vector is requested already) sets no
timer, so a guest cannot make the host work by a short period alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.clock import SECOND
from dbt.machine.devices.apic_core import MASKED, RECEIVE_ILLEGAL, ApicCore
from dbt.machine.devices.apic_native import WATCHED
from dbt.machine.devices.apic_vectors import has
from dbt.machine.registers import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.devices.apic_bus import ApicBus, Processor
    from dbt.machine.lines import Line
    from dbt.machine.machine import Machine

ONE_SHOT, PERIODIC, DEADLINE = range(3)


class ApicTimer(ApicCore):
    """The timer's part. `frequency` is that of its input before the divider."""

    count = State(bits=32)  # what it was...
    counted = State(bits=64)  # ...at this time
    deadline = State(bits=64)  # IA32_TSC_DEADLINE
    tsc_offset = State(bits=64)  # what the CPU adds to its time stamp counter

    def __init__(
        self, name: str, machine: Machine, *, number: int, bus: ApicBus, processor: Processor | None = None,
        intr: Line | None = None, acknowledge_pic: Callable[[], int] | None = None,
        frequency: int = SECOND, tsc_frequency: int = SECOND,
    ) -> None:  # fmt: skip
        super().__init__(
            name, machine, number=number, bus=bus, processor=processor, intr=intr, acknowledge_pic=acknowledge_pic
        )
        self.frequency, self.tsc_frequency = frequency, tsc_frequency
        self.timer = self.clock.timer(self._expired)

    def tsc(self) -> int:
        """The CPU's time stamp counter."""
        return self.clock.now * self.tsc_frequency // SECOND + self.tsc_offset & (1 << 64) - 1

    def _mode(self) -> int:
        return self.LVT_TIMER >> 17 & 3

    def _divisor(self) -> int:
        code = self.TIMER_DIVIDE & 3 | self.TIMER_DIVIDE >> 1 & 4
        return 1 if code == 7 else 2 << code

    def _gone(self) -> int:
        """Counts since `counted`."""
        return (self.clock.now - self.counted) * self.frequency // (SECOND * self._divisor())

    @ApicCore.TIMER_CURRENT.on_read
    def current(self) -> int:
        """The count."""
        if not self.count:
            return 0
        gone = self._gone()
        if gone < self.count:
            return self.count - gone
        period = self.TIMER_INITIAL
        return period - (gone - self.count) % period if self._mode() == PERIODIC and period else 0

    def arm(self) -> None:
        """Wait for the next expiry that changes something."""
        if self.shared:
            self.shared.words[WATCHED] = self.LVT_TIMER & 0xFF
        when = self._next()
        if when is None:
            self.timer.cancel()
        else:
            self.timer.at(when)

    def _next(self) -> int | None:
        entry, vector = self.LVT_TIMER, self.LVT_TIMER & 0xFF
        if self._mode() == DEADLINE:
            if not self.deadline:
                return None
            return self.clock.now + -(-max(self.deadline - self.tsc(), 0) * SECOND // self.tsc_frequency)
        seen = self.errors & RECEIVE_ILLEGAL if vector < 16 else has(self.requested, vector)
        if not self.count or entry & MASKED or seen or not self.software_enabled:
            return None
        gone, expiry = self._gone(), self.count
        if gone >= expiry:
            period = self.TIMER_INITIAL
            if self._mode() != PERIODIC or not period:
                return None
            expiry += ((gone - expiry) // period + 1) * period
        return self.counted + -(-expiry * SECOND * self._divisor() // self.frequency)

    def _expired(self) -> None:
        if self._mode() == DEADLINE:
            self.deadline = 0
        self.local(self.LVT_TIMER & ~0x700)
        self.arm()

    def taken(self, vector: int) -> None:
        """The timer's vector may be requested again."""
        if vector == self.LVT_TIMER & 0xFF:
            self.arm()

    @ApicCore.TIMER_INITIAL.after_write
    def _start(self) -> None:
        if self._mode() == DEADLINE:
            self.TIMER_INITIAL = 0  # ignored in this mode
            return
        self.count, self.counted = self.TIMER_INITIAL, self.clock.now
        self.arm()

    @ApicCore.TIMER_DIVIDE.on_write
    def _divide(self, value: int) -> None:
        self.count, self.counted = self.current(), self.clock.now
        self.TIMER_DIVIDE = value & 0xB
        self.arm()

    @ApicCore.LVT_TIMER.on_write
    def _set_entry(self, value: int) -> None:
        value = value & 0x700FF | (0 if self.software_enabled else MASKED)
        if value >> 17 & 3 == 3:
            self.guest_error("the timer has no mode 3")
            value &= ~(3 << 17)
        was = self._mode()
        if value >> 17 & 3 != was:
            self.count, self.counted = self.current(), self.clock.now
            if DEADLINE in {value >> 17 & 3, was}:
                self.count = self.deadline = 0
        self.LVT_TIMER = value
        self.arm()

    def read_deadline(self) -> int:
        """IA32_TSC_DEADLINE: 0 once it has come."""
        return self.deadline

    def write_deadline(self, value: int) -> None:
        """Arm it; other modes ignore this."""
        if self._mode() == DEADLINE:
            self.deadline = value
            if value and value <= self.tsc():
                self._expired()
            else:
                self.arm()
