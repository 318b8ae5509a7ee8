"""What LLVM does for the worker, in child processes: it aborts on internal errors, and must not take the worker along.

A batch whose child dies is halved until the item to blame is alone; it is tried once more, and then it is left out.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import traceback
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LIMIT: Final = 100  # seconds that LLVM may take for a batch
TRIES: Final = 2  # of an item alone
HEARTBEAT: Final = 0.5  # seconds between two signs of life
_OWN_DESCRIPTORS: Final = 1 << 10
_FROM_OUTSIDE: Final = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGALRM, signal.SIGXCPU)


class Outcome(NamedTuple):
    """What a child has to say: a value, or `trouble`, which is `lasting` where trying again would be no better."""

    value: Any
    trouble: str = ""
    lasting: bool = False


class Child:
    """A process that does one thing."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._stream, write_end = os.pipe()
        self._log = os.memfd_create("dragoman-child")
        self.process = os.fork()
        if not self.process:
            _run(work, write_end, self._log)
        os.close(write_end)

    def outcome(self, alive: Callable[[], None]) -> Outcome:
        """Wait for it; `alive` is called now and then."""
        poller = select.poll()
        poller.register(self._stream, select.POLLIN)
        parts = []
        while True:
            if not poller.poll(HEARTBEAT * 1000):
                alive()
                continue
            part = os.read(self._stream, 1 << 20)
            if not part:
                break
            parts.append(part)
        os.close(self._stream)
        _, status = os.waitpid(self.process, 0)
        said = os.pread(self._log, 1 << 16, 0).decode("utf-8", "replace")
        os.close(self._log)
        if not status:
            outcome: Outcome = pickle.loads(b"".join(parts))  # noqa: S301 - from our own child
            return outcome
        return _death(os.waitstatus_to_exitcode(status), said)


def last_words(said: str) -> str:
    """The line in what LLVM, or Python, has complained about that says most; '' if there is none."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = (line for line in lines if line.startswith(("LLVM ERROR:", "error:")) or "Assertion" in line)
    return next(told, lines[-1] if lines else "")


def _death(code: int, said: str) -> Outcome:
    words = last_words(said)
    how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    lasting = -code not in _FROM_OUTSIDE and "out of memory" not in said.lower()
    return Outcome(None, f"LLVM ended with {how}" + (f": {words}" if words else ""), lasting)


def _run(work: Callable[[], object], write_end: int, log: int) -> None:
    """In the child: work, and send the outcome. Never returns."""
    status = 1
    try:
        signal.alarm(LIMIT)
        os.dup2(log, 2)
        os.dup2(write_end, 3)  # the worker's connection is its own: who waits for it sees at once that it ended
        os.closerange(4, _OWN_DESCRIPTORS)
        try:
            outcome = Outcome(work())
        except (MemoryError, OSError) as error:
            outcome = Outcome(None, repr(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = " ".join(f"{type(error).__name__}: {error}".split())
            outcome = Outcome(None, f"{text} ({os.path.basename(where.filename)}:{where.lineno})", lasting=True)
        with open(3, "wb") as stream:
            stream.write(pickle.dumps(outcome))
        status = 0
    finally:
        os._exit(status)


def in_batches(
    batches: Sequence[list[Any]], work: Callable[[list[Any]], object], limit: int, alive: Callable[[], None]
) -> Iterator[tuple[list[Any], Outcome]]:
    """Yield (batch, outcome) of `work`, for `limit` batches at a time; trouble is of a number or key alone."""
    waiting = list(reversed(batches))
    running: list[tuple[Child, list[Any]]] = []
    tried: dict[Any, int] = {}
    while waiting or running:
        while waiting and len(running) < limit:
            batch = waiting.pop()
            running.append((Child(lambda batch=batch: work(batch)), batch))  # type: ignore[misc]
        child, batch = running.pop(0)
        outcome = child.outcome(alive)
        if not outcome.trouble:
            yield batch, outcome
        elif len(batch) > 1:
            middle = len(batch) // 2
            waiting += [batch[:middle], batch[middle:]]
        else:
            tried[batch[0]] = tried.get(batch[0], 0) + 1
            if tried[batch[0]] < TRIES:
                waiting.append(batch)
            else:
                yield batch, outcome
