"""Memory of this process as storage: for tests, fuzzing and scratch disks. Grows when written beyond its end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dbt.machine.block.buffers import ZEROES, scatter
from dbt.machine.block.errors import HostError
from dbt.machine.block.node import Extent, Protocol
from dbt.machine.block.options import SIZE, Option

if TYPE_CHECKING:
    from dbt.machine.block.graph import Opening
    from dbt.machine.block.request import Vectors

PAGE = len(ZEROES)


class Memory(Protocol):
    """Pages in a dictionary; a page that is not there is zeroes. `limit` bytes of them at most, then ENOSPC."""

    driver = "memory"
    OPTIONS = (
        Option("size", SIZE, 0, help="bytes at first"),
        Option("limit", SIZE, 1 << 30, help="bytes of memory that it may take"),
    )

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self.size = self.options["size"]
        self.identity = ("memory", id(self))
        self._pages: dict[int, bytearray] = {}
        self._lock = threading.Lock()

    def load(self, data: bytes) -> None:
        """Become `data`."""
        self._pages.clear()
        self.size = len(data)
        for at in range(0, len(data), PAGE):
            self._pages[at // PAGE] = bytearray(data[at : at + PAGE].ljust(PAGE, b"\0"))

    def read(self, offset: int, length: int, vectors: Vectors) -> None:
        with self._lock:
            pieces = []
            at, end = offset, offset + length
            while at < end:
                page, start = divmod(at, PAGE)
                count = min(PAGE - start, end - at)
                pieces.append(memoryview(self._pages.get(page, ZEROES))[start : start + count])
                at += count
            scatter(b"".join(pieces), vectors)

    def try_read(self, offset: int, length: int, vectors: Vectors) -> bool:
        self.read(offset, length, vectors)
        return True

    def write(self, offset: int, length: int, vectors: Vectors, flags: int = 0) -> None:
        data = memoryview(b"".join(vectors))
        with self._lock:
            for at, start, count in _pieces(offset, length):
                page = self._pages.get(at)
                if page is None:
                    if (len(self._pages) + 1) * PAGE > self.options["limit"]:
                        raise HostError(self.name, OSError(28, "ENOSPC"), doing="write", offset=offset)
                    page = self._pages[at] = bytearray(PAGE)
                done = at * PAGE + start - offset
                page[start : start + count] = data[done : done + count]
            self.size = max(self.size, offset + length)

    def discard(self, offset: int, length: int) -> None:
        self.write_zeroes(offset, min(length, max(self.size - offset, 0)))

    def write_zeroes(self, offset: int, length: int, flags: int = 0) -> None:
        with self._lock:
            first, last = offset // PAGE, (offset + length) // PAGE
            for at in [page for page in self._pages if first <= page <= last]:
                start, end = max(offset - at * PAGE, 0), min(offset + length - at * PAGE, PAGE)
                if start == 0 and end == PAGE:
                    del self._pages[at]
                elif end > start:
                    self._pages[at][start:end] = bytes(end - start)
            self.size = max(self.size, offset + length)

    def status(self, offset: int, length: int) -> Extent:
        page = offset // PAGE
        there = page in self._pages
        end = (page + 1) * PAGE
        while end < offset + length and (end // PAGE in self._pages) == there:
            end += PAGE
        return Extent(min(end - offset, length), data=there, zero=not there, offset=offset)

    def resize(self, size: int, *, preallocation: str = "off") -> None:
        if size < self.size:
            self.write_zeroes(size, self.size - size)
        self.size = size

    def allocated_size(self) -> int | None:
        return len(self._pages) * PAGE


def _pieces(offset: int, length: int) -> list[tuple[int, int, int]]:
    """(page, start in it, bytes) of a range."""
    pieces = []
    end = offset + length
    while offset < end:
        page, start = divmod(offset, PAGE)
        count = min(PAGE - start, end - offset)
        pieces.append((page, start, count))
        offset += count
    return pieces


DRIVER = Memory
