"""Starting the worker process, so that the guest never meets it. The cold path.

It is started through a middle process that ends at once, so that the guest's wait never finds it, in a session of its
own, with nothing inherited but its end of a socket, descriptor 3, and a memory file for its standard error: what LLVM
has to say before it aborts is nothing that may come between messages.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # the module signal makes an enum of each number: 0.3 ms a call
import fcntl
import os
import resource
import signal
import socket
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

HIDDEN = 32  # our descriptors are among so many below the limit: dbt/linux/process.py keeps guests off them
LOG = "dragoman-worker"
_ALL: Final = frozenset(int(number) for number in signal.valid_signals())


@contextmanager
def held_signals() -> Iterator[set[int]]:
    """All signals are blocked meanwhile; gives those that were blocked before."""
    blocked: set[int] = _signal.pthread_sigmask(_signal.SIG_BLOCK, _ALL)
    try:
        yield blocked
    finally:
        # Not SIG_SETMASK: a guest may have blocked signals that Python says are none (32 and 33).
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _ALL - blocked)


def start_worker() -> tuple[socket.socket, int]:
    """Start dbt.engine.worker; our end of its socket, and the memory file it complains in. Raises OSError.

    All signals are blocked by the caller.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            log = os.memfd_create(LOG)
            before = signal.SIGCHLD in signal.sigpending()
            middle = os.fork()
        except BaseException:
            ours.close()
            raise
        if not middle:
            _start(theirs.fileno(), log)
        with suppress(ChildProcessError):  # a guest that ignores SIGCHLD has no children to wait for
            os.waitpid(middle, 0)
        if not before:
            _take_back(middle)
    hidden = _hide(ours.detach())
    return socket.socket(fileno=hidden), _hide(log)


def _take_back(middle: int) -> None:
    """Take the SIGCHLD of the middle process, which the guest knows nothing of. One of its own children's stays."""
    found = signal.sigtimedwait([signal.SIGCHLD], 0) if signal.SIGCHLD in signal.sigpending() else None
    if found is None:
        return
    events = os.WEXITED | os.WSTOPPED | os.WCONTINUED | os.WNOHANG | os.WNOWAIT
    with suppress(ChildProcessError):
        # What was sent for two is one signal (signal(7)), so the one that is for the guest has to be sent again.
        if found.si_pid != middle or os.waitid(os.P_ALL, 0, events) is not None:
            os.kill(os.getpid(), signal.SIGCHLD)


def _hide(given: int) -> int:
    """The same descriptor at a number that guests cannot reach."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    start = max(limit - HIDDEN, 0) if limit > 0 else 1 << 20
    try:
        number = fcntl.fcntl(given, fcntl.F_DUPFD_CLOEXEC, start)
    except OSError:
        return given
    os.close(given)
    return number


def _start(fd: int, log: int) -> None:
    """In the middle process: start the worker and end. Never returns."""
    try:
        if os.fork():
            os._exit(0)
        os.setsid()
        _keep_niceness()
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        log = fcntl.fcntl(log, fcntl.F_DUPFD_CLOEXEC, 4)
        fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 4)
        os.dup2(fd, 3)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1):
            os.dup2(null, standard)
        os.dup2(log, 2)
        os.closerange(4, min(1 << 16, os.sysconf("SC_OPEN_MAX")))
        environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")}
        os.execve(sys.executable, [sys.executable, "-I", "-c", BOOTSTRAP], environment)  # noqa: S606 - no shell
    finally:
        os._exit(127)


def _keep_niceness() -> None:
    """Give the nice value to the session: the kernel makes a group of it, in which alone it would count (sched(7))."""
    niceness = os.nice(0)
    if niceness > 0:
        with suppress(OSError), open("/proc/self/autogroup", "w", encoding="ascii") as file:
            file.write(str(niceness))


# The worker finds dbt as this process did, also where the launcher put a folder on the path by hand.
BOOTSTRAP = f"""
import sys
sys.path += [folder for folder in {sys.path!r} if folder not in sys.path]
from dbt.engine.worker import main
main()
"""
