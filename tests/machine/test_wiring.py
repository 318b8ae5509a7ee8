"""Lines, time and characters."""

from __future__ import annotations

from random import Random

import pytest
from dbt.machine.chardev import CharBackend, MemoryChar
from dbt.machine.clock import ROUNDS, Clock
from dbt.machine.lines import Line, OrGate


def test_lines_tell_of_changes_only() -> None:
    seen: list[bool] = []
    line = Line("line", seen.append)
    for level in (False, True, True, False):
        line.set(level)
    line.pulse()
    assert seen == [True, False, True, False]
    line.set(True)
    late: list[bool] = []
    line.connect(late.append)
    assert late == [True]


def test_an_or_gate_is_up_while_any_input_is() -> None:
    output = Line()
    gate = OrGate(output)
    a, b = gate.input(), gate.input()
    levels = []
    for line, level in ((a, True), (b, True), (a, False), (b, False)):
        line.set(level)
        levels.append(output.level)
    assert levels == [True, True, True, False]


def test_timers_expire_in_order_each_at_its_time() -> None:
    clock = Clock()
    seen: list[tuple[int, int]] = []
    random = Random(1)
    expected = []
    for number in range(200):
        deadline = random.randrange(1000)
        timer = clock.timer(lambda number=number: seen.append((clock.now, number)))  # type: ignore[misc]
        timer.at(5000)
        timer.at(deadline)
        if number % 5:
            expected.append((deadline, number))
        else:
            timer.cancel()
    assert clock.next_deadline() == min(expected)[0]
    clock.advance(400)
    assert clock.now == 400
    clock.advance(600)
    assert seen == sorted(expected)
    assert clock.next_deadline() is None
    clock.advance(5000)
    assert len(seen) == len(expected)


def test_time_follows_the_host_while_it_runs() -> None:
    host = 1000
    clock = Clock(lambda: host)
    fired: list[int] = []

    def again() -> None:
        fired.append(clock.now)
        timer.at(clock.now - 10)  # always late

    timer = clock.timer(again)
    timer.at(50)
    host = 2000
    assert clock.now == 0
    clock.start()
    host += 49
    clock.run_due()
    assert (clock.now, fired) == (49, [])
    host += 51
    clock.run_due()
    assert fired == [100]  # once, though it is due again
    clock.run_due()
    assert fired == [100, 100]
    clock.stop()
    host += 1000
    assert clock.now == 100
    clock.start()
    host += 5
    assert clock.now == 105
    clock.set(5000)
    host += 5
    assert clock.now == 5005
    with pytest.raises(ValueError, match="by hand"):
        clock.advance(1)


def test_what_a_device_does_not_take_waits() -> None:
    class Slow:
        def __init__(self) -> None:
            self.got = bytearray()
            self.room = 2
            self.readied = 0

        def receive(self, data: bytes) -> int:
            taken = data[: self.room]
            self.got += taken
            self.room -= len(taken)
            return len(taken)

        def ready(self) -> None:
            self.readied += 1

    chars, device = MemoryChar(limit=3), Slow()
    chars.attach(device)
    chars.type(b"hello")
    assert device.got == b"he"
    device.room = 10
    chars.resume()
    assert device.got == b"hello"
    assert [chars.write(b"ab"), chars.write(b"cd"), chars.write(b"e")] == [2, 1, 0]
    assert (chars.take(), device.readied) == (b"abc", 1)
    assert CharBackend().write(b"abc") == 3
    with pytest.raises(ValueError, match="one device"):
        chars.attach(device)


def test_work_that_makes_work_holds_up_nobody() -> None:
    clock = Clock()
    count = [0, 0]

    def work() -> None:
        count[0] += 1
        endless.at(clock.now)

    def tick() -> None:
        count[1] += 1
        ticking.at(clock.now + 100)

    endless, ticking = clock.timer(work), clock.timer(tick)
    endless.at(0)
    ticking.at(100)
    clock.advance(250)
    assert (clock.now, count) == (250, [3 * ROUNDS, 2])
    clock.advance(0)
    assert (clock.now, count) == (250, [4 * ROUNDS, 2])
    endless.cancel()
    clock.advance(50)
    assert count == [4 * ROUNDS, 3]


def test_a_timer_that_is_cancelled_by_another_of_its_round_does_not_run() -> None:
    clock = Clock()
    ran: list[str] = []
    second = clock.timer(lambda: ran.append("second"))
    first = clock.timer(second.cancel)
    for timer in (first, second):
        timer.at(10)
    clock.advance(10)
    host = Clock(lambda: 100)
    host.start()
    third = host.timer(lambda: ran.append("third"))
    for timer in (host.timer(third.cancel), third):
        timer.at(10)
    host.run_due()
    assert not ran
