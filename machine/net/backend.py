"""Back ends of network cards: a card gives frames to its back end, and is given frames.

All of it happens under the machine's lock, and nothing waits. `send` says False when there is no room: the card keeps
the frame and is told by `ready`. `receive` of the card says False when it has no buffer: the back end keeps the frame
and offers it again after `resume`. Frames are from the destination address to the last byte of data, without the check
sequence; views are good during the call only. Cards and back ends say what they take in whole, `accepts` and `offers`;
for the rest the base class here segments, so cards and back ends that know nothing of offloads need do nothing.

A back end may call `receive` from within `send` (an answer to that frame) and from within `resume`. A card never calls
`send` from within `receive`.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from dbt.machine.net.offload import BadOffload, Buffer, Offload, segment

SHORTEST = 14  # addresses and type


class NetDevice(Protocol):
    """A card. Devices have `guest_error` from their base class."""

    @property
    def accepts(self) -> int:
        """What it takes in whole now: CSUM, TSO4… of offload.py, or 0."""

    def receive(self, frame: Buffer, offload: Offload | None = None) -> bool:
        """Take a frame. False: no buffer for it now. What the card filters out it takes."""

    def ready(self) -> None:
        """There is room again for what `send` refused."""

    def link_changed(self) -> None:
        """The back end's `up` has changed."""

    def guest_error(self, thing: str, detail: str = "") -> None:
        """What the guest gave is wrong."""


class NetBackend:
    """The base of all, and one that swallows frames. Others have `put`, `resume`, and `offers`; they call `offer`."""

    offers = 0  # what `put` takes in whole
    KIND = "none"

    def __init__(self) -> None:
        self.device: NetDevice | None = None
        self.up = True
        self._leaving: deque[bytes] = deque()  # segments of one frame that `put` did not take
        self._coming: deque[tuple[Buffer, Offload | None]] = deque()  # what the card did not take
        self.bad = 0  # frames from the network that are none, or could not be segmented

    def attach(self, device: NetDevice) -> None:
        """Serve this card."""
        if self.device is not None:
            raise ValueError("a back end serves one device")
        self.device = device

    def close(self) -> None:
        """Give back what the host gave. Not under the machine's lock."""

    def set_link(self, *, up: bool) -> None:
        """Plug the cable in or out. Without it, frames are lost in both directions."""
        if up != self.up:
            self.up = up
            self._leaving.clear()
            self._coming.clear()
            if self.device is not None:
                self.device.link_changed()

    # From the card to the network

    def send(self, frame: Buffer, offload: Offload | None = None) -> bool:
        """Take a frame; False if there is no room."""
        if self._leaving and not self._flush():
            return False
        if not self.up:
            return True
        if offload is None:
            return self.put(frame)
        try:
            if not offload.needs & ~self.offers:
                return self.put(frame, offload)
            pieces = segment(frame, offload)
        except BadOffload as wrong:
            if self.device is not None:
                self.device.guest_error("a frame whose offload cannot be done", f": {wrong.args[0]}")
            return True
        if len(pieces) == 1:
            return self.put(pieces[0])
        self._leaving.extend(pieces)
        self._flush()
        return True

    def _flush(self) -> bool:
        while self._leaving:
            if not self.put(self._leaving[0]):
                return False
            self._leaving.popleft()
        return True

    def put(self, frame: Buffer, offload: Offload | None = None) -> bool:
        """Bring a frame to the network; False if there is no room, and `room` is called when there is."""
        del frame, offload
        return True

    def room(self) -> None:
        """Back ends call this when there is room again."""
        if self._flush() and self.device is not None:
            self.device.ready()

    # From the network to the card

    def offer(self, frame: Buffer, offload: Offload | None = None) -> bool:
        """Give the card a frame, as it takes it. False: not now; offer it again from `resume`."""
        device = self.device
        if device is None or not self.up:
            return True
        if self._coming and not self.deliver():
            return False
        if len(frame) < SHORTEST:  # what peers send need not be frames: cards look at addresses and type
            self.bad += 1
            return True
        if offload is None or not offload.needs & ~device.accepts:
            return device.receive(frame, offload)
        self._coming.extend((piece, None) for piece in self._pieces(frame, offload))
        self.deliver()
        return True

    def _pieces(self, frame: Buffer, offload: Offload) -> list[bytes]:
        try:
            return segment(frame, offload)
        except BadOffload:
            self.bad += 1
            return []

    def keep(self, frame: Buffer, offload: Offload | None = None) -> bool:
        """As `offer`, but a frame that the card does not take is kept. False: give no more before `resume`."""
        if self.offer(frame, offload):
            return True
        self._coming.append((frame, offload))
        return False

    def deliver(self) -> bool:
        """Give the card what is kept; whether nothing is left. The first thing that `resume` does."""
        device = self.device
        while self._coming and device is not None:
            frame, offload = self._coming[0]
            if offload is not None and offload.needs & ~device.accepts:  # the card took more when it came
                self._coming.popleft()
                self._coming.extendleft((piece, None) for piece in reversed(self._pieces(frame, offload)))
                continue
            if not device.receive(frame, offload):
                return False
            self._coming.popleft()
        return True

    def resume(self) -> None:
        """The card has buffers again."""
        self.deliver()


class Sink(NetBackend):
    """Counts what it swallows."""

    KIND = "sink"

    def __init__(self, offers: int = 0) -> None:
        super().__init__()
        self.offers = offers
        self.frames = 0
        self.octets = 0

    def put(self, frame: Buffer, offload: Offload | None = None) -> bool:
        """Count."""
        del offload
        self.frames += 1
        self.octets += len(frame)
        return True


class MemoryNet(NetBackend):
    """Keeps what was sent, up to `limit` frames, and gives what it is given, in order: for tests."""

    KIND = "memory"

    def __init__(self, limit: int = 1 << 16, offers: int = 0) -> None:
        super().__init__()
        self.limit = limit
        self.offers = offers
        self.sent: list[bytes] = []
        self.offloads: list[Offload | None] = []  # one for each of `sent`
        self.waiting: deque[tuple[bytes, Offload | None]] = deque()

    def put(self, frame: Buffer, offload: Offload | None = None) -> bool:
        """Keep it."""
        if len(self.sent) >= self.limit:
            return False
        self.sent.append(bytes(frame))
        self.offloads.append(offload)
        return True

    def take(self) -> list[bytes]:
        """What was sent since the last call; the card may go on."""
        sent, self.sent, self.offloads = self.sent, [], []
        self.room()
        return sent

    def give(self, frame: bytes, offload: Offload | None = None) -> bool:
        """A frame for the card; whether it was taken at once."""
        self.waiting.append((frame, offload))
        self.resume()
        return not self.waiting

    def resume(self) -> None:
        """Offer what waits."""
        if self.deliver():
            while self.waiting and self.offer(*self.waiting[0]):
                self.waiting.popleft()
