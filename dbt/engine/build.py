"""The supervisor's side of the worker: ask it, show its progress, start it anew where it ended. The cold path.

The worker is a process of its own: LLVM aborts on errors, and must not take the guest with it. It stays for a moment
after each request, since one missing stencil is often followed by others. A request takes a worker that has nothing to
do; another one is started where all are busy, which is so while regions are compiled beside the guest.

Signals are blocked while there is an exchange, so that none ends it in its middle. They are looked at: one that would
end this process ends the waiting, and one that users send does where the worker is silent.
"""

from __future__ import annotations

import os
import signal
import sys
from _thread import allocate_lock
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dbt.errors import InternalError, UserError

from .cache import say_once
from .children import last_words
from .spawn import held_signals, start_worker
from .transport import Channel, Ended

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .cache import Job, Store

BAR: Final = 30  # columns of the progress bar
ATTEMPTS: Final = 3  # workers that may end in the middle of the same request
ENDS: Final = 6  # workers of this process that may end in the middle of a request; then there is no other
SILENCE: Final = 120.0  # seconds without a word after which a worker is taken for dead
LISTENING: Final = 1.0  # the same, once the user wants to stop
KEPT: Final = 2  # idle workers
LAST_WORDS: Final = 4000  # bytes of what a worker has complained about
_STOPPING: Final = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}
_HARMLESS: Final = {
    signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU,
}  # fmt: skip


class WorkerEnded(Exception):
    """The worker ended in the middle of a request; the text is the last that it, or LLVM, has said."""

    def __str__(self) -> str:
        said = super().__str__()
        return f"the compiler process ended ({said})" if said else "the compiler process ended"


class Interrupted(Exception):
    """A signal that has arrived is more urgent than the answer, which nobody waits for any more."""


class Answer(NamedTuple):
    """What the worker has to say to a request for files.

    files: contents of those that are not in the cache, None where one is there again; failed: why by the number of a
    stencil; trouble: lines to say, by their kind.
    """

    files: dict[str, bytes | None]
    failed: dict[int, str]
    trouble: dict[str, str]


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
    """A worker process, of the process that started it and for one build in one cache."""

    def __init__(self, store: Store) -> None:
        """Start it. Raises WorkerEnded where that cannot be done."""
        self.build = store.folder or store.build_name
        self.owner = os.getpid()
        self.busy = True  # with the request that it is started for
        self._reused = False
        self._heard = False  # something about the request
        self._quiet_until = 0
        self.known: dict[str, bytes] = {}  # files that are not in the cache and that it has
        self._before: set[int] = set()
        try:
            connection, self._log = start_worker()
        except OSError as error:
            raise WorkerEnded(f"it cannot be started: {error}") from error
        self._channel = Channel(connection, self._idle)
        self.send(("hello", store.root, store.build_name))

    def begin(self) -> None:
        """Another request comes: what was complained about before is not about this one."""
        self.busy = self._reused = True
        self._heard = False
        self._quiet_until = os.fstat(self._log).st_size

    def close(self) -> None:
        """Let it go; it ends when it notices."""
        self._channel.close()
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    @property
    def usable(self) -> bool:
        """Whether it waits for a request."""
        try:
            return not self._channel.closed and not self._channel.ready()  # all it says unasked is that it goes
        except Ended:
            return False

    def send(self, message: object) -> None:
        """Send a message. Raises WorkerEnded, Interrupted."""
        try:
            with self._exchange():
                self._channel.send(message)
        except WorkerEnded:
            if not self._gone:
                raise

    def ready(self) -> bool:
        """Whether there is a message. Raises WorkerEnded."""
        with self._exchange():
            return self._channel.ready()

    def lend(self, kept: dict[str, bytes]) -> dict[str, bytes]:
        """Of the files that are not in the cache those that it does not have; they are to be sent to it."""
        new = {name: data for name, data in kept.items() if self.known.get(name) is not data}
        self.known = dict(kept)
        return new

    def learn(self, answer: Answer) -> None:
        """What it has made it has."""
        self.known.update({name: data for name, data in answer.files.items() if data is not None})

    def receive(self, *, wait: bool = True) -> Any:
        """Wait for a message: (kind, …). Raises WorkerEnded, Interrupted; InternalError, UserError if it says so.

        None if there is none and the caller does not `wait`.

        A worker that has ended before it took the request has said good-bye, in words or not.
        """
        message: Any = ("alive",)
        while message[0] == "alive":  # signals arrive in between
            try:
                with self._exchange():
                    if not wait and not self._channel.ready():
                        return None
                    message = self._channel.receive()
            except WorkerEnded:
                if self._gone:
                    return ("bye",)
                raise
            self._heard = True
        if message[0] == "failed":
            raise InternalError(message[1])
        if message[0] == "refused":
            raise UserError(*message[1:])
        return message

    @property
    def _gone(self) -> bool:
        """Whether it may have ended before the request came: it did nothing for so long."""
        return self._reused and not self._heard

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        try:
            with held_signals() as self._before:
                yield
        except Ended:
            raise WorkerEnded(self._last_words()) from None

    def _idle(self, silence: float) -> None:
        pending = signal.sigpending() - self._before - _HARMLESS
        if pending and (_deadly(pending) or (silence > LISTENING and pending & _STOPPING)):
            raise Interrupted
        if silence > SILENCE:
            raise Ended

    def _last_words(self) -> str:
        if self._log < 0:
            return ""
        size = os.fstat(self._log).st_size
        start = max(size - LAST_WORDS, self._quiet_until)
        return last_words(os.pread(self._log, LAST_WORDS, start).decode("utf-8", "replace"))


def _deadly(pending: set[int]) -> bool:
    """Whether one of these signals ends the process once it is let through: it has its default action."""
    handled = 0
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith((b"SigIgn:", b"SigCgt:")):
                handled |= int(line.split()[1], 16)
    return any(not handled >> (number - 1) & 1 for number in pending)


class _Pool:
    """The workers of one process."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.lock = allocate_lock()
        self.one_at_a_time = allocate_lock()  # requests for files: CPUs may run in several threads
        self.workers: list[Worker] = []
        self.ends = 0


_pools: list[_Pool] = []


def _pool() -> _Pool:
    """The pool of this process; what a fork has inherited is the parent's."""
    if not _pools or _pools[0].owner != os.getpid():
        for worker in _pools[0].workers if _pools else ():
            worker.close()
        _pools[:] = [_Pool()]
    return _pools[0]


def take_worker(store: Store) -> Worker:
    """A worker for this store, which is the caller's until it is given back. Raises WorkerEnded, Interrupted."""
    pool = _pool()
    if pool.ends >= ENDS:
        raise WorkerEnded(f"as {ENDS} others before; no other is started")
    with pool.lock:
        for worker in [worker for worker in pool.workers if not worker.busy]:
            if worker.build == (store.folder or store.build_name) and worker.usable:
                worker.begin()
                return worker
            worker.close()
            pool.workers.remove(worker)
    try:
        with held_signals():
            worker = Worker(store)
    except WorkerEnded:
        pool.ends += 1
        raise
    with pool.lock:
        pool.workers.append(worker)
    return worker


def give_back(worker: Worker, *, ended: bool = False, broken: bool = False) -> None:
    """The caller has its answer. `ended`: it will not get one; `broken`: it does not want one any more."""
    pool = _pool()
    if worker.owner != pool.owner:
        worker.close()
        return
    with pool.lock:
        pool.ends += ended
        worker.busy = False
        idle = sum(not other.busy for other in pool.workers)
        if ended or broken or idle > KEPT:
            worker.close()
            with suppress(ValueError):
                pool.workers.remove(worker)


def run_worker(store: Store, jobs: Sequence[Job]) -> Answer:
    """Have the worker do `jobs` (see worker.py) and wait for it. A worker that ends is started anew, a few times.

    Raises InternalError where that does not help or the jobs fail, UserError where the user can mend it, Interrupted.
    """
    names = "; ".join(" ".join(word for word in job if isinstance(word, str)) for job in jobs)[:80]
    last: WorkerEnded | None = None
    with _pool().one_at_a_time:
        for _ in range(ATTEMPTS):
            try:
                answer = _request(store, jobs)
            except WorkerEnded as error:
                last = error
                continue
            if last is not None:
                say_once("worker", f"{last} in the middle of a job ({names}) and was started again", quiet=store.quiet)
            return answer
    raise InternalError(f"{last} in the middle of a job ({names}), {ATTEMPTS} times") from last


def _request(store: Store, jobs: Sequence[Job]) -> Answer:
    worker = take_worker(store)
    progress = Progress(quiet=store.quiet)
    ended, broken = False, True
    try:
        worker.send(("jobs", jobs, worker.lend(store.kept)))
        while True:
            kind, *rest = worker.receive()
            if kind == "done":
                broken = False
                answer = Answer(*rest)
                worker.learn(answer)
                return answer
            if kind == "bye":
                broken = False
                worker.close()
                return _request(store, jobs)  # it had waited long enough, and went just as it was asked again
            progress.update(*rest)
    except (InternalError, UserError):
        broken = False
        raise
    except WorkerEnded:
        ended = True
        raise
    finally:
        progress.clear()
        give_back(worker, ended=ended, broken=broken)
