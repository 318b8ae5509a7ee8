"""Data between the medium, or a drive's buffer, and memory, piece by piece without copies.

A piece that the medium refuses is tried again in halves, so that what precedes the bad sector arrives and the error
names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.ata.scatter import TableShort
from dbt.machine.block import READ, BlockError
from dbt.machine.block.buffers import cut, gather, scatter
from dbt.machine.errors import DmaError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.ata.drive import Drive
    from dbt.machine.ata.scatter import Source

    Failure = BlockError | DmaError | TableShort
    Ended = Callable[["Moving"], None]

PIECE = 2 << 20  # bytes


class Moving:
    """The base. `failure` is None if all went well when `ended(self)` is called; `waiting`: for the host's side."""

    def __init__(self, drive: Drive, memory: Source, ended: Ended) -> None:
        self.drive = drive
        self.memory = memory
        self.waiting = False
        self.failure: Failure | None = None
        self._ended = ended

    def go(self) -> None:
        """Start, or go on after waiting."""
        raise NotImplementedError

    def end(self, failure: Failure | None = None) -> None:
        """Say that it is over."""
        self.failure = failure
        self._ended(self)


class Transfer(Moving):
    """`length` bytes of the medium at `offset`, in units that are moved as a whole."""

    def __init__(
        self,
        drive: Drive,
        operation: int,
        offset: int,
        length: int,
        memory: Source,
        ended: Ended,
        *,
        unit: int = 512,
        flags: int = 0,
    ) -> None:
        super().__init__(drive, memory, ended)
        self.operation = operation
        self.offset = offset
        self.left = length
        self.moved = 0
        self.unit = unit
        self.flags = flags
        self._limit = PIECE
        self._length = 0

    def go(self) -> None:
        """Move the next piece."""
        self.waiting = False
        if not self.left:
            self.end()
            return
        try:
            piece = self.memory.take(min(self.left, self._limit), self.unit, to_memory=self.operation == READ)
        except (DmaError, TableShort) as failure:
            self.end(failure)
            return
        if piece is None:
            self.waiting = True
            return
        self._length = piece.length
        self.drive.submit(self.operation, self.offset, piece, self._landed, self.flags)

    def _landed(self, error: BlockError | None, at_once: bool) -> None:
        length = self._length
        if error is None:
            self.offset += length
            self.left -= length
            self.moved += length
        elif length > self.unit:
            self.memory.back(length)
            self._limit = max(length // 2 // self.unit, 1) * self.unit
        else:
            self.memory.back(length)
            self.end(error)
            return
        if at_once and self.left:
            self.drive.later(self.go)  # not deeper and deeper, and others get the lock
        else:
            self.go()


class Copy(Moving):
    """A buffer to memory, or filled from it."""

    def __init__(self, drive: Drive, data: bytearray, memory: Source, ended: Ended, *, to_memory: bool) -> None:
        super().__init__(drive, memory, ended)
        self.data = data
        self.to_memory = to_memory
        self._done = 0

    def go(self) -> None:
        """Copy as much as the memory's source gives at a time."""
        self.waiting = False
        view = memoryview(self.data)
        try:
            piece = self.memory.take(len(view) - self._done, 1, to_memory=self.to_memory)
        except (DmaError, TableShort) as failure:
            self.end(failure)
            return
        if piece is None:
            self.waiting = True
            return
        part = view[self._done : self._done + piece.length]
        if self.to_memory:
            scatter(part, piece.views)
        else:
            part[:] = gather(cut(piece.views, 0, piece.length))
        piece.release()
        self._done += piece.length
        if self._done < len(view):
            self.drive.later(self.go)
        else:
            self.end()
