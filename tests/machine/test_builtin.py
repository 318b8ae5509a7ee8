"""Native functions as builtins: arguments, results, exceptions, and what keeps what alive."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress

import pytest
from dbt.machine.native.builtin import Builtins, builtins
from dbt.machine.native.timers import NEVER, Entry, List, timer_cancel, timer_set, timers_later, timers_pop
from dbt.machine.native.virtqueue import Item, Queue, packed_push, split_wants

from dbt.native import address, native, u64


@pytest.fixture
def made() -> Builtins:
    found = builtins()
    assert found is not None
    return found


def test_results_have_the_bits_of_their_type(made: Builtins) -> None:
    timers = List.view(earliest=NEVER)
    pop, later = (made.bind(function, address(timers)) for function in (timers_pop, timers_later))
    assert later(0) == NEVER
    assert pop(NEVER, NEVER) == 0
    queue = Queue.view()
    assert made.bind(split_wants, address(queue))() == 0
    entry = Entry.view(deadline=NEVER, timers=address(timers))
    assert made.bind(timer_cancel, address(entry))() == 0


def test_all_arguments_arrive(made: Builtins) -> None:
    ring = (ctypes.c_uint64 * 8)()
    queue = Queue.view(size=4, used_wrap=1, next_used=1)
    queue.table = ctypes.addressof(ring)
    push = made.bind(packed_push, address(queue))
    push(0x1234, 2, 0xFFFF_FFFF)
    assert list(ring) == [0, 0, 0, 0x8082_1234_FFFF_FFFF, 0, 0, 0, 0]
    assert queue.next_used == 3


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ((), TypeError),
        ((1,), TypeError),
        ((1, 2, 3), TypeError),
        (("a", 1), TypeError),
        ((1, None), TypeError),
        ((1.5, 1), TypeError),
        ((-1, 1), OverflowError),
        ((1, 1 << 64), OverflowError),
    ],
)
def test_what_is_wrong_raises_and_calls_nothing(made: Builtins, given: tuple[int, ...], error: type[Exception]) -> None:
    timers = List.view(earliest=7, lock=0)
    pop = made.bind(timers_pop, address(timers))
    with pytest.raises(error):
        pop(*given)
    assert timers.earliest == 7  # a call would have put it right
    pop(0, 0)
    assert timers.earliest == NEVER
    with pytest.raises(TypeError):
        pop(0, last=0)


def test_all_ones_is_a_number(made: Builtins) -> None:
    timers = List.view(earliest=NEVER)
    assert made.bind(timers_later, address(timers))(NEVER) == NEVER


def test_more_arguments_than_there_may_be_are_refused(made: Builtins) -> None:
    with pytest.raises(ValueError, match="more than 3"):
        made.bind(many, 0)


@native
def many(item: Item, a: u64, b: u64, c: u64, d: u64) -> u64:
    """Has four besides the first."""
    return item.where + a + b + c + d


def test_calls_leave_no_references_behind(made: Builtins) -> None:
    timers = List.view(earliest=NEVER)
    entry = Entry.view(deadline=NEVER)
    heap = (ctypes.c_uint64 * 1)()
    timers.heap, timers.room = ctypes.addressof(heap), 1  # type: ignore[assignment]
    entry.timers = address(timers)
    put = made.bind(timer_set, address(entry))
    big, wrong = 1 << 60, object()
    before = sys.getrefcount(big), sys.getrefcount(wrong)
    for _ in range(1000):
        put(big)
        with suppress(TypeError):
            put(wrong)
    gc.collect()
    assert (sys.getrefcount(big), sys.getrefcount(wrong)) == before


def test_builtins_outlive_what_made_them(made: Builtins) -> None:
    timers = List.view(earliest=NEVER)
    kept = [made.bind(timers_later, address(timers)) for _ in range(1000)]
    gc.collect()
    assert {later(5) for later in kept} == {NEVER}
    assert kept[0].__name__ == "timers_later"
