"""Time of a machine, in integer nanoseconds since it was made, and timers on it (DESIGN, section 13).

Without a source, time stands still but for `advance`, which runs what is due in order, each at its own time: exact and
repeatable; it ends at MOST, after 292 years. With a source (`time.monotonic_ns`) time follows the host while the clock
runs, and `run_due` runs what is late once; timers that have to keep up count what they have missed by `now`.

Devices do long work in parts, the next by a timer that is set to now. Such timers run in rounds: a round has what was
set before it began, each once. `run_due` is one round; `advance` has up to ROUNDS of them at one time, and what is not
done then goes on when time has gone on, or in the next call. So a guest that makes work from work (descriptors that a
device itself writes) holds up nobody. Between rounds others get the machine's lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.timers import MOST, PythonTimers, Timer, within
from dbt.machine.timers_native import native_timers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbt.machine.timers import Timers

__all__ = ["ROUNDS", "SECOND", "Clock", "Timer"]

SECOND = 1_000_000_000
ROUNDS = 1000


class Clock:
    """See the module. Everything but `now` is used under the machine's lock.

    `native`: whether native code shares the list of timers, where there is any.
    """

    def __init__(self, source: Callable[[], int] | None = None, *, native: bool = True) -> None:
        self._source = source
        self._base = 0  # now, or what has to be added to the source while running
        self._running = False
        self.timers: Timers = (native_timers() if native else None) or PythonTimers()
        self.timer = self.timers.timer  # makes one that is not set
        self.next_deadline = self.timers.earliest

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

    def run_due(self) -> None:
        """Run the timers that are due now, each once: one that sets itself to the past waits for the next call."""
        self.timers.run_due(self)

    def turns(self, nanoseconds: int) -> Iterator[bool]:
        """`advance` in parts, for those who let go of the lock in between."""
        if self._source:
            raise ValueError("a clock that follows the host is not advanced by hand")
        end = self._base + nanoseconds
        if end > MOST:
            end = within(end)
        timers = self.timers
        deadline = timers.earliest()
        while deadline is not None and deadline <= end:
            self._base = max(self._base, deadline)
            for _ in range(ROUNDS):
                timers.run_due(self)
                yield True
                deadline = timers.earliest()
                if deadline is None or deadline > self._base:
                    break
            else:  # what is left goes on when time has gone on
                deadline = timers.later(self._base)
        self._base = end

    def advance(self, nanoseconds: int) -> None:
        """Let time pass, if the clock has no source."""
        for _ in self.turns(nanoseconds):
            pass
