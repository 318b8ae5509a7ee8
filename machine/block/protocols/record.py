"""Recording: what is written to the child, in order, with the flushes; and the states in which a crash may leave it.

A disk may have written anything of what it was told since the last flush that it acknowledged, in any order, or none of
it, and the last sectors of a write without the first. `Recording.crash` makes one such state, chosen by a seeded random
generator; formats are tested by it (tests/machine/block/test_crash.py).
"""

from __future__ import annotations

import itertools
import threading
from bisect import bisect_right
from typing import TYPE_CHECKING

from dbt.machine.block.node import Protocol

if TYPE_CHECKING:
    from random import Random

    from dbt.machine.block.graph import Opening
    from dbt.machine.block.node import Extent
    from dbt.machine.block.request import Vectors

SECTOR = 512
_clock = itertools.count()


class Record(Protocol):
    """Passes everything on to `file`; `log` has what changed it: (offset, data), (size, None) or None for a flush."""

    driver = "record"

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        file = self.file = opening.child("file")
        self.size = file.size
        self.identity = getattr(file, "identity", None)
        self.before = bytes(file.pread(0, file.size))
        self.log: list[tuple[int, bytes | None] | None] = []
        self._moments: list[int] = []  # when an entry came, for crashes of several files at once
        self._lock = threading.Lock()

    def _note(self, entry: tuple[int, bytes | None] | None) -> None:
        self._moments.append(next(_clock))
        self.log.append(entry)

    @staticmethod
    def clock() -> int:
        """The time, which goes on with every entry of any recording."""
        return next(_clock)

    def entries_until(self, moment: int) -> int:
        """How many entries the log had at a time of `clock`."""
        return bisect_right(self._moments, moment)

    def read(self, offset: int, length: int, vectors: Vectors) -> None:
        self.file.read(offset, length, vectors)

    def try_read(self, offset: int, length: int, vectors: Vectors) -> bool:
        return self.file.try_read(offset, length, vectors)

    def write(self, offset: int, length: int, vectors: Vectors, flags: int = 0) -> None:
        with self._lock:
            self._note((offset, b"".join(vectors)))
            self.file.write(offset, length, vectors, flags)
            self.size = self.file.size

    def flush(self) -> None:
        with self._lock:
            self.file.flush()
            self._note(None)

    def discard(self, offset: int, length: int) -> None:
        self.write_zeroes(offset, max(min(length, self.size - offset), 0))

    def write_zeroes(self, offset: int, length: int, flags: int = 0) -> None:
        with self._lock:
            self._note((offset, bytes(length)))
            self.file.write_zeroes(offset, length, flags)
            self.size = self.file.size

    def status(self, offset: int, length: int) -> Extent:
        return self.file.status(offset, length)

    def resize(self, size: int, *, preallocation: str = "off") -> None:
        with self._lock:
            self._note((size, None))
            self.file.resize(size, preallocation=preallocation)
            self.size = size

    def crash(self, point: int, random: Random) -> bytes:
        """A state that a crash after `point` entries of the log may leave."""
        sure = max((i for i in range(point) if self.log[i] is None), default=0)
        state = bytearray(self.before)
        for entry in self.log[:sure]:
            _apply(state, entry)
        open_writes = [entry for entry in self.log[sure:point] if entry is not None]
        chosen = random.choice((0.0, 0.2, 0.5, 0.8, 1.0))
        kept = [entry for entry in open_writes if random.random() < chosen]
        random.shuffle(kept)
        for entry in kept:
            if entry[1] is not None and random.random() < 0.25:
                _apply_torn(state, entry[0], entry[1], random)
            else:
                _apply(state, entry)
        return bytes(state)


def _apply(state: bytearray, entry: tuple[int, bytes | None] | None) -> None:
    if entry is None:
        return
    offset, data = entry
    if data is None:
        del state[offset:]
        state.extend(bytes(offset - len(state)))
        return
    state.extend(bytes(max(offset - len(state), 0)))
    state[offset : offset + len(data)] = data


def _apply_torn(state: bytearray, offset: int, data: bytes, random: Random) -> None:
    """Only some sectors of a write."""
    at = 0
    while at < len(data):
        count = min(SECTOR - (offset + at) % SECTOR, len(data) - at)
        if random.random() < 0.5:
            _apply(state, (offset + at, data[at : at + count]))
        at += count


DRIVER = Record
