"""Timers that threads of native code set and cancel, without the interpreter's lock, while Python runs them."""

from __future__ import annotations

import ctypes
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from dbt.backends.llvm.compile import compile_text
from dbt.backends.llvm.image import link
from dbt.backends.llvm.native import module_text
from dbt.machine.clock import Clock
from dbt.machine.native.builtin import builtins
from dbt.machine.native.timers import NEVER, Entry, List, timer_cancel, timer_set
from dbt.machine.timers_native import NativeTimers

from dbt.engine.image import load_image
from dbt.native import Ptr, address, cast, native, u64, volatile_load

if TYPE_CHECKING:
    from pathlib import Path

WORD = ctypes.c_uint64
TIMERS, CHANGES, LONGEST = 8, 1_000_000, 5_000_000


@native(export=True)
def cpu(entries: Ptr[u64], shown: Ptr[u64], changes: u64, seed: u64) -> None:
    """Set and cancel timers at random. `shown`: the time, and whether it is enough."""
    random = seed
    while changes and volatile_load(shown + 1) == 0:
        changes -= 1
        random = random * 6364136223846793005 + 1442695040888963407
        entry = cast(Entry, entries[(random >> 33) % TIMERS])
        if (random >> 40) & 3 == 0:
            timer_cancel(entry)
        else:
            timer_set(entry, volatile_load(shown) + ((random >> 42) & 7))


def check_heap(timers: NativeTimers) -> None:
    """Each timer is where it says, none is before its parent, and the first deadline is that of the list."""
    words = List.at(timers.address)
    entries = [Entry.at(at) for at in timers._heap[: words.count]]
    assert [entry.place for entry in entries] == list(range(len(entries)))
    keys = [(entry.deadline, entry.order) for entry in entries]
    assert all(keys[(place - 1) // 2] < keys[place] for place in range(1, len(keys)))
    assert words.earliest == (keys[0][0] if keys else NEVER)
    assert words.lock == 0


def test_two_cpus_and_python_at_once(tmp_path: Path) -> None:
    path = tmp_path / "cpu.image"
    path.write_bytes(link("test", compile_text(module_text([cpu]))))
    run = load_image(str(path), "test").function("cpu", None, (WORD, WORD, WORD, WORD))
    shown = (WORD * 2)()
    clock = Clock(lambda: shown[0])
    clock.start()
    timers = clock.timers
    assert isinstance(timers, NativeTimers)
    ran = [0] * TIMERS

    def expired(number: int) -> None:
        ran[number] += 1

    kept = [timers.timer(lambda number=number: expired(number)) for number in range(TIMERS)]  # type: ignore[misc]
    shared = (WORD * TIMERS)(*(timer.share() for timer in kept))
    own = clock.timer(lambda: None)
    given = ctypes.addressof(shared), ctypes.addressof(shown)
    threads = [threading.Thread(target=run, args=(*given, NEVER, seed)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for _ in range(LONGEST):
        shown[0] += 7
        own.at(clock.now + 3)
        clock.run_due()
        if List.at(timers.address).order > CHANGES and min(ran) > 20:
            break
    shown[1] = 1
    for thread in threads:
        thread.join()
    assert min(ran) > 20
    check_heap(timers)
    del kept  # what native code knows stays
    shown[0], shown[1] = clock.now + 1000, 0
    clock.run_due()
    ran[:] = [0] * TIMERS
    run(*given, 1000, 3)
    expected = [int(Entry.at(entry).deadline != NEVER) for entry in shared]
    assert 0 < sum(expected) < TIMERS
    shown[0] += 64
    clock.run_due()
    assert ran == expected
    assert clock.next_deadline() is None


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("timer_set", (5,)),
        ("timer_cancel", ()),
        ("timers_pop", (50, 50)),
        ("timers_later", (0,)),
        ("timers_move", (0, 0)),
    ],
)
def test_each_function_waits_for_the_lock(name: str, arguments: tuple[int, ...]) -> None:
    made = builtins()
    assert made is not None
    heap = (WORD * 2)()
    timers = List.view(earliest=77, room=2, lock=1, heap=ctypes.addressof(heap))
    entry = Entry.view(deadline=NEVER, timers=address(timers))
    first: Any = entry if name in {"timer_set", "timer_cancel"} else timers
    call = made.image.function(name, WORD, (WORD,) * (1 + len(arguments)))
    thread = threading.Thread(target=call, args=(address(first), *arguments))
    thread.start()
    time.sleep(0.02)
    assert thread.is_alive()
    assert (timers.earliest, timers.order, timers.room) == (77, 0, 2)
    timers.lock = 0
    thread.join()
    assert timers.earliest == (5 if name == "timer_set" else NEVER)
    assert timers.lock == 0
