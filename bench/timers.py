"""What timers cost: `python -m bench machine` runs this and reads the JSON line that it prints.

Nanoseconds of processor time by what was done beside other timers, one of each round: with the list that native code
shares, and with the one in Python.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

from dbt.machine.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.timers import Timer

TIMES, FAR = 50_000, 10**15


def set_and_run(clock: Clock, timer: Timer) -> None:
    """Set one to now, and run what is due."""
    at, run_due = timer.at, clock.run_due
    for _ in range(TIMES):
        at(0)
        run_due()


def set_anew(clock: Clock, timer: Timer) -> None:
    """Set one that is set to a later time."""
    del clock
    at = timer.at
    for number in range(TIMES):
        at(1000 + number)


def set_and_cancel(clock: Clock, timer: Timer) -> None:
    """As a timeout that does not happen."""
    del clock
    at, cancel = timer.at, timer.cancel
    for _ in range(TIMES):
        at(1000)
        cancel()


WAYS: dict[str, Callable[[Clock, Timer], None]] = {
    "set and run": set_and_run,
    "set anew": set_anew,
    "set and cancel": set_and_cancel,
}


def measure(way: Callable[[Clock, Timer], None], others: int, *, native: bool) -> float:
    """Nanoseconds each time."""
    clock = Clock(native=native)
    kept = [clock.timer(lambda: None) for _ in range(others)]
    for number, other in enumerate(kept):
        other.at(FAR + number)
    timer = clock.timer(lambda: None)
    start = time.process_time_ns()
    way(clock, timer)
    return (time.process_time_ns() - start) / TIMES


def main(rounds: int) -> None:
    """Print nanoseconds by what was done."""
    figures: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, way in WAYS.items():
            for others in (0, 8, 64):
                for kind, native in (("", True), (", list in Python", False)):
                    figure = figures.setdefault(f"{name}, {others} others{kind}", [])
                    figure.append(measure(way, others, native=native))
    print(json.dumps(figures))


if __name__ == "__main__":
    main(int(sys.argv[1]))
