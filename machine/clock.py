"""Time of a machine, in integer nanoseconds since it was made, and timers on it (DESIGN, section 13).

Without a source, time stands still but for `advance`, which runs what is due in order, each at its own time: exact and
repeatable. With a source (`time.monotonic_ns`) time follows the host while the clock runs, and `run_due` runs what is
late once; timers that have to keep up count what they have missed by `now`.

Devices do long work in parts, the next by a timer that is set to now. Such timers run in rounds: a round has what was
set before it began, each once. `run_due` is one round; `advance` has up to ROUNDS of them at one time, and what is not
done then goes on when time has gone on, or in the next call. So a guest that makes work from work (descriptors that a
device itself writes) holds up nobody. Between rounds others get the machine's lock.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECOND = 1_000_000_000
ROUNDS = 1000


class Timer:
    """Calls `callback()` once when its time has come, under the machine's lock; set it again from there."""

    __slots__ = ("_clock", "callback", "deadline")

    def __init__(self, clock: Clock, callback: Callable[[], None]) -> None:
        self._clock = clock
        self.callback = callback
        self.deadline: int | None = None

    def at(self, deadline: int) -> None:
        """Expire at `deadline` instead of whatever was set before; in the past: as soon as timers are run."""
        if deadline != self.deadline:
            self.deadline = deadline
            self._clock._push(self)  # noqa: SLF001 - one thing in two classes

    def cancel(self) -> None:
        """Do not expire."""
        self.deadline = None


class Clock:
    """See the module. Everything but `now` is used under the machine's lock."""

    def __init__(self, source: Callable[[], int] | None = None) -> None:
        self._source = source
        self._base = 0  # now, or what has to be added to the source while running
        self._running = False
        self._heap: list[tuple[int, int, Timer]] = []
        self._number = 0  # equal deadlines expire in the order in which they were set
        self._timers = 0

    @property
    def now(self) -> int:
        """Nanoseconds."""
        return self._base + self._source() if self._running and self._source else self._base

    def start(self) -> None:
        """Let time follow the source."""
        if not self._running and self._source:
            self._base -= self._source()
            self._running = True

    def stop(self) -> None:
        """Let time stand still."""
        self._base = self.now
        self._running = False

    def set(self, now: int) -> None:
        """Another time, that of a saved machine: timers are set anew by their devices."""
        self._base += now - self.now

    def timer(self, callback: Callable[[], None]) -> Timer:
        """A timer that is not set."""
        self._timers += 1
        return Timer(self, callback)

    def _push(self, timer: Timer) -> None:
        assert timer.deadline is not None
        self._number += 1
        heapq.heappush(self._heap, (timer.deadline, self._number, timer))
        if len(self._heap) > 2 * self._timers + 64:  # what was set again and again leaves entries behind
            newest: dict[Timer, tuple[int, int, Timer]] = {}
            for entry in self._heap:
                if entry[2].deadline == entry[0]:
                    newest[entry[2]] = entry
            self._heap = sorted(newest.values(), key=lambda entry: entry[:2])

    def next_deadline(self) -> int | None:
        """When the next timer expires."""
        while self._heap and self._heap[0][2].deadline != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _due(self) -> bool:
        deadline = self.next_deadline()
        return deadline is not None and deadline <= self.now

    def _round(self) -> None:
        """Run what is due now and was set before this call."""
        last = self._number
        aside: list[tuple[int, int, Timer]] = []
        try:
            while self._due():
                entry = heapq.heappop(self._heap)
                if entry[1] > last:
                    aside.append(entry)
                else:
                    entry[2].deadline = None
                    entry[2].callback()
        finally:
            for entry in aside:
                heapq.heappush(self._heap, entry)

    def run_due(self) -> None:
        """Run the timers that are due now, each once: one that sets itself to the past waits for the next call."""
        self._round()

    def turns(self, nanoseconds: int) -> Iterator[bool]:
        """`advance` in parts, for those who let go of the lock in between."""
        if self._source:
            raise ValueError("a clock that follows the host is not advanced by hand")
        end = self._base + nanoseconds
        left: list[tuple[int, int, Timer]] = []  # what the rounds of one time were not enough for
        while (deadline := self.next_deadline()) is not None and deadline <= end:
            self._base = max(self._base, deadline)
            while left:
                heapq.heappush(self._heap, left.pop())
            for _ in range(ROUNDS):
                self._round()
                yield True
                if not self._due():
                    break
            while self._due():
                left.append(heapq.heappop(self._heap))
        self._base = end
        while left:
            heapq.heappush(self._heap, left.pop())

    def advance(self, nanoseconds: int) -> None:
        """Let time pass, if the clock has no source."""
        for _ in self.turns(nanoseconds):
            pass
