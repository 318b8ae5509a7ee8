"""Time of a machine, in integer nanoseconds since it was made, and timers on it (DESIGN, section 13).

Without a source, time stands still but for `advance`, which runs what is due in order, each at its own time: exact and
repeatable. With a source (`time.monotonic_ns`) time follows the host while the clock runs, and `run_due` runs what is
late once; timers that have to keep up count what they have missed by `now`.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SECOND = 1_000_000_000


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

    def _expire(self) -> None:
        timer = heapq.heappop(self._heap)[2]
        timer.deadline = None
        timer.callback()

    def run_due(self) -> None:
        """Run the timers that are due now, each once: one that sets itself to the past waits for the next call."""
        now = self.now
        due = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            timer = heapq.heappop(self._heap)[2]
            timer.deadline = None
            due.append(timer)
        for timer in due:
            timer.callback()

    def advance(self, nanoseconds: int) -> None:
        """Let time pass, if the clock has no source."""
        if self._source:
            raise ValueError("a clock that follows the host is not advanced by hand")
        end = self._base + nanoseconds
        while (deadline := self.next_deadline()) is not None and deadline <= end:
            self._base = max(self._base, deadline)
            self._expire()
        self._base = end
