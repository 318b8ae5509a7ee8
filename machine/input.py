"""What somebody at a machine does: keys and movements, for keyboards and pointing devices.

Keys have Linux's codes (input-event-codes.h): KEY_A is 30. Movements are to the right, down, and of the wheel away from
the user; `buttons` are all that are down: left, right, middle, side, extra from bit 0 on. All under the machine's lock.
"""

from __future__ import annotations

from typing import Protocol

LEFT, RIGHT, MIDDLE, SIDE, EXTRA = 1, 2, 4, 8, 16


class Keyboard(Protocol):
    """A device that takes keys."""

    def key(self, code: int, down: bool) -> None: ...


class Pointer(Protocol):
    """A device that takes movements."""

    def move(self, dx: int, dy: int, dz: int, buttons: int) -> None: ...


class Input:
    """Gives keys and movements to the devices that were attached last; shows LEDs."""

    def __init__(self) -> None:
        self.keyboard: Keyboard | None = None
        self.pointer: Pointer | None = None
        self.leds = 0  # scroll, number, capital locks from bit 0 on

    def key(self, code: int, down: bool) -> None:
        """A key goes down or up; down again without up is a repetition of the host's, which devices do themselves."""
        if self.keyboard is not None:
            self.keyboard.key(code, down)

    def move(self, dx: int, dy: int, dz: int = 0, buttons: int = 0) -> None:
        """The mouse moves, or its buttons do."""
        if self.pointer is not None:
            self.pointer.move(dx, dy, dz, buttons)
