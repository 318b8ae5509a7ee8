"""Ranges in flight: who works on which part of an image, so that overlapping allocations come one after the other.

Reads, and writes to what is allocated, share a range; what allocates, frees or moves has it alone. First come, first
served: a request waits for every earlier one that it conflicts with, granted or not, so nobody starves.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERYTHING = 1 << 64


class Held:
    """One range, in the queue or granted."""

    __slots__ = ("alone", "end", "start")

    def __init__(self, start: int, end: int, alone: bool) -> None:
        self.start = start
        self.end = end
        self.alone = alone


class Ranges:
    """The ranges of one node. A thread holds at most one at a time."""

    __slots__ = ("_condition", "_held", "_waiting")

    def __init__(self) -> None:
        self._condition = threading.Condition(threading.Lock())
        self._held: list[Held] = []
        self._waiting = 0

    def acquire(self, start: int, end: int, *, alone: bool) -> Held:
        """Wait until [start, end) may be used, shared with others or alone."""
        mine = Held(start, end, alone)
        with self._condition:
            self._held.append(mine)
            while self._blocked(mine):
                self._waiting += 1
                self._condition.wait()
                self._waiting -= 1
        return mine

    def release(self, held: Held) -> None:
        """Give back what `acquire` gave."""
        with self._condition:
            self._held.remove(held)
            if self._waiting:
                self._condition.notify_all()

    def _blocked(self, mine: Held) -> bool:
        for other in self._held:
            if other is mine:
                return False
            if other.start < mine.end and mine.start < other.end and (mine.alone or other.alone):
                return True
        return False

    @contextmanager
    def shared(self, start: int, end: int) -> Iterator[None]:
        """Hold [start, end) with others."""
        held = self.acquire(start, end, alone=False)
        try:
            yield
        finally:
            self.release(held)

    @contextmanager
    def alone(self, start: int = 0, end: int = EVERYTHING) -> Iterator[None]:
        """Hold [start, end), or everything, alone."""
        held = self.acquire(start, end, alone=True)
        try:
            yield
        finally:
            self.release(held)
