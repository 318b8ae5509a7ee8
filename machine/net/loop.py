"""The thread in which a back end waits for the host: for its descriptors and its timers.

The machine's lock is held while callbacks run, each by itself, and never while the thread waits. Descriptors are
watched, changed and forgotten from any thread under the lock; what is watched must not block.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from typing import TYPE_CHECKING

from dbt.machine.clock import Clock, Timer

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

IN, OUT, GONE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP | select.EPOLLERR
FOREVER = 1 << 62
CLOSING_SECONDS = 5


class Loop:
    """`lock` is the machine's. Time is the host's, in nanoseconds, unless a `clock` is given, which tests move."""

    def __init__(self, lock: AbstractContextManager[object], clock: Clock | None = None, name: str = "network") -> None:
        self.lock = lock
        self.clock = clock or Clock(time.monotonic_ns, native=False)
        self.clock.start()
        self.closed = False
        self._follows = clock is None
        self._epoll = select.epoll()
        self._callbacks: dict[int, tuple[int, Callable[[int], None]]] = {}  # by descriptor; numbered
        self._watches = 0
        self._until = 0  # the time to which the thread sleeps; 0 while it is awake
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, IN)
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    # Under the lock, from any thread

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call back when one of `events` (or GONE) is there."""
        self._watches += 1
        self._callbacks[fd] = self._watches, callback
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        """Watch for other events; 0: only for GONE."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Watch no longer; before the descriptor is closed."""
        if self._callbacks.pop(fd, None) is not None:
            with contextlib.suppress(OSError, ValueError):  # closed already
                self._epoll.unregister(fd)

    def timer(self, callback: Callable[[], None]) -> Timer:
        """A timer that is not set."""
        return self.clock.timer(callback)

    def after(self, timer: Timer, nanoseconds: int) -> None:
        """Let it expire so much later than now."""
        deadline = self.clock.now + nanoseconds
        timer.at(deadline)
        if deadline < self._until:
            self._rouse()

    # The thread

    def _rouse(self) -> None:
        os.eventfd_write(self._wake, 1)

    def _serve(self) -> None:
        while not self.closed:
            with self.lock:
                timeout = None
                watches = self._watches
                self._until = FOREVER
                if self._follows and (deadline := self.clock.next_deadline()) is not None:
                    self._until = deadline
                    timeout = max(deadline - self.clock.now, 0) / 1e9 + 0.0005
            events = self._epoll.poll(timeout)
            self._until = 0
            for fd, event in events:
                if fd == self._wake:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._wake)
                    continue
                with self.lock:
                    number, callback = self._callbacks.get(fd, (0, None))
                    # What was forgotten meanwhile calls nobody, nor does what has its number now: that is asked next.
                    if callback is not None and number <= watches and not self.closed:
                        callback(event)
            if self._follows:
                with self.lock:
                    if not self.closed:
                        self.clock.run_due()

    def close(self) -> None:
        """End the thread. Not under the lock. Descriptors stay their owner's."""
        if self.closed:
            return
        self.closed = True
        self._rouse()
        self._thread.join(CLOSING_SECONDS)
        if not self._thread.is_alive():
            self._epoll.close()
            os.close(self._wake)
