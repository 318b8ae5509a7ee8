"""Threads that wait for the host, so that nobody else does. They begin when there is something to do."""

from __future__ import annotations

import sys
import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Workers:
    """At most `most` threads, which take jobs in their order."""

    def __init__(self, name: str, most: int = 4) -> None:
        self.name = name
        self.most = most
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False

    def submit(self, job: Callable[[], None]) -> None:
        """Do this soon."""
        with self._changed:
            self._jobs.append(job)
            if len(self._jobs) > self._idle and len(self._threads) < self.most:
                thread = threading.Thread(target=self._work, name=f"{self.name}-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                while not self._jobs:
                    if self._closed:
                        return
                    self._changed.wait()
                self._idle -= 1
                job = self._jobs.popleft()
            try:
                job()
            except Exception:  # noqa: BLE001 - told as one that ends a thread; the others wait for this one's work
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))

    def close(self) -> None:
        """Do what is left, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
