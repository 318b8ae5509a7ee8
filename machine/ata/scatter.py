"""Tables of descriptors in guest memory (PRD tables, AHCI's PRDT) as what a transfer's bytes come from or go to.

Each descriptor is read once. A piece takes a bounded number of them, so hostile tables cost little at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dbt.machine.memory import DmaPort, Memory

BUDGET = 256  # descriptors of a piece, or as many as one unit (a sector) needs


class TableShort(Exception):
    """The table describes less memory than the transfer has data."""


class Piece:
    """Memory for a part of a transfer: `views` in order, `length` bytes in all. Give it back with `release`.

    `places`: what of it is written, for those who observe the memory.
    """

    __slots__ = ("length", "places", "views")

    def __init__(
        self, views: Sequence[memoryview], length: int, places: Sequence[tuple[Memory, int, int]] = ()
    ) -> None:
        self.views = views
        self.length = length
        self.places = places

    def release(self) -> None:
        """The transfer is over."""
        self.views = ()
        for memory, at, count in self.places:
            if memory.observers:
                memory.written(at, count)


class Source:
    """Where a transfer's memory is."""

    def take(self, want: int, unit: int, *, to_memory: bool) -> Piece | None:
        """The next `want` bytes or fewer, in units; None: not yet. DmaError if it is no memory, or TableShort."""
        raise NotImplementedError

    def back(self, count: int) -> None:
        """The last `count` bytes of the piece that was taken last are taken again."""
        raise NotImplementedError


class Local(Source):
    """A drive's own buffer."""

    def __init__(self, data: bytearray) -> None:
        self._view = memoryview(data)
        self._at = 0

    def take(self, want: int, unit: int, *, to_memory: bool) -> Piece:
        """A slice."""
        del unit, to_memory
        part = self._view[self._at : self._at + want]
        self._at += len(part)
        return Piece([part], len(part))

    def back(self, count: int) -> None:
        """Step back."""
        self._at -= count


class Scratch(Source):
    """Memory that nobody looks at, for verifying."""

    def __init__(self, size: int) -> None:
        self._view = memoryview(bytearray(size))

    def take(self, want: int, unit: int, *, to_memory: bool) -> Piece:
        """The same bytes again and again."""
        del unit, to_memory
        part = self._view[:want]
        return Piece([part], len(part))

    def back(self, count: int) -> None:
        """Nothing is used up."""


class Scatter(Source):
    """`fetch(index)` gives descriptors from `index` on as (address, length), some at a time; none at the end."""

    def __init__(self, dma: DmaPort, fetch: Callable[[int], list[tuple[int, int]]]) -> None:
        self._dma = dma
        self._fetch = fetch
        self._fetched: list[tuple[int, int]] = []  # from the start of the last piece on
        self._next = 0  # index of the descriptor that is fetched next
        self._at = 0  # in `_fetched`
        self._offset = 0  # in that descriptor's memory
        self.taken = 0  # bytes

    @property
    def exhausted(self) -> bool:
        """Whether all memory of the table was taken."""
        return self._at == len(self._fetched) and not self._more()

    def _more(self) -> bool:
        """Fetch descriptors; whether there are any."""
        new = self._fetch(self._next)
        self._next += len(new)
        self._fetched += new
        return bool(new)

    def take(self, want: int, unit: int, *, to_memory: bool) -> Piece:
        """See Source."""
        fetched, at, offset = self._fetched, self._at, self._offset
        del fetched[:at]
        self._at = at = 0
        runs: list[list[int]] = []  # [address, length], neighbours joined
        have = steps = following = 0
        while have < want and (steps < BUDGET or have < unit):
            if at == len(fetched) and not self._more():
                raise TableShort
            address, length = fetched[at]
            address += offset
            part = length - offset
            if part > want - have:
                part = want - have
                offset += part
            else:
                at += 1
                offset = 0
            if address == following and runs:
                runs[-1][1] += part
            else:
                runs.append([address, part])
            following = address + part
            have += part
            steps += 1
        self._at, self._offset = at, offset
        if have < want and (excess := have % unit):
            self._step_back(excess)
            have -= excess
            while excess >= runs[-1][1]:
                excess -= runs.pop()[1]
            runs[-1][1] -= excess
        places = self._dma.scattered(runs, writable=to_memory)
        self.taken += have
        return Piece([memory.view[at : at + count] for memory, at, count in places], have, places if to_memory else ())

    def back(self, count: int) -> None:
        """See Source."""
        self.taken -= count
        self._step_back(count)

    def _step_back(self, count: int) -> None:
        while count > self._offset:
            count -= self._offset
            self._at -= 1
            self._offset = self._fetched[self._at][1]
        self._offset -= count
