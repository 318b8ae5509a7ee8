"""Tables of descriptors in guest memory (PRD tables, AHCI's PRDT) as what a transfer's bytes come from or go to.

Each descriptor is read once. A piece takes a bounded number of them, so hostile tables cost little at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.errors import DmaError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dbt.machine.memory import DmaPort, Mapping

BUDGET = 256  # descriptors of a piece, or as many as one unit (a sector) needs


class TableShort(Exception):
    """The table describes less memory than the transfer has data."""


class Piece:
    """Memory for a part of a transfer: `views` in order, `length` bytes in all. Give it back with `release`."""

    __slots__ = ("_mappings", "length", "views")

    def __init__(self, views: Sequence[memoryview], length: int, mappings: Sequence[Mapping] = ()) -> None:
        self.views = views
        self.length = length
        self._mappings = mappings

    def release(self) -> None:
        """The transfer is over: what was written to is seen by the memory's observers."""
        for mapping in self._mappings:
            mapping.release()


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

    def _more(self) -> bool:
        """Whether there is another descriptor."""
        if self._at < len(self._fetched):
            return True
        new = self._fetch(self._next)
        self._next += len(new)
        self._fetched += new
        return bool(new)

    @property
    def exhausted(self) -> bool:
        """Whether all memory of the table was taken."""
        return not self._more()

    def take(self, want: int, unit: int, *, to_memory: bool) -> Piece:
        """See Source."""
        del self._fetched[: self._at]
        self._at = 0
        runs: list[list[int]] = []  # [address, length], neighbours joined
        have = steps = 0
        while have < want and (steps < BUDGET or have < unit):
            if not self._more():
                raise TableShort
            address, length = self._fetched[self._at]
            part = min(length - self._offset, want - have)
            address += self._offset
            if runs and sum(runs[-1]) == address:
                runs[-1][1] += part
            else:
                runs.append([address, part])
            have += part
            steps += 1
            if self._offset + part == length:
                self._at += 1
                self._offset = 0
            else:
                self._offset += part
        if have < want and (excess := have % unit):
            self._step_back(excess)
            have -= excess
            while excess >= runs[-1][1]:
                excess -= runs.pop()[1]
            runs[-1][1] -= excess
        piece = self._map(runs, have, writable=to_memory)
        self.taken += have
        return piece

    def _map(self, runs: list[list[int]], length: int, *, writable: bool) -> Piece:
        mappings: list[Mapping] = []
        try:
            for address, count in runs:
                mappings.append(self._dma.map(address, count, writable=writable))
        except DmaError:
            for mapping in mappings:
                mapping.views = [view.toreadonly() for view in mapping.views]
                mapping.release()
            raise
        views = [view for mapping in mappings for view in mapping.views]
        return Piece(views, length, mappings)

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
