"""Timers, native: a heap of deadlines, which Python and native code set, cancel and take what is due from.

`earliest` is the first word of the list: whoever runs CPUs compares it with the clock. A spin lock is held for the few
steps of each function, so CPUs of any thread may call them. See machine/timers.py for the same in Python.
"""

from __future__ import annotations

from dbt.engine.host_x86_64 import SYS_SCHED_YIELD
from dbt.native import (
    AnyPtr,
    Ptr,
    Struct,
    addr,
    atomic_load,
    atomic_store,
    cas,
    cast,
    native,
    pause,
    struct,
    syscall,
    trap,
    u32,
    u64,
)  # fmt: skip

NEVER = (1 << 64) - 1
PATIENCE = 200  # looks at a lock that is taken


@struct
class List(Struct):
    """The timers of a clock that are set: a binary heap by deadline, then by the order in which they were set."""

    earliest: u64  # deadline; NEVER: none is set
    order: u64  # how often timers were set
    heap: Ptr[AnyPtr]
    count: u64
    room: u64  # of the heap: at least the timers that there are
    lock: u32


@struct
class Entry(Struct):
    """A timer. `place`: in the heap, while it is set."""

    deadline: u64  # NEVER: it is not set
    order: u64
    place: u64
    timers: AnyPtr  # the List


@native(inline=True)
def take(timers: List) -> None:
    """Take the lock."""
    lock = addr(timers.lock)
    spins: u64 = 0
    while cas(lock, u32(0), u32(1)) != 0:
        while atomic_load(lock):
            pause()
            spins += 1
            if spins % PATIENCE == 0:  # who holds it may be waiting for this CPU
                syscall(SYS_SCHED_YIELD)


@native(inline=True)
def give_back(timers: List) -> None:
    """Say what is the earliest, and let go of the lock."""
    first: u64 = NEVER
    if timers.count:
        first = cast(Entry, timers.heap[0]).deadline
    atomic_store(addr(timers.earliest), first)
    atomic_store(addr(timers.lock), u32(0))


@native(inline=True)
def earlier(a: Entry, b: Entry) -> bool:
    """Whether `a` expires before `b`."""
    return a.deadline < b.deadline or (a.deadline == b.deadline and a.order < b.order)


@native(inline=True)
def put(timers: List, place: u64, entry: Entry) -> None:
    """Let a timer be at a place of the heap."""
    timers.heap[place] = cast(AnyPtr, entry)
    entry.place = place


@native(inline=True)
def sift(timers: List, entry: Entry, place: u64) -> None:
    """Bring a timer to its place in the heap, from one that is free."""
    while place:
        parent = cast(Entry, timers.heap[(place - 1) >> 1])
        if earlier(parent, entry):
            break
        put(timers, place, parent)
        place = (place - 1) >> 1
    child = 2 * place + 1
    while child < timers.count:
        below = cast(Entry, timers.heap[child])
        if child + 1 < timers.count and earlier(cast(Entry, timers.heap[child + 1]), below):
            child += 1
            below = cast(Entry, timers.heap[child])
        if earlier(entry, below):
            break
        put(timers, place, below)
        place = child
        child = 2 * place + 1
    put(timers, place, entry)


@native(inline=True)
def remove(timers: List, entry: Entry) -> None:
    """Take a timer that is set out of the heap."""
    timers.count -= 1
    last = cast(Entry, timers.heap[timers.count])
    if cast(u64, last) != cast(u64, entry):
        sift(timers, last, entry.place)
    entry.deadline = NEVER


@native(export=True)
def timer_set(entry: Entry, deadline: u64) -> None:
    """Let a timer expire at a deadline (not NEVER) instead of whatever was set; the same one changes no order."""
    timers = cast(List, entry.timers)
    take(timers)
    was = entry.deadline
    if deadline != was:
        place = entry.place
        if was == NEVER:
            if timers.count == timers.room:
                trap()
            place = timers.count
            timers.count += 1
        timers.order += 1
        entry.order = timers.order
        entry.deadline = deadline
        sift(timers, entry, place)
    give_back(timers)


@native(export=True)
def timer_cancel(entry: Entry) -> None:
    """Let a timer not expire."""
    timers = cast(List, entry.timers)
    take(timers)
    if entry.deadline != NEVER:
        remove(timers, entry)
    give_back(timers)


@native(export=True)
def timers_pop(timers: List, now: u64, last: u64) -> u64:
    """The address of the first timer that is due now and was set up to `last`, which is set no longer; 0: none."""
    take(timers)
    found: u64 = 0
    if timers.count and cast(Entry, timers.heap[0]).deadline <= now:
        if cast(Entry, timers.heap[0]).order <= last:
            found = cast(u64, timers.heap[0])
        else:
            for place in range(1, timers.count):
                entry = cast(Entry, timers.heap[place])
                due = entry.deadline <= now and entry.order <= last
                if due and (found == 0 or earlier(entry, cast(Entry, found))):
                    found = cast(u64, timers.heap[place])
        if found:
            remove(timers, cast(Entry, found))
    give_back(timers)
    return found


@native(export=True)
def timers_later(timers: List, now: u64) -> u64:
    """The first deadline after now, whatever is due; NEVER: there is none."""
    take(timers)
    first: u64 = NEVER
    for place in range(timers.count):
        deadline = cast(Entry, timers.heap[place]).deadline
        if deadline > now:
            first = min(first, deadline)
    give_back(timers)
    return first


@native(export=True)
def timers_move(timers: List, heap: u64, room: u64) -> None:
    """Let the heap be in a larger place."""
    take(timers)
    new_heap = cast(Ptr[AnyPtr], heap)
    for place in range(timers.count):
        new_heap[place] = timers.heap[place]
    timers.heap = new_heap
    timers.room = room
    give_back(timers)


ROOTS = (timer_set, timer_cancel, timers_pop, timers_later, timers_move)
