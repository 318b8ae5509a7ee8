"""Tables in memory: arrays of numbers in the host's byte order, which part of them is dirty, and how they are kept.

A cache holds at most as many clean tables as fit its size; dirty ones stay until the metadata is written (metadata.py),
which is asked for when they alone would fill the cache.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbt.machine.block.node import Node

CODES = {8: "B", 16: "H", 32: "I", 64: "Q"}


class Table:
    """A table at `offset` of the file. Entries `low` to `high` are dirty; `new`: nothing on disk refers to it yet."""

    __slots__ = ("high", "low", "new", "offset", "words")

    def __init__(self, offset: int, words: array[int], *, new: bool = False) -> None:
        self.offset = offset
        self.words = words
        self.new = new
        self.low, self.high = (0, len(words)) if new else (len(words), 0)

    def touch(self, start: int, end: int) -> None:
        """Entries start to end - 1 have changed."""
        self.low = min(self.low, start)
        self.high = max(self.high, end)

    @property
    def dirty(self) -> bool:
        """Whether the disk has something else."""
        return self.high > self.low

    def write(self, file: Node) -> None:
        """Put what is dirty on the disk, in whole sectors: a torn sector would tear entries."""
        size = self.words.itemsize
        sector = max(512 // size, 1)
        low, high = self.low - self.low % sector, min(len(self.words), -(-self.high // sector) * sector)
        part = self.words[low:high]
        part.byteswap()
        file.pwrite(self.offset + low * size, part.tobytes())
        self.low, self.high, self.new = len(self.words), 0, False


def load(file: Node, offset: int, size: int, bits: int = 64) -> array[int]:
    """The big-endian numbers at `offset`, `size` bytes of them. The table must be in the file entirely."""
    words = array(CODES[bits])
    words.frombytes(file.pread(offset, size))
    words.byteswap()
    return words


def store(file: Node, offset: int, words: array[int]) -> None:
    """Write a whole table."""
    swapped = words[:]
    swapped.byteswap()
    file.pwrite(offset, swapped.tobytes())


def zeroes(count: int, bits: int = 64) -> array[int]:
    """A table of zeroes."""
    return array(CODES[bits], bytes(count * bits // 8))


class Cache(dict[int, Table]):
    """Tables by their index, oldest first; at most `limit` of them, or all that are dirty."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = max(limit, 2)

    def make_room(self) -> None:
        """Drop old clean tables so that one more fits."""
        if len(self) < self.limit:
            return
        spare = len(self) - self.limit + 1
        for index in [index for index, table in self.items() if not table.dirty][:spare]:
            del self[index]

    def full_of_dirt(self) -> bool:
        """Whether only writing makes room."""
        return len(self) >= self.limit and sum(table.dirty for table in self.values()) * 4 >= self.limit * 3
