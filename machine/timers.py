"""Timers of a clock: what they are, and the list of those that are set, in Python.

Native code has the same list (machine/timers_native.py); this one says what it has to do.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.clock import Clock

MOST = (1 << 63) - 1  # the last deadline, 292 years


class Timer(Protocol):
    """Calls `callback()` once when its time has come, under the machine's lock; set it again from there.

    It lives as long as it is set, whoever else knows it.
    """

    callback: Callable[[], None]

    @property
    def deadline(self) -> int | None:
        """Nanoseconds; None: it is not set."""

    def at(self, deadline: int) -> None:
        """Expire at `deadline` instead of whatever was set before; in the past: as soon as timers are run.

        Deadlines before 0 are 0, those after MOST are MOST. One that is set already keeps its turn.
        """

    def cancel(self) -> None:
        """Do not expire."""


class Timers(Protocol):
    """The timers of a clock. Equal deadlines expire in the order in which they were set."""

    def timer(self, callback: Callable[[], None]) -> Timer:
        """A timer that is not set."""

    def earliest(self) -> int | None:
        """The first deadline."""

    def later(self, now: int) -> int | None:
        """The first deadline after `now`, whatever is due."""

    def run_due(self, clock: Clock) -> None:
        """Run what is due now and was set before this call."""


def within(deadline: int) -> int:
    """A deadline that there can be."""
    return min(max(deadline, 0), MOST)


class PythonTimer:
    """A timer."""

    __slots__ = ("_timers", "callback", "deadline", "order")

    def __init__(self, timers: PythonTimers, callback: Callable[[], None]) -> None:
        self._timers = timers
        self.callback = callback
        self.deadline: int | None = None
        self.order = 0  # of what set it

    def at(self, deadline: int) -> None:
        """See Timer."""
        if not 0 <= deadline <= MOST:
            deadline = within(deadline)
        if deadline != self.deadline:
            self.deadline = deadline
            self._timers.push(self)

    def cancel(self) -> None:
        """See Timer."""
        self.deadline = None


Pushed = tuple[int, int, PythonTimer]  # deadline, order


class PythonTimers:
    """A heap in which also is what was set before: entries that are not their timer's last one."""

    def __init__(self) -> None:
        self._heap: list[Pushed] = []
        self._order = 0
        self._made = 0

    def timer(self, callback: Callable[[], None]) -> PythonTimer:
        """See Timers."""
        self._made += 1
        return PythonTimer(self, callback)

    def push(self, timer: PythonTimer) -> None:
        """A timer has another deadline."""
        assert timer.deadline is not None
        self._order = timer.order = self._order + 1
        heapq.heappush(self._heap, (timer.deadline, timer.order, timer))
        if len(self._heap) > 2 * self._made + 64:  # what was set again and again leaves entries behind
            self._heap = sorted(filter(_counts, self._heap))

    def earliest(self) -> int | None:
        """See Timers."""
        while self._heap and not _counts(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def later(self, now: int) -> int | None:
        """See Timers."""
        return min((entry[0] for entry in self._heap if entry[0] > now and _counts(entry)), default=None)

    def run_due(self, clock: Clock) -> None:
        """See Timers."""
        last = self._order
        while (timer := self._pop(clock.now, last)) is not None:
            timer.deadline = None
            timer.callback()

    def _pop(self, now: int, last: int) -> PythonTimer | None:
        """The first timer that is due at `now` and was set when `order` was up to `last`."""
        first = self.earliest()
        if first is None or first > now:
            return None
        if self._heap[0][1] <= last:
            return heapq.heappop(self._heap)[2]
        due = [entry for entry in self._heap if entry[0] <= now and entry[1] <= last and _counts(entry)]
        return min(due)[2] if due else None


def _counts(entry: Pushed) -> bool:
    return entry[2].deadline is not None and entry[2].order == entry[1]
