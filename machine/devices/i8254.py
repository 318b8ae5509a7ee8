"""Intel 8254 interval timer (231164) as a PC has it: three counters at 1.193182 MHz, and port 0x61.

Counts are computed from the time, not counted; a count takes effect when it is written completely. Counter 0 drives an
interrupt line, counter 2 has its gate and its output in port B.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.clock import SECOND
from dbt.machine.device import Device
from dbt.machine.lines import Line
from dbt.machine.memory import AccessSizes
from dbt.machine.registers import RW, WO, Register, States, View, Window

if TYPE_CHECKING:
    from dbt.machine.machine import Machine

FREQUENCY = 1_193_182
BYTE = AccessSizes((1, 1), (1, 1))
LOW, HIGH, BOTH = 1, 2, 3
REFRESH = 15_085  # nanoseconds between two toggles of port B's refresh bit


def ticks(nanoseconds: int) -> int:
    """Clocks in a time."""
    return nanoseconds * FREQUENCY // SECOND


def when(clocks: int) -> int:
    """The least time in which that many clocks are."""
    return -(-clocks * SECOND // FREQUENCY)


class I8254(Device):
    """Intel 8254 programmable interval timer (231164), with the PC's port B."""

    WINDOW = Window(4, BYTE)
    PORTB = Window(1, BYTE)
    COUNTER = View(0, RW, "count, by bytes as the control word chose", count=3, size=1)
    CONTROL = View(
        3, WO, "control word", size=1, fields={"BCD": 0, "MODE": (3, 1), "RW": (5, 4), "SC": (7, 6)}
    )  # fmt: skip
    PORT_B = Register(
        0, RW, "gate and output of counter 2", size=1, mask=0x0F, window=PORTB, unimplemented=0x0C,
        fields={"GATE2": 0, "SPEAKER": 1, "REFRESH": 4, "OUT2": 5},
    )  # fmt: skip

    mode = States(3, bits=3)
    access = States(3, bits=2, reset=BOTH)
    bcd = States(3, bits=1)
    initial = States(3, bits=16)  # as written: 0 is the largest
    loaded = States(3, bits=1)  # whether there is a count since the control word
    started = States(3, bits=64)  # when counting began
    running = States(3, bits=1)
    held = States(3, bits=32)  # clocks done, while not running
    half = States(3, bits=9, reset=256)  # the low byte that waits for the high one; 256: none
    second = States(3, bits=1)  # the high byte is read next
    latched = States(3, bits=17)  # a count that was latched, + 0x10000
    status = States(3, bits=9)  # a status that was latched, + 0x100

    def __init__(self, name: str, machine: Machine, irq: Line | None = None) -> None:
        super().__init__(name, machine)
        self.irq = irq or Line(f"{name}.out0")
        self.edge = self.clock.timer(self._edge)

    def on_reset(self) -> None:
        """No counts; the output of mode 0 is low."""
        self._follow()

    def on_restore(self) -> None:
        """Set the timer."""
        now = self.clock.now
        self.started = [min(started, now) for started in self.started]
        self.held = [min(held, ticks(now)) for held in self.held]
        self._follow()

    # Counting

    def _mode(self, n: int) -> int:
        return self.mode[n] & 3 if self.mode[n] & 2 else self.mode[n]

    def _gate(self, n: int) -> bool:
        return n != 2 or bool(self.PORT_B & 1)

    def _period(self, n: int) -> int:
        """Clocks from the initial count to zero."""
        raw = self.initial[n]
        if self.bcd[n]:
            digits = [raw >> 12, raw >> 8 & 15, raw >> 4 & 15, raw & 15]
            return digits[0] * 1000 + digits[1] * 100 + digits[2] * 10 + digits[3] or 10_000
        return raw or 0x10000

    def _done(self, n: int) -> int:
        return ticks(self.clock.now - self.started[n]) if self.running[n] else self.held[n]

    def count(self, n: int) -> int:
        """What the counter shows."""
        period, done, mode = self._period(n), self._done(n), self._mode(n)
        if not done:  # a count is loaded by the first clock
            left = period
        elif mode == 3:
            even = max(period & ~1, 2)
            left = even - 2 * done % even
        elif mode == 2:
            left = period - done % period
        else:
            left = period - done
        if not self.bcd[n]:
            return left & 0xFFFF
        left %= 10_000
        return left // 1000 << 12 | left // 100 % 10 << 8 | left // 10 % 10 << 4 | left % 10

    def out(self, n: int) -> bool:
        """The output."""
        mode, done, period = self._mode(n), self._done(n), self._period(n)
        if not self.loaded[n]:
            return mode != 0
        if mode == 0:
            return done >= period
        if mode == 1:
            return not self.running[n] or done >= period
        if mode in {2, 3}:
            if not self.running[n]:
                return True
            return done % period != period - 1 if mode == 2 else done % period < (period + 1) // 2
        return done != period or not self.running[n]

    def _begin(self, n: int) -> None:
        """Count from the start; a counter that waits for its gate does not."""
        self.held[n] = 0
        waits = self._mode(n) in {1, 5} or not self._gate(n)
        self.running[n] = int(not waits)
        self.started[n] = self.clock.now
        if n == 0:
            self._follow()

    def _gate_changed(self, up: bool) -> None:
        n, mode = 2, self._mode(2)
        if not self.loaded[n]:
            return
        if mode in {0, 4}:  # stop and go on
            if up:
                self.started[n] = self.clock.now - when(self.held[n])
            else:
                self.held[n] = min(self._done(n), 0xFFFF_FFFF)
            self.running[n] = int(up)
        elif up:
            self.held[n] = 0
            self.started[n] = self.clock.now
            self.running[n] = 1
        elif mode in {2, 3}:
            self.held[n] = 0
            self.running[n] = 0

    # Counter 0's output as a line

    def _follow(self) -> None:
        """Show the output, and wait for its next change."""
        self.irq.set(self.out(0))
        mode, period, done = self._mode(0), self._period(0), self._done(0)
        if not self.running[0]:
            self.edge.cancel()
            return
        if mode in {0, 1, 4, 5}:
            edges = [edge for edge in (period, period + 1) if edge > done]
            ahead = edges[0] if edges else None
        else:
            start = done - done % period
            low = period - 1 if mode == 2 else (period + 1) // 2
            ahead = start + low if done % period < low else start + period
        if ahead is None:
            self.edge.cancel()
        else:
            self.edge.at(self.started[0] + when(ahead))

    def _edge(self) -> None:
        if self._mode(0) in {2, 3}:
            self.irq.set(False)  # also if a whole low phase was missed: interrupts come, fewer of them
        self._follow()

    # Registers

    @CONTROL.on_write
    def _control(self, value: int) -> None:
        selected, access = value >> 6, value >> 4 & 3
        if selected == 3:
            for n in range(3):
                if value >> n + 1 & 1:
                    if not value & 0x20:
                        self._latch(n)
                    if not value & 0x10 and not self.status[n]:
                        null = 0 if self.loaded[n] else 0x40
                        shown = self.out(n) << 7 | null | self.access[n] << 4 | self.mode[n] << 1 | self.bcd[n]
                        self.status[n] = 0x100 | shown
        elif access == 0:
            self._latch(selected)
        else:
            self.access[selected] = access
            self.mode[selected] = value >> 1 & 7
            self.bcd[selected] = value & 1
            self.loaded[selected] = self.running[selected] = self.held[selected] = 0
            self.half[selected] = 256
            self.second[selected] = self.latched[selected] = self.status[selected] = 0
            if selected == 0:
                self._follow()

    def _latch(self, n: int) -> None:
        if not self.latched[n]:
            self.latched[n] = 0x10000 | self.count(n)

    @COUNTER.on_write
    def _load(self, n: int, value: int) -> None:
        if self.access[n] == BOTH:
            if self.half[n] == 256:
                self.half[n] = value
                return
            value = self.half[n] | value << 8
            self.half[n] = 256
        elif self.access[n] == HIGH:
            value <<= 8
        self.initial[n] = value
        self.loaded[n] = 1
        if self._period(n) == 1 and self._mode(n) in {2, 3}:
            self.guest_error("a count of 1 is not allowed in modes 2 and 3")
            self.initial[n] = 2
        self._begin(n)

    @COUNTER.on_read
    def _read(self, n: int) -> int:
        if self.status[n]:
            value, self.status[n] = self.status[n] & 0xFF, 0
            return value
        value = self.latched[n] & 0xFFFF if self.latched[n] else self.count(n)
        high = self.access[n] == HIGH or bool(self.access[n] == BOTH and self.second[n])
        if self.access[n] == BOTH:
            self.second[n] ^= 1
        if self.access[n] != BOTH or high:
            self.latched[n] = 0
        return value >> 8 if high else value & 0xFF

    @PORT_B.on_read
    def _port_b(self) -> int:
        return self.PORT_B & 0x0F | (self.clock.now // REFRESH & 1) << 4 | self.out(2) << 5

    @PORT_B.on_write
    def _set_port_b(self, value: int) -> None:
        changed = (value ^ self.PORT_B) & 1
        self.PORT_B = value & 0x0F
        if changed:
            self._gate_changed(bool(value & 1))
