"""Work in parts: bounded, later, not within itself."""

from __future__ import annotations

from dbt.machine.clock import Clock
from dbt.machine.work import Work


def test_parts() -> None:
    clock, done = Clock(), [0]
    left = 25

    def part() -> None:
        nonlocal left
        work.run()  # from within: nothing
        done.append(0)
        while left:
            if work.over:
                work.later()
                return
            work.spend(3)
            left -= 1
            done[-1] += 1

    work = Work(clock, part, 30)
    work.run()
    assert (done, work.waiting) == ([0, 10], True)
    clock.run_due()
    assert done == [0, 10, 10]
    clock.advance(0)
    assert (done, work.waiting) == ([0, 10, 10, 5], False)
    left = 25
    work.run()
    work.cancel()
    clock.advance(1000)
    assert left == 15


def test_the_earliest_time_counts() -> None:
    clock = Clock()
    times: list[int] = []
    work = Work(clock, lambda: times.append(clock.now))
    work.later(500)
    work.later(900)
    work.later(300)
    clock.advance(1000)
    assert times == [300]
    work.later(10)
    clock.advance(0)
    assert times == [300, 1000]


def test_an_error_ends_the_part() -> None:
    work = Work(Clock(), lambda: 1 // 0)
    for _ in range(2):
        try:
            work.run()
        except ZeroDivisionError:
            assert not work.within
        else:
            raise AssertionError
