"""Both lists of timers, native and Python, against a model that looks at everything each time."""

from __future__ import annotations

import ctypes
import gc
from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.machine.clock import ROUNDS, Clock, Timer
from dbt.machine.devices.i8254 import I8254
from dbt.machine.machine import Machine
from dbt.machine.native.timers import NEVER, Entry, List, timer_cancel, timer_set
from dbt.machine.timers import MOST, PythonTimers
from dbt.machine.timers_native import FIRST_ROOM, NativeTimers

from dbt.native import address

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = pytest.mark.parametrize("native", [True, False])
TIMERS, OPERATIONS = 40, 100_000


class Model:
    """What a clock does, with no more than a list of what was set, in that order."""

    def __init__(self) -> None:
        self.now = 0
        self.orders = 0
        self.set: dict[int, tuple[int, int]] = {}  # deadline, order
        self.callbacks: list[Callable[[], None]] = []

    def at(self, number: int, deadline: int) -> None:
        deadline = min(max(deadline, 0), MOST)
        if number not in self.set or self.set[number][0] != deadline:
            self.orders += 1
            self.set[number] = deadline, self.orders

    def cancel(self, number: int) -> None:
        self.set.pop(number, None)

    def deadline(self, number: int) -> int | None:
        return self.set[number][0] if number in self.set else None

    def next_deadline(self) -> int | None:
        return min((deadline for deadline, _ in self.set.values()), default=None)

    def run_due(self) -> None:
        last = self.orders
        while due := [(*key, number) for number, key in self.set.items() if key[0] <= self.now and key[1] <= last]:
            number = min(due)[2]
            del self.set[number]
            self.callbacks[number]()

    def advance(self, nanoseconds: int) -> None:
        end = self.now + nanoseconds
        after = -1  # what is due at times up to this has had its rounds
        while deadlines := [key[0] for key in self.set.values() if after < key[0] <= end]:
            self.now = max(self.now, min(deadlines))
            for _ in range(ROUNDS):
                self.run_due()
                if not any(key[0] <= self.now for key in self.set.values()):
                    break
            after = self.now
        self.now = end


class Real:
    """The same of a clock of ours."""

    def __init__(self, *, native: bool) -> None:
        self.clock = Clock(native=native)
        self.timers: list[Timer] = []
        self.callbacks: list[Callable[[], None]] = []
        self.next_deadline, self.run_due, self.advance = (
            self.clock.next_deadline, self.clock.run_due, self.clock.advance
        )  # fmt: skip
        for number in range(TIMERS):
            self.timers.append(self.clock.timer(lambda number=number: self.callbacks[number]()))  # type: ignore[misc]

    @property
    def now(self) -> int:
        return self.clock.now

    def at(self, number: int, deadline: int) -> None:
        self.timers[number].at(deadline)

    def cancel(self, number: int) -> None:
        self.timers[number].cancel()

    def deadline(self, number: int) -> int | None:
        return self.timers[number].deadline


def behave(side: Model | Real, seed: int, operations: int) -> list[object]:
    """All that can be seen while timers are set and cancelled at random, also by their callbacks."""
    random = Random(seed)
    seen: list[object] = []

    def near() -> int:
        return side.now + random.choice((0, 0, 1, 1, 5, random.randrange(-20, 400), random.randrange(4) * 50))

    def ran(number: int) -> None:
        seen.append((side.now, number, side.next_deadline()))
        for _ in range(random.choice((0, 0, 1, 2))):
            change()

    def change() -> None:
        number = random.randrange(TIMERS)
        if random.random() < 0.25:
            side.cancel(number)
        else:
            side.at(number, near() if random.random() < 0.97 else random.choice((-5, MOST, MOST + 7, 1 << 70)))

    side.callbacks = [lambda number=number: ran(number) for number in range(TIMERS)]  # type: ignore[misc]
    for _ in range(operations):
        choice = random.random()
        if choice < 0.8:
            change()
        elif choice < 0.9:
            side.advance(random.choice((0, 1, 7, 100)))
        else:
            side.run_due()
        number = random.randrange(TIMERS)
        seen.append((side.now, side.next_deadline(), side.deadline(number)))
    return seen


@KINDS
def test_timers_do_as_the_model_does(native: bool) -> None:
    clock = Clock(native=native)
    assert isinstance(clock.timers, NativeTimers if native else PythonTimers)
    parts = 20
    ran = 0
    for seed in range(parts):
        ours = behave(Real(native=native), seed, OPERATIONS // parts)
        assert ours == behave(Model(), seed, OPERATIONS // parts), seed
        ran += len(ours) - OPERATIONS // parts
    assert ran > OPERATIONS // 20


@KINDS
def test_rounds_of_endless_timers_are_bounded_as_in_the_model(native: bool) -> None:
    def counts(side: Model | Real) -> list[object]:
        count = [0] * TIMERS

        def again(number: int) -> None:
            count[number] += 1
            if number < 3:
                side.at(number, side.now - number)
            elif number == 3:
                side.at(3, side.now + 100)

        side.callbacks = [lambda number=number: again(number) for number in range(TIMERS)]  # type: ignore[misc]
        for number in range(6):
            side.at(number, 100 * (number == 3))
        found: list[object] = []
        for step in (250, 0, 50, 1000):
            side.advance(step)
            found.append((side.now, list(count), side.next_deadline()))
        return found

    assert counts(Real(native=native)) == counts(Model())


@KINDS
def test_a_timer_that_is_set_again_and_again_costs_nothing(native: bool) -> None:
    clock = Clock(native=native)
    fired: list[int] = []
    timer = clock.timer(lambda: fired.append(clock.now))
    for number in range(10_000):
        timer.at(1_000_000 - number)
    if isinstance(clock.timers, PythonTimers):
        assert len(clock.timers._heap) < 100
    clock.advance(1_000_000)
    assert fired == [1_000_000 - 9999]


@KINDS
def test_later_is_behind_what_is_due(native: bool) -> None:
    timers = Clock(native=native).timers
    made = [timers.timer(lambda: None) for _ in range(3)]
    for timer, deadline in zip(made, (5, 7, 7), strict=True):
        timer.at(deadline)
    assert [timers.later(now) for now in (4, 5, 6, 7)] == [5, 7, 7, None]


@KINDS
def test_time_ends(native: bool) -> None:
    clock = Clock(native=native)
    ran: list[int] = []
    timer = clock.timer(lambda: ran.append(clock.now))
    timer.at(1 << 90)
    assert timer.deadline == clock.next_deadline() == MOST
    clock.advance(MOST - 1)
    assert not ran
    clock.advance(1 << 90)
    timer.at(-5)
    clock.advance(1)
    assert ran == [MOST, MOST]


@KINDS
def test_deadlines_are_numbers(native: bool) -> None:
    timer = Clock(native=native).timer(lambda: None)
    with pytest.raises(TypeError):
        timer.at("soon")  # type: ignore[arg-type]
    assert timer.deadline is None


@KINDS
def test_a_timer_lives_while_it_is_set(native: bool) -> None:
    clock = Clock(native=native)
    ran: list[int] = []
    for number in range(1000):
        clock.timer(lambda number=number: ran.append(number)).at(number)  # type: ignore[misc]
    cancelled = clock.timer(lambda: ran.append(-1))
    cancelled.at(5)
    cancelled.cancel()
    del cancelled
    gc.collect()
    clock.advance(1000)
    assert ran == list(range(1000))
    assert clock.next_deadline() is None


def test_the_heap_has_room_for_the_timers_that_live_and_no_more() -> None:
    clock = Clock()
    assert isinstance(clock.timers, NativeTimers)
    kept = [clock.timer(lambda: None) for _ in range(3 * FIRST_ROOM)]
    for timer in kept:
        timer.at(7)
    words = List.at(clock.timers.address)
    assert (words.count, words.room) == (3 * FIRST_ROOM, 4 * FIRST_ROOM)
    for _ in range(10 * FIRST_ROOM):
        clock.timer(lambda: None).cancel()
    assert words.room == 4 * FIRST_ROOM
    clock.advance(7)
    assert (words.count, words.earliest) == (0, NEVER)


def test_the_functions_do_the_same_under_cpython() -> None:
    """The native functions, run as Python: a heap of their own against sorting."""
    random = Random(3)
    timers = List.view(earliest=NEVER, room=8)
    heap = (ctypes.c_uint64 * 8)()
    timers.heap = ctypes.addressof(heap)  # type: ignore[assignment]
    entries = [Entry.view(deadline=NEVER, timers=address(timers)) for _ in range(8)]
    for _ in range(2000):
        entry = random.choice(entries)
        if random.random() < 0.4:
            timer_cancel(entry)
        else:
            timer_set(entry, random.randrange(20))
        assert timers.earliest == min(each.deadline for each in entries)
        assert timers.count == sum(each.deadline != NEVER for each in entries)


@KINDS
def test_timers_are_set_anew_in_restored_machines(native: bool) -> None:
    def build() -> tuple[Machine, I8254]:
        machine = Machine(native=native)
        pit = I8254("pit", machine)
        machine.place(pit, 0x40)
        machine.reset()
        return machine, pit

    machine, pit = build()
    for at, value in ((3, 0x34), (0, 0), (0, 1)):
        machine.memory.write(0x40 + at, 1, value)
    machine.advance(12_345)
    saved = machine.save()
    machine.advance(1_000_000)
    other, copy = build()
    other.restore(saved)
    again = machine.clock.now
    machine.restore(saved)
    assert pit.edge.deadline == copy.edge.deadline == machine.clock.next_deadline()
    assert machine.clock.now < again
    levels = []
    for each, device in ((machine, pit), (other, copy)):
        seen: list[tuple[int, bool]] = []
        device.irq.connect(lambda level, each=each, seen=seen: seen.append((each.clock.now, level)))  # type: ignore[misc]
        each.advance(2_000_000)
        levels.append(seen)
    assert levels[0] == levels[1]
    assert len(levels[0]) > 5
