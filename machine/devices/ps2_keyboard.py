"""PS/2 keyboard (IBM PS/2 technical reference, "101- and 102-key keyboards"): sets 1 to 3, LEDs, repetition.

The keyboard repeats by itself what is held down, with the delay and rate that its driver chose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.clock import SECOND
from dbt.machine.devices.ps2 import ACK, PASSED, RESEND, Ps2Device
from dbt.machine.devices.ps2_codes import BREAK, DEFAULT3, KEYS, REPEAT, SET3, sequence
from dbt.machine.registers import State, States

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.input import Input
    from dbt.machine.machine import Machine

(LEDS, ECHO, SCAN_SET, IDENTIFY, RATE, ENABLE, DISABLE, DEFAULT, ALL_REPEAT, ALL_BREAK, ALL_MAKE, ALL_BOTH, KEY_REPEAT,
 KEY_BREAK, KEY_MAKE, AGAIN, RESET) = (
    0xED, 0xEE, 0xF0, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF,
)  # fmt: skip
KINDS = {0: REPEAT, 1: BREAK, 2: 0, 3: REPEAT | BREAK}  # of keys, by command from ALL_REPEAT or KEY_REPEAT on
DEFAULT_RATE = 0x2B  # 500 ms, 10.9 a second
IDENTITY = (0xAB, 0x83)


class Ps2Keyboard(Ps2Device):
    """A keyboard of 102 keys and some more; `key` takes Linux's codes."""

    scan_set = State(2, bits=2)
    scanning = State(1, bits=1)
    leds = State(bits=3)
    rate = State(DEFAULT_RATE, bits=7)
    held = State(bits=8)  # the key that repeats
    repeats_at = State(bits=64)  # 0: nothing does
    down = State(bits=KEYS)
    kinds = States(KEYS, bits=2)  # what keys do in set 3, by their codes there

    def __init__(
        self, name: str, machine: Machine, ready: Callable[[], None], user: Input | None = None
    ) -> None:  # fmt: skip
        super().__init__(name, machine, ready)
        self.user = user
        self.timer = self.clock.timer(self._repeat)
        if user is not None:
            user.keyboard = self

    def _initial(self) -> None:
        super()._initial()
        self._default_kinds()

    def _default_kinds(self) -> None:
        self.kinds = [DEFAULT3.get(code, 0) for code in range(KEYS)]

    def on_reset(self) -> None:
        """As after power-on; the self test passes at once."""
        self.timer.cancel()
        self._show()

    def on_restore(self) -> None:
        """Go on repeating."""
        if self.repeats_at:
            self.timer.at(self.repeats_at)
        else:
            self.timer.cancel()
        self._show()

    def _show(self) -> None:
        if self.user is not None:
            self.user.leds = self.leds

    # Keys

    def key(self, code: int, down: bool) -> None:
        """A key goes down or up. What it does already is not news."""
        if not 0 < code < KEYS or bool(self.down >> code & 1) == down:
            return
        self.down ^= 1 << code
        if down:
            self._hold(code)
        elif code == self.held:
            self._hold(0)
        if self.scanning:
            self._send(code, down)

    def _hold(self, code: int) -> None:
        self.held = code
        self.repeats_at = 0
        self.timer.cancel()
        if code and self._repeats(code):
            self._repeat_in(((self.rate >> 5) + 1) * SECOND // 4)

    def _repeats(self, code: int) -> bool:
        if self.scan_set != 3:
            return bool(sequence(2, code, False))  # PAUSE does not
        return bool(self.kinds[SET3[code]] & REPEAT) if code in SET3 else False

    def _repeat_in(self, nanoseconds: int) -> None:
        self.repeats_at = self.clock.now + nanoseconds
        self.timer.at(self.repeats_at)

    def _repeat(self) -> None:
        if not self.held:
            return
        if self.scanning:
            self._send(self.held, True)
        self._repeat_in((8 + (self.rate & 7) << (self.rate >> 3 & 3)) * SECOND // 240)

    def _send(self, code: int, down: bool) -> None:
        if self.scan_set == 3:
            made = SET3.get(code)
            if made is None or not (down or self.kinds[made] & BREAK):
                return
            data = bytes([made]) if down else bytes([0xF0, made])
        else:
            data = sequence(self.scan_set, code, down)
        if not data:
            return
        overrun = b"\xff" if self.scan_set == 1 else b"\0"
        if self.room(len(data) + 1):
            self.queue(data)
        elif self.room(1):  # the last byte says that something is lost
            self.queue(overrun)

    # Commands

    def _defaults(self) -> None:
        self.buffer.clear()
        self.rate = DEFAULT_RATE
        self.scan_set = 2
        self.command = 0
        self._hold(0)
        self._default_kinds()

    def write(self, value: int) -> None:
        """A command, or what one waits for."""
        command, self.command = self.command, 0
        if command in {LEDS, RATE, SCAN_SET} and value < LEDS:
            self._argument(command, value)
        elif command in {KEY_REPEAT, KEY_BREAK, KEY_MAKE} and value < LEDS:
            self.kinds[value] = KINDS[command - KEY_REPEAT]
            self.command = command  # keys, until a command comes
            self.reply(ACK)
        else:
            self._begin(value)

    def _argument(self, command: int, value: int) -> None:
        if command == LEDS:
            self.leds = value & 7
            self._show()
        elif command == RATE:
            self.rate = value & 0x7F
        elif value == 0:
            self.reply(ACK, self.scan_set)
            return
        elif value <= 3:
            self.scan_set = value
            self.buffer.clear()
            self._hold(0)
        else:
            self.reply(RESEND)
            return
        self.reply(ACK)

    def _begin(self, value: int) -> None:
        if value == ECHO:
            self.reply(ECHO)
        elif value in {LEDS, RATE, SCAN_SET, KEY_REPEAT, KEY_BREAK, KEY_MAKE}:
            if value >= KEY_REPEAT:
                self.scanning = 0
                self.buffer.clear()
            self.command = value
            self.reply(ACK)
        elif value == IDENTIFY:
            self.reply(ACK, *IDENTITY)
        elif value == ENABLE:
            self.scanning = 1
            self.buffer.clear()
            self.reply(ACK)
        elif value in {DISABLE, DEFAULT}:
            self._defaults()
            self.scanning = int(value == DEFAULT)
            self.reply(ACK)
        elif ALL_REPEAT <= value <= ALL_BOTH:
            self.kinds = [KINDS[value - ALL_REPEAT]] * KEYS
            self.buffer.clear()
            self.reply(ACK)
        elif value == AGAIN:
            self.reply(self.last)
        elif value == RESET:
            self._defaults()
            self.scanning = 1
            self.leds = 0
            self._show()
            self.reply(ACK, PASSED)
        else:
            self.guest_error(f"the keyboard has no command {value:#x}")
            self.reply(RESEND)
