"""Threads that do something to a guest that runs in this one."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import dbt


def when(happened: Callable[[], bool], action: Callable[[], object]) -> threading.Thread:
    """A thread that waits until something has happened, and acts then."""

    def wait() -> None:
        while not happened():
            time.sleep(0.001)
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def when_stored(cpu: dbt.CPU, address: int, action: Callable[[], object]) -> threading.Thread:
    """When the guest has changed the double word there."""
    before = cpu.memory.read(address, 8)
    return when(lambda: cpu.memory.read(address, 8) != before, action)


def ctrl_c(owner: dbt.CPU | dbt.Program) -> threading.Thread:
    """SIGINT, as soon as the guest runs."""
    boundary: Any = owner._cpu.boundary
    return when(lambda: bool(boundary._runner), lambda: os.kill(os.getpid(), signal.SIGINT))
