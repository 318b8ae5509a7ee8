"""The supervisor's side of the worker: start it, show its progress, hand on what went wrong. The cold path.

The worker is a process of its own: LLVM aborts on errors, and must not take the guest with it. It is started through
a middle process that ends at once, so that the guest's wait never meets it, in a session of its own, with nothing
inherited but its pipe.
"""

from __future__ import annotations

import os
import signal
import sys

from dbt.errors import InternalError, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cache import Store

BAR = 30  # columns of the progress bar


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


def run_worker(store: Store, jobs: list[str]) -> None:
    """Run the worker on `jobs` (see worker.py) and wait for it. Raises InternalError if it fails."""
    read_end, write_end = os.pipe()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        middle = os.fork()
        if not middle:
            _start(store, jobs, write_end)
        os.close(write_end)
        while True:
            try:
                os.waitpid(middle, 0)
                break
            except InterruptedError:
                continue
        _drop_child_signal(blocked)
        ended, message = _follow(read_end, Progress(quiet=store.quiet))
    finally:
        os.close(read_end)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    if not ended:
        raise InternalError(f"the compiler process failed on '{'; '.join(jobs)[:200]}'\n{message.strip()}")


def _drop_child_signal(before: set[signal.Signals] | set[int]) -> None:
    """Take back the SIGCHLD of the middle process, which the guest knows nothing of."""
    if signal.SIGCHLD not in before:
        signal.sigtimedwait([signal.SIGCHLD], 0)


def _start(store: Store, jobs: list[str], write_end: int) -> None:
    """In the middle process: start the worker and end. Never returns."""
    try:
        if os.fork():
            os._exit(0)
        os.setsid()
        for number in signal.valid_signals():
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                try:
                    signal.signal(number, signal.SIG_DFL)
                except (OSError, ValueError):
                    continue
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(write_end, 3)
        for fd in (0, 1):
            os.dup2(null, fd)
        os.dup2(3, 2)
        os.set_inheritable(3, True)
        os.closerange(4, min(65536, os.sysconf("SC_OPEN_MAX")))
        environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")}
        command = [sys.executable, "-I", "-c", _BOOTSTRAP, store.folder, *jobs]
        os.execve(sys.executable, command, environment)  # noqa: S606 - no shell is wanted
    finally:
        os._exit(127)


# The worker finds dbt as this process did, also where the launcher put a folder on the path by hand.
_BOOTSTRAP = f"""
import sys
sys.path += [folder for folder in {sys.path!r} if folder not in sys.path]
from dbt.engine.worker import main
main(sys.argv[1:])
"""


def _follow(read_end: int, progress: Progress) -> tuple[bool, str]:
    """Read the worker's lines to the end: (whether it said 'done', everything that was not for us)."""
    rest = b""
    ended = False
    said: list[str] = []
    while True:
        part = os.read(read_end, 65536)
        if not part:
            break
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            text = line.decode("utf-8", "replace")
            word, _, tail = text.partition(" ")
            if word == "@progress":
                done, total, what = tail.split(" ", 2)
                progress.update(int(done), int(total), what)
            elif word == "@done":
                ended = True
            elif word == "@error":
                progress.clear()
                raise UserError(tail)
            else:
                said.append(text)
    progress.clear()
    return ended, "\n".join(said[-40:])
