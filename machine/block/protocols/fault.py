"""Faults on demand: the nth read, write or flush of the child fails, short or entirely, once or from then on."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING

from dbt.machine.block.buffers import cut
from dbt.machine.block.errors import BadOption, HostError
from dbt.machine.block.node import Protocol
from dbt.machine.block.options import Option

if TYPE_CHECKING:
    from dbt.machine.block.graph import Opening
    from dbt.machine.block.node import Extent
    from dbt.machine.block.request import Vectors

OPERATIONS = ("read", "write", "flush", "discard", "resize")


class Fault(Protocol):
    """Passes everything on to `file`, but for what fails. `seen` counts operations of the kind that may fail."""

    driver = "fault"
    OPTIONS = (
        Option("operation", OPERATIONS, "write", help="what fails (write: write zeroes as well)"),
        Option("at", int, 0, help="the first that fails, counted from 1; 0: none"),
        Option("count", int, 1, help="how many fail; 0: all from then on"),
        Option("error", str, "EIO", help="the error's name, EIO or ENOSPC for example"),
        Option("short", bool, False, help="half of a write is stored before it fails"),
    )

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self.file = opening.child("file")
        self.size = self.file.size
        self.identity = getattr(self.file, "identity", None)
        code = getattr(errno, self.options["error"], None)
        if not isinstance(code, int):
            raise BadOption(self.name, f"there is no error {self.options['error']!r}")
        self.code = code
        self.seen = 0
        self._lock = threading.Lock()

    def _fails(self, operation: str) -> bool:
        if operation != self.options["operation"]:
            return False
        with self._lock:
            self.seen += 1
            first, count = self.options["at"], self.options["count"]
            return bool(first and self.seen >= first and (not count or self.seen < first + count))

    def _meet(self, operation: str, offset: int) -> None:
        if self._fails(operation):
            raise self._error(operation, offset)

    def _error(self, operation: str, offset: int) -> HostError:
        return HostError(self.name, OSError(self.code, ""), doing=operation, offset=offset)

    def read(self, offset: int, length: int, vectors: Vectors) -> None:
        self._meet("read", offset)
        self.file.read(offset, length, vectors)

    def write(self, offset: int, length: int, vectors: Vectors, flags: int = 0) -> None:
        if self._fails("write"):
            half = length // 2 & -512  # disks do not tear sectors
            if self.options["short"] and half:
                self.file.write(offset, half, cut(vectors, 0, half), flags)
                self.size = self.file.size
            raise self._error("write", offset)
        self.file.write(offset, length, vectors, flags)
        self.size = self.file.size

    def flush(self) -> None:
        self._meet("flush", 0)
        self.file.flush()

    def discard(self, offset: int, length: int) -> None:
        self._meet("discard", offset)
        self.file.discard(offset, length)

    def write_zeroes(self, offset: int, length: int, flags: int = 0) -> None:
        self._meet("write", offset)
        self.file.write_zeroes(offset, length, flags)
        self.size = self.file.size

    def status(self, offset: int, length: int) -> Extent:
        return self.file.status(offset, length)

    def resize(self, size: int, *, preallocation: str = "off") -> None:
        self._meet("resize", 0)
        self.file.resize(size, preallocation=preallocation)
        self.size = size


DRIVER = Fault
