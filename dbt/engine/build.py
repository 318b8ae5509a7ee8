"""The supervisor's side of the worker: start it, show its progress, hand on what went wrong. The cold path.

The worker is a process of its own: LLVM aborts on errors, and must not take the guest with it. It is started through
a middle process that ends at once, so that the guest's wait never meets it, in a session of its own, with nothing
inherited but its end of a socket. It stays for a moment after each request, since one missing stencil is often
followed by others.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import sys
from _thread import allocate_lock

from dbt.errors import InternalError, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .cache import Store

ENDED = "the compiler process ended"
BAR = 30  # columns of the progress bar
HIDDEN = 32  # our descriptors are among so many below the limit: dbt/linux/process.py keeps guests off them


class Progress:
    """One line on a terminal, drawn over itself, and taken away in the end."""

    def __init__(self, *, quiet: bool) -> None:
        self.shown = not quiet and sys.stderr is not None and sys.stderr.isatty()
        self.drawn = False

    def update(self, done: int, total: int, text: str) -> None:
        """Draw `done` of `total`."""
        if self.shown:
            full = BAR * done // max(total, 1)
            bar = "#" * full + "." * (BAR - full)
            sys.stderr.write(f"\r\x1b[Kdragoman: {text} [{bar}] {done}/{total}")
            sys.stderr.flush()
            self.drawn = True

    def clear(self) -> None:
        """Leave an empty line."""
        if self.drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self.drawn = False


class Worker:
    """A connection to a worker process, of the process that made it and for one cache folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.owner = os.getpid()
        self._socket = start_process(folder, "worker")
        self._rest = b""
        self.served = 0  # requests that were answered

    @property
    def usable(self) -> bool:
        """Whether this process may use it, and it has not ended."""
        if self.owner != os.getpid():
            return False
        try:
            return self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        """Let it go; it ends when it notices."""
        self._socket.close()

    def request(self, jobs: Iterable[str], progress: Progress) -> str | None:
        """Have jobs done: None if they were, else what the worker said. Raises UserError for what the user can mend."""
        said: list[str] = []
        try:
            self._socket.sendall("\t".join(jobs).encode() + b"\n")
            while True:
                for line in self._lines():
                    word, _, tail = line.partition(" ")
                    if word == "@progress":
                        done, total, what = tail.split(" ", 2)
                        progress.update(int(done), int(total), what)
                    elif word == "@done":
                        self.served += 1
                        return None
                    elif word == "@error":
                        raise UserError(tail)
                    elif word == "@failed":
                        return "\n".join(said[-40:])
                    else:
                        said.append(line)
        except (BrokenPipeError, ConnectionResetError, EOFError):
            return "\n".join([ENDED, *said[-40:]])
        finally:
            progress.clear()

    def _lines(self) -> list[str]:
        part = self._socket.recv(65536)
        if not part:
            raise EOFError
        *lines, self._rest = (self._rest + part).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]


_workers: list[Worker] = []
_one_at_a_time = allocate_lock()  # CPUs may run in several threads


def run_worker(store: Store, jobs: list[str]) -> None:
    """Have the worker do `jobs` (see worker.py) and wait for it. Raises InternalError if it fails."""
    with _one_at_a_time:
        _run_worker(store, jobs)


def _run_worker(store: Store, jobs: list[str]) -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        before = signal.SIGCHLD in signal.sigpending()
        worker = _worker_for(store)
        served = worker.served
        trouble = worker.request(jobs, Progress(quiet=store.quiet))
        if trouble is not None and trouble.startswith(ENDED) and served:
            # It had waited long enough, and went just as it was asked again.
            worker.close()
            _workers.clear()
            worker = _worker_for(store)
            trouble = worker.request(jobs, Progress(quiet=store.quiet))
        if not before and signal.SIGCHLD not in blocked:
            signal.sigtimedwait([signal.SIGCHLD], 0)  # of the middle process, which the guest knows nothing of
    finally:
        # Not SIG_SETMASK: a guest may have blocked signals that Python says are none (32 and 33).
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals() - blocked)
    if trouble is not None:
        worker.close()
        _workers.clear()
        raise InternalError(f"the compiler process failed on '{'; '.join(jobs)[:200]}'\n{trouble.strip()}")


def _worker_for(store: Store) -> Worker:
    """The worker of this process for this folder, started if need be."""
    for worker in _workers:
        if worker.folder == store.folder and worker.usable:
            return worker
        worker.close()
    worker = Worker(store.folder)
    _workers[:] = [worker]
    return worker


def start_process(folder: str, module: str) -> socket.socket:
    """Start `main(folder)` of a module of this package in a process of its own; returns our end of its socket, fd 3.

    All signals are blocked by the caller, who also takes back the SIGCHLD of the middle process.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        middle = os.fork()
        if not middle:
            _start(folder, module, theirs.fileno())
    while True:
        try:
            os.waitpid(middle, 0)
            break
        except InterruptedError:
            continue
    return _hide(ours)


def _hide(given: socket.socket) -> socket.socket:
    """The same socket at a number that guests cannot reach."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    start = max(limit - HIDDEN, 0) if limit > 0 else 1 << 20
    try:
        number = fcntl.fcntl(given, fcntl.F_DUPFD_CLOEXEC, start)
    except OSError:
        return given
    with given:
        return socket.socket(fileno=number)


def _start(folder: str, module: str, fd: int) -> None:
    """In the middle process: start the worker and end. Never returns."""
    try:
        if os.fork():
            os._exit(0)
        os.setsid()
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.dup2(fd, 3)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1):
            os.dup2(null, standard)
        os.dup2(3, 2)  # what LLVM has to say when it aborts
        os.closerange(4, min(1 << 16, os.sysconf("SC_OPEN_MAX")))
        environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")}
        command = [sys.executable, "-I", "-c", _BOOTSTRAP, folder, module]
        os.execve(sys.executable, command, environment)  # noqa: S606 - no shell is wanted
    finally:
        os._exit(127)


# The worker finds dbt as this process did, also where the launcher put a folder on the path by hand.
_BOOTSTRAP = f"""
import sys
sys.path += [folder for folder in {sys.path!r} if folder not in sys.path]
from importlib import import_module
import_module("dbt.engine." + sys.argv[2]).main(sys.argv[1])
"""
