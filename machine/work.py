"""Work that a device does in parts, so that no guest makes it hold the machine's lock for long.

    self.work = Work(self.clock, self._part)     # in the constructor
    self.work.run()                              # there is something to do: do a part of it now
    def _part(self):
        while something is left:
            if self.work.over:                   # this part is long enough: the rest is done when timers run next
                self.work.later()
                break
            self.work.spend(units of what is done now)

A unit is what takes up to about 15 us in Python, so a part takes up to a millisecond. Nothing of this is saved: what is
left follows from the device's registers and states. A reset calls `cancel`; a restore `cancel`, and `later` if
something is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.clock import Clock

UNITS = 64


class Work:
    """What is done by calls of `part`, each of up to `units`. All is under the machine's lock."""

    def __init__(self, clock: Clock, part: Callable[[], object], units: int = UNITS) -> None:
        self.clock = clock
        self.units = units
        self.left = 0
        self.within = False  # a part is being done
        self._part = part
        self._timer = clock.timer(self.run)

    def run(self) -> None:
        """Do a part now. From within one it does nothing: that one goes on anyway."""
        if self.within:
            return
        self.within = True
        self.left = self.units
        try:
            self._part()
        finally:
            self.within = False

    def spend(self, units: int = 1) -> None:
        """So much was done."""
        self.left -= units

    @property
    def over(self) -> bool:
        """Whether this part is long enough."""
        return self.left <= 0

    def later(self, when: int = 0) -> None:
        """Do a part when timers run next and it is `when`, by the clock: others get the lock before that."""
        when = max(when, self.clock.now)
        if self._timer.deadline is None or self._timer.deadline > when:
            self._timer.at(when)

    @property
    def waiting(self) -> bool:
        """Whether a part will be done later."""
        return self._timer.deadline is not None

    def cancel(self) -> None:
        """Nothing is left."""
        self._timer.cancel()
