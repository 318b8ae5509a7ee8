"""PS/2 mouse (IBM PS/2 technical reference), with the wheel and five buttons of Microsoft's IntelliMouse.

Movement that does not fit into one packet goes on in the next. The resolution is told, and does not scale: what the
host reports are counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.clock import SECOND
from dbt.machine.devices.ps2 import ACK, PASSED, RESEND, Ps2Device
from dbt.machine.registers import Fifo, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.input import Input
    from dbt.machine.machine import Machine

(SCALE_1, SCALE_2, RESOLUTION, STATUS, STREAM, READ, UNWRAP, WRAP, REMOTE, IDENTIFY, RATE, ENABLE, DISABLE, DEFAULT,
 AGAIN, RESET) = (
    0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xEB, 0xEC, 0xEE, 0xF0, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xFE, 0xFF,
)  # fmt: skip
RATES = (10, 20, 40, 60, 80, 100, 200)
WHEEL, FIVE = 3, 4  # what the mouse is after the rates that ask for it
KNOCKS = {bytes((200, 100, 80)): WHEEL, bytes((200, 200, 80)): FIVE}
MOST, BIAS = 4095, 4096  # of movement that waits
DOUBLED = (0, 1, 1, 3, 6, 9)  # scaling 2:1 (and twice from there on)


class Ps2Mouse(Ps2Device):
    """A mouse; `move` takes counts to the right and down, wheel away from the user, and all buttons."""

    kind = State(bits=3)  # what it identifies as: 0, 3, 4
    enabled = State(bits=1)
    remote = State(bits=1)
    wraps = State(bits=1)
    doubles = State(bits=1)
    resolution = State(2, bits=2)
    rate = State(100, bits=8)
    knocks = Fifo(3)
    x = State(BIAS, bits=14)  # movement that was not sent yet, + BIAS; y is up, z to the user
    y = State(BIAS, bits=14)
    z = State(BIAS, bits=14)
    buttons = State(bits=5)
    told = State(bits=5)  # buttons as the last packet had them
    next_at = State(bits=64)  # when the next packet may come; 0: now

    def __init__(self, name: str, machine: Machine, ready: Callable[[], None], user: Input | None = None) -> None:
        super().__init__(name, machine, ready)
        self.timer = self.clock.timer(self._sample)
        if user is not None:
            user.pointer = self

    def on_reset(self) -> None:
        """As after power-on."""
        self.timer.cancel()

    def on_restore(self) -> None:
        """Go on sampling."""
        self.rate = self.rate or 100
        if self.next_at:
            self.timer.at(self.next_at)
        else:
            self.timer.cancel()

    def move(self, dx: int, dy: int, dz: int, buttons: int) -> None:
        """The user moves it; the sample rate says when that is sent."""
        for name, delta in (("x", dx), ("y", -dy), ("z", -dz)):
            self.__dict__[name] = min(max(self.__dict__[name] + delta, BIAS - MOST), BIAS + MOST)
        self.buttons = buttons & 0x1F
        if not self.next_at:
            self._sample()

    def _news(self) -> bool:
        wheel = self.z != BIAS if self.kind else False
        shown = 0x1F if self.kind == FIVE else 0x07
        return self.x != BIAS or self.y != BIAS or wheel or bool((self.buttons ^ self.told) & shown)

    def _sample(self) -> None:
        """Send a packet if there is something to say, and look again after the time of a sample."""
        self.next_at = 0
        self.timer.cancel()
        if not self.enabled or self.remote or self.wraps or not self._news():
            return
        if self.room(4 if self.kind else 3):
            self.queue(self._packet(doubles=bool(self.doubles)))
        self.next_at = self.clock.now + SECOND // self.rate
        self.timer.at(self.next_at)

    def _take(self, name: str, least: int, most: int) -> int:
        value: int = min(max(self.__dict__[name] - BIAS, least), most)
        self.__dict__[name] -= value
        return value

    def _packet(self, *, doubles: bool) -> bytes:
        x, y = self._take("x", -256, 255), self._take("y", -256, 255)
        if doubles:
            x, y = (
                min(max((DOUBLED[abs(n)] if abs(n) < 6 else 2 * abs(n)) * (1 if n > 0 else -1), -256), 255)
                for n in (x, y)
            )
        self.told = self.buttons
        packet = [0x08 | self.buttons & 7 | (x < 0) << 4 | (y < 0) << 5, x & 0xFF, y & 0xFF]
        if self.kind == WHEEL:
            packet.append(self._take("z", -128, 127) & 0xFF)
        elif self.kind == FIVE:
            packet.append(self._take("z", -8, 7) & 0x0F | (self.buttons & 0x18) << 1)
        else:
            self.z = BIAS
        return bytes(packet)

    # Commands

    def _defaults(self) -> None:
        self.buffer.clear()
        self.enabled = self.remote = self.wraps = self.doubles = 0
        self.resolution, self.rate = 2, 100
        self._forget()

    def _forget(self) -> None:
        """The counters start at zero."""
        self.x = self.y = self.z = BIAS

    def write(self, value: int) -> None:
        """A command, or what one waits for."""
        command, self.command = self.command, 0
        if self.wraps and value not in {UNWRAP, RESET}:
            self.reply(value)
        elif command == RATE:
            self._set_rate(value)
        elif command == RESOLUTION:
            self.resolution = value & 3
            self.reply(ACK)
        else:
            self._begin(value)

    def _set_rate(self, value: int) -> None:
        if value not in RATES:
            self.guest_error(f"the mouse has no sample rate {value}")
        self.rate = value or 100
        self.knocks[:] = (self.knocks + bytes([value]))[-3:]
        self.kind = KNOCKS.get(bytes(self.knocks), self.kind)
        self.reply(ACK)

    def _begin(self, value: int) -> None:
        replies = [ACK]
        if value in {SCALE_1, SCALE_2}:
            self.doubles = int(value == SCALE_2)
        elif value in {RATE, RESOLUTION}:
            self.command = value
        elif value == STATUS:
            mode = self.remote << 6 | self.enabled << 5 | self.doubles << 4
            left, right, middle = self.buttons & 1, self.buttons >> 1 & 1, self.buttons >> 2 & 1
            replies += [mode | left << 2 | middle << 1 | right, self.resolution, self.rate]
        elif value == READ:
            replies += self._packet(doubles=False)
        elif value == IDENTIFY:
            replies.append(self.kind)
        elif value in {WRAP, UNWRAP}:
            self.wraps = int(value == WRAP)
            self.buffer.clear()
        elif value in {REMOTE, STREAM}:
            self.remote = int(value == REMOTE)
            self._forget()
            self.buffer.clear()
        elif value in {ENABLE, DISABLE}:
            self.enabled = int(value == ENABLE)
            self._forget()
        elif value == DEFAULT:
            self._defaults()
        elif value == RESET:
            self._defaults()
            self.kind = 0
            self.knocks.clear()
            replies += [PASSED, 0]
        elif value == AGAIN:
            replies = [self.last]
        else:
            self.guest_error(f"the mouse has no command {value:#x}")
            replies = [RESEND]
        self.reply(*replies)
