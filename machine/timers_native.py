"""Timers that native code shares (machine/native/timers.py), behind the same interface.

Each timer's deadline is in a struct, and the heap is native: Python sets and cancels as native code does, by one call.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING
from weakref import WeakSet

from dbt.machine.native.builtin import builtins
from dbt.machine.native.timers import (
    NEVER,
    Entry,
    List,
    timer_cancel,
    timer_set,
    timers_later,
    timers_move,
    timers_pop,
)
from dbt.machine.timers import MOST, within

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.clock import Clock
    from dbt.machine.native.builtin import Builtins

FIRST_ROOM = 64  # timers
EARLIEST, ORDER = (List.offset(name) // 8 for name in ("earliest", "order"))
DEADLINE = Entry.offset("deadline") // 8


class NativeTimer:
    """A timer; `address`: of its Entry."""

    __slots__ = ("__weakref__", "_cancel", "_held", "_set", "_struct", "_timers", "_words", "address", "callback")

    def __init__(self, timers: NativeTimers, callback: Callable[[], None]) -> None:
        self._timers = timers  # so that the list is there
        self._held = timers.held
        self.callback = callback
        self._struct = (ctypes.c_uint64 * (Entry.size // 8))()
        self._words = memoryview(self._struct).cast("B").cast("Q")
        self.address = ctypes.addressof(self._struct)
        entry = Entry.at(self.address)
        entry.deadline, entry.timers = NEVER, timers.address
        self._set = timers.builtins.bind(timer_set, self.address)
        self._cancel = timers.builtins.bind(timer_cancel, self.address)

    @property
    def deadline(self) -> int | None:
        """See Timer."""
        deadline: int = self._words[DEADLINE]
        return None if deadline == NEVER else deadline

    def at(self, deadline: int) -> None:
        """See Timer."""
        if not 0 <= deadline <= MOST:
            deadline = within(deadline)
        self._set(deadline)
        self._held[self.address] = self

    def cancel(self) -> None:
        """See Timer."""
        self._cancel()
        self._held.pop(self.address, None)

    def share(self) -> int:
        """Its Entry's address, for native code that sets and cancels it: from now on it lives as long as the clock."""
        self._timers.shared[self.address] = self
        return self.address


class NativeTimers:
    """The List, and which timer an Entry is."""

    def __init__(self, builtins: Builtins) -> None:
        self.builtins = builtins
        self.held: dict[int, NativeTimer] = {}  # those that Python has set
        self.shared: dict[int, NativeTimer] = {}
        self._all: WeakSet[NativeTimer] = WeakSet()
        self._struct = (ctypes.c_uint64 * (List.size // 8))()
        self._words = memoryview(self._struct).cast("B").cast("Q")
        self.address = ctypes.addressof(self._struct)
        self._words[EARLIEST] = NEVER
        self._pop, self._later, self._move = (
            builtins.bind(function, self.address) for function in (timers_pop, timers_later, timers_move)
        )
        self._room = 0
        self._more_room(FIRST_ROOM)

    def _more_room(self, room: int) -> None:
        heap = (ctypes.c_uint64 * room)()
        self._move(ctypes.addressof(heap), room)
        self._heap, self._room = heap, room

    def timer(self, callback: Callable[[], None]) -> NativeTimer:
        """See Timers."""
        if len(self._all) >= self._room:
            self._more_room(2 * self._room)
        timer = NativeTimer(self, callback)
        self._all.add(timer)
        return timer

    def earliest(self) -> int | None:
        """See Timers."""
        deadline: int = self._words[EARLIEST]
        return None if deadline == NEVER else deadline

    def later(self, now: int) -> int | None:
        """See Timers."""
        deadline = self._later(now)
        return None if deadline == NEVER else deadline

    def run_due(self, clock: Clock) -> None:
        """See Timers."""
        words = self._words
        last = words[ORDER]
        while words[EARLIEST] <= (now := clock.now):
            address = self._pop(now, last)
            if not address:
                return
            (self.held.pop(address, None) or self.shared[address]).callback()


def native_timers() -> NativeTimers | None:
    """A list, if there is native code."""
    made = builtins()
    return NativeTimers(made) if made else None
