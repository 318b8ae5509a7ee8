"""Characters: what is behind a serial port. A device writes to its back end and is given what comes in.

`write` never waits: it says how much it took, and `ready` of the device is called when there is room again. A back end
offers input to `receive`, which says how much it took, and offers the rest again after `resume`.
"""

from __future__ import annotations

from typing import Protocol


class CharDevice(Protocol):
    """The device's side."""

    def receive(self, data: bytes) -> int: ...
    def ready(self) -> None: ...


class CharBackend:
    """The base of all, and one that takes everything and says nothing."""

    def __init__(self) -> None:
        self.device: CharDevice | None = None

    def attach(self, device: CharDevice) -> None:
        """Serve this device."""
        if self.device is not None:
            raise ValueError("a back end serves one device")
        self.device = device

    def write(self, data: bytes) -> int:
        """Take output; the result is how many bytes were taken."""
        return len(data)

    def resume(self) -> None:
        """The device has room for input again."""


class MemoryChar(CharBackend):
    """Keeps output in `sent`, up to `limit` bytes of it, and gives what is typed."""

    def __init__(self, limit: int = 1 << 20) -> None:
        super().__init__()
        self.sent = bytearray()
        self.limit = limit
        self._typed = bytearray()

    def write(self, data: bytes) -> int:
        """Take what there is room for."""
        taken = data[: max(self.limit - len(self.sent), 0)]
        self.sent += taken
        return len(taken)

    def take(self) -> bytes:
        """What was sent since the last call; the device may go on."""
        sent = bytes(self.sent)
        self.sent.clear()
        if self.device is not None:
            self.device.ready()
        return sent

    def type(self, data: bytes) -> None:
        """Input: what the device does not take now it gets later."""
        self._typed += data
        self.resume()

    def resume(self) -> None:
        """Offer what is left."""
        while self._typed and self.device is not None:
            taken = self.device.receive(bytes(self._typed))
            if not taken:
                return
            del self._typed[:taken]
