"""One request of a driver: the buffers of a descriptor chain, as memory that the device reads and memory it writes.

The views are the guest's memory itself. The guest may change it at any time, so what decides is copied first (`read`).
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING

from dbt.machine.block.buffers import cut, scatter
from dbt.machine.errors import RingError

if TYPE_CHECKING:
    from dbt.machine.memory import DmaPort, Memory

    Runs = list[tuple[int, int]]

WRONG_ORDER = "a buffer that the device reads is behind one that it writes"
LENGTH = itemgetter(1)  # of (address, length)
MOST_BYTES = 1 << 32  # of one chain, section 2.7.5


class Chain:
    """`readable` and `writable` are views in the order of the descriptors, `…_length` the sums of their lengths.

    `places`: (memory, offset, length) of the writable ones. `token`: where the ring has it; `descriptors`: how many
    slots of the ring it takes; `ring`: the one it came from.
    """

    __slots__ = (
        "descriptors",
        "done",
        "identifier",
        "places",
        "readable",
        "readable_length",
        "ring",
        "token",
        "writable",
        "writable_length",
        "written",
    )  # fmt: skip

    def __init__(self, ring: object, token: int) -> None:
        self.ring = ring
        self.token = token
        self.identifier = token  # what the driver finds in the used ring
        self.descriptors = 1
        self.readable: list[memoryview] = []
        self.writable: list[memoryview] = []
        self.readable_length = 0
        self.writable_length = 0
        self.written = 0
        self.done = False
        self.places: list[tuple[Memory, int, int]] = []  # of the writable views

    def fill(self, dma: DmaPort, buffers: Runs, room: Runs) -> None:
        """The (address, length) that the device reads and writes. DmaError if one is not memory, RingError if too many.

        A hostile driver has a thousand of them, so all are looked up in one go.
        """
        self.readable_length = sum(map(LENGTH, buffers))
        self.writable_length = sum(map(LENGTH, room))
        if self.readable_length + self.writable_length >= MOST_BYTES:
            raise RingError("a chain has 4 GiB or more")
        self.readable = [
            memory.view[at : at + count].toreadonly() for memory, at, count in dma.scattered(buffers, writable=False)
        ]
        self.places = dma.scattered(room, writable=True)
        self.writable = [memory.view[at : at + count] for memory, at, count in self.places]

    def read(self, offset: int, length: int) -> bytes:
        """A copy of bytes that the driver gave; shorter if there are not as many."""
        first = self.readable[0] if self.readable else b""
        if offset + length <= len(first):
            return bytes(first[offset : offset + length])
        return b"".join(cut(self.readable, offset, length))

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        """Store bytes for the driver; the result is how many there was room for."""
        room = min(len(data), max(self.writable_length - offset, 0))
        if room:
            scatter(memoryview(data)[:room], cut(self.writable, offset, room))
        return room

    def wrote(self, written: int) -> None:
        """Tell those who observe the memory that its first `written` writable bytes have changed."""
        for memory, at, count in self.places:
            if written <= 0:
                return
            if memory.observers:
                memory.written(at, min(count, written))
            written -= count

    def release(self) -> None:
        """Let go of the memory."""
        self.readable, self.writable, self.places = [], [], []
