"""Standard output and error of the command: what cannot be written there never shows as a traceback.

Results that are lost make the command fail, and that is said once (`Lost`). Complaints that nobody can read change
nothing. Descriptors that were closed from the start are not ours: a file that is opened later may get their numbers.

This module is on the warm path.
"""

from __future__ import annotations

import io
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

STANDARD = (0, 1, 2)
CLOSED = -1


class Lost(Exception):
    """Standard output could not be written: why; empty for a reader who has had enough (EPIPE)."""


class Stream(io.RawIOBase):
    """What is behind sys.stdout or sys.stderr: the descriptor with that number, if it is open now."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._fd = number if is_open(number) else CLOSED

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return self._fd != CLOSED and os.isatty(self._fd)

    def put(self, data: Buffer) -> int:
        """Write all of it. Raises OSError."""
        view = memoryview(data)
        size = len(view)
        while view:
            view = view[os.write(self._fd, view) :]
        return size


class Results(Stream):
    """Raises Lost once; after that there is nobody to write for."""

    _lost = False

    def write(self, data: Buffer) -> int:
        if not self._lost:
            try:
                return self.put(data)
            except BrokenPipeError:
                self._lost = True
                raise Lost("") from None
            except OSError as error:  # a full disk, for example: what came so far must not pass for all of it
                self._lost = True
                raise Lost(error.strerror) from None
        return len(memoryview(data))


class Complaints(Stream):
    """Takes everything."""

    def write(self, data: Buffer) -> int:
        try:
            return self.put(data)
        except OSError:
            return len(memoryview(data))


def is_open(number: int) -> bool:
    """Whether there is such a descriptor."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def use_streams() -> None:
    """Have sys.stdout and sys.stderr made of the classes above, also where Python has none since they are closed."""
    results = io.BufferedWriter(Results(1))
    sys.stdout = io.TextIOWrapper(results, "utf-8", "surrogateescape", line_buffering=results.isatty())
    errors = Complaints(2)
    sys.stderr = io.TextIOWrapper(errors, "utf-8", "backslashreplace", write_through=True)


def occupy() -> None:
    """Take the numbers of closed standard descriptors, so that no file gets them and what libraries print."""
    while (fd := os.open(os.devnull, os.O_RDWR)) in STANDARD:
        pass
    os.close(fd)


def say_lost(lost: Lost) -> None:
    """Say why output was lost, if there is something to say."""
    if lost.args[0]:
        sys.stderr.write(f"dragoman: output: {lost.args[0]}\n")
