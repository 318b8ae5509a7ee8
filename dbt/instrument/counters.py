"""Memory of the host that inserted code writes and Python reads: counters, and rings of records."""

from __future__ import annotations

import ctypes
import weakref
from typing import TYPE_CHECKING, Final

from dbt.engine import hostmem
from dbt.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

_WORD: Final = 8
_CELLS: Final = 1 << 16  # of one piece of memory


class Counter:
    """A 64-bit number that inserted code adds to and Python reads; it wraps."""

    __slots__ = ("_cell", "_owner", "address")

    def __init__(self, address: int, owner: Counters) -> None:
        self.address: Final = address  # of the host
        self._owner = owner  # of the memory
        self._cell = ctypes.c_uint64.from_address(address)

    @property
    def value(self) -> int:
        return int(self._cell.value)

    @value.setter
    def value(self, value: int) -> None:
        self._cell.value = value

    def __repr__(self) -> str:
        return f"<counter {self.value}>"


class Counters:
    """Counters by key, made when they are first asked for. Keys are what a plugin likes: addresses, names."""

    def __init__(self) -> None:
        self._cells: dict[Hashable, Counter] = {}
        self._pieces: list[tuple[int, int]] = []
        self._next = self._end = 0
        weakref.finalize(self, _unmap, self._pieces)

    def __getitem__(self, key: Hashable) -> Counter:
        found = self._cells.get(key)
        if found is None:
            if self._next == self._end:
                self._next = hostmem.map_anonymous(_CELLS * _WORD)
                self._end = self._next + _CELLS * _WORD
                self._pieces.append((self._next, _CELLS * _WORD))
            found = self._cells[key] = Counter(self._next, self)
            self._next += _WORD
        return found

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)

    def values(self) -> dict[Hashable, int]:
        """All of them as they are now."""
        return {key: counter.value for key, counter in self._cells.items()}

    def clear(self) -> None:
        """Set all to 0."""
        for counter in self._cells.values():
            counter.value = 0


def _unmap(pieces: list[tuple[int, int]]) -> None:
    for address, size in pieces:
        hostmem.unmap_memory(address, size)


class Ring:
    """Records of `fields` numbers each, written by inserted code; `drain` gets them in batches.

    It is drained when it is full, and whenever `flush` is called. No record is lost.
    """

    def __init__(
        self, fields: int, drain: Callable[[list[tuple[int, ...]]], object], *, records: int = 1 << 14
    ) -> None:
        if fields < 1 or records < 1:
            raise UserError(f"a ring of {records} records of {fields} fields is not possible", "Give numbers from 1.")
        self.fields: Final = fields
        self._drain: Final = drain
        self._size = _WORD * (fields * records + 2)
        self.address = hostmem.map_anonymous(self._size)  # words: where the next record goes, where the ring ends
        weakref.finalize(self, _unmap, [(self.address, self._size)])
        self._first = self.address + 2 * _WORD
        self._head = (ctypes.c_uint64 * 2).from_address(self.address)
        self._head[:] = [self._first, self._first + _WORD * fields * records]

    def flush(self) -> None:
        """Hand over what was recorded since the last time."""
        used = int(self._head[0]) - self._first
        if used:
            words = memoryview(ctypes.string_at(self._first, used)).cast("Q")
            self._head[0] = self._first
            step = self.fields
            self._drain(list(zip(*(words[i::step] for i in range(step)), strict=True)))

    def clear(self) -> None:
        """Forget what was recorded since the last time."""
        self._head[0] = self._first
