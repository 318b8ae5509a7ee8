"""The flattened view of a graph of regions: sorted sections without overlap, found by bisection.

Regions are painted from the one that wins to the one that loses, each only where nothing is yet; so a region costs a
bisection and the gaps that it fills. A view after a change is made of the one before it: what the changed addresses
show is painted anew, up to the ends of the sections and holes that they are in or next to.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING

from dbt.machine.errors import MapError
from dbt.machine.memory.extents import Extents, clipped
from dbt.machine.memory.regions import MMIO, Alias, Container, Direct, Region, ROMDevice, Windows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dbt.machine.memory.ram import Memory

VISITS = 100_000  # regions looked at for one view: more is a graph that shows itself in itself too often


@dataclass(frozen=True, slots=True)
class Section:
    """Addresses `start` to `end` (exclusive) show `region` from `offset` on.

    `memory`: where its bytes are, if it has some; `reads_direct`, `writes_direct`: whether that access needs no call.
    `device`: whom to call otherwise. Neither: writes to ROM, which are dropped.
    """

    start: int
    end: int
    region: Region
    offset: int
    readonly: bool
    reads_direct: bool
    writes_direct: bool
    memory: Memory | None = field(compare=False)
    device: MMIO | None = field(compare=False)
    delta: int = field(compare=False)  # address + delta is the offset in the region


class FlatView:
    """An immutable view of `size` addresses; `find` takes O(log n).

    `targets` are the sections and holes (None) from the `starts` of the same index on. The last one is a hole, of size
    0 where the space is full, so that every address, also a wrong one, has an entry.
    """

    __slots__ = ("size", "starts", "targets")

    def __init__(self, size: int, starts: list[int], targets: list[Section | None]) -> None:
        self.size = size
        self.starts = starts
        self.targets = targets

    @property
    def sections(self) -> tuple[Section, ...]:
        """All of them, sorted."""
        return tuple(section for section in self.targets if section is not None)

    def find(self, address: int) -> Section | None:
        """The section at `address`; None in a hole."""
        return self.targets[bisect_right(self.starts, address) - 1]

    def hole_end(self, address: int) -> int:
        """Where the next section behind an `address` in a hole starts, or the space ends."""
        index = bisect_right(self.starts, address)
        return self.starts[index] if index < len(self.starts) else self.size


def flatten(root: Region, size: int) -> FlatView:
    """The view of `root` in a space of `size` bytes. MapError if it has too many regions."""
    return repaint(FlatView(size, [0], [None]), root, ((0, size),))[0]


def repaint(
    view: FlatView, root: Region, extents: Extents
) -> tuple[FlatView, tuple[Section, ...], tuple[Section, ...]]:
    """The view after the changes at `extents`, and the sections that only the old and only the new one has, sorted.

    MapError as above. The work is in proportion to what is shown there, but for copies of the view's two lists.
    """
    starts, targets = view.starts.copy(), view.targets.copy()
    removed: dict[Section, None] = {}
    added: dict[Section, None] = {}
    for low, high in clipped(extents, 0, view.size):
        first, last = bisect_right(starts, low) - 1, bisect_right(starts, high) - 1
        if first and starts[first] == low:  # what ends here may go on now
            first -= 1
        at_end = last + 1 == len(starts)
        start, end = starts[first], view.size if at_end else starts[last + 1]
        painter = _Painter()
        painter.paint(root, 0, start, end, readonly=False)
        sections = painter.merged()
        _change(removed, added, filter(None, targets[first : last + 1]))
        _change(added, removed, sections)
        new_starts, new_targets = _with_holes(sections, start, end, at_end=at_end)
        starts[first : last + 1] = new_starts
        targets[first : last + 1] = new_targets
    by_start = attrgetter("start")
    return (
        FlatView(view.size, starts, targets),
        tuple(sorted(removed, key=by_start)),
        tuple(sorted(added, key=by_start)),
    )


def _change(noted: dict[Section, None], undone: dict[Section, None], sections: Iterable[Section]) -> None:
    """Note sections, but for those whose opposite is noted."""
    for section in sections:
        if section in undone:
            del undone[section]
        else:
            noted[section] = None


def _with_holes(
    sections: list[Section], start: int, end: int, *, at_end: bool
) -> tuple[list[int], list[Section | None]]:
    """The lists of a view for a part of it."""
    starts: list[int] = []
    targets: list[Section | None] = []
    for section in sections:
        if section.start > start:
            starts.append(start)
            targets.append(None)
        starts.append(section.start)
        targets.append(section)
        start = section.end
    if at_end or start < end:
        starts.append(start)
        targets.append(None)
    return starts, targets


class _Painter:
    """Sections of one extent, in the making."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.shown: list[tuple[Region, int, bool]] = []  # region, address of its offset 0, readonly
        self.visits = 0

    def paint(self, region: Region, base: int, low: int, high: int, *, readonly: bool) -> None:
        """Show `region`, whose offset 0 is at `base`, within `low` to `high`."""
        low, high = max(low, base), min(high, base + region.size)
        if low >= high or not region.enabled:
            return
        self.visits += 1
        if self.visits > VISITS:
            raise MapError(f"the view has over {VISITS:,} regions at {region.name}", "aliases of aliases multiply")
        if isinstance(region, Container):
            for _, at, child in region.placements:
                start = base + at
                if start < high and low < start + child.size:  # most are elsewhere, where there are many
                    self.paint(child, start, low, high, readonly=readonly)
        elif isinstance(region, Windows):
            for start, end in region.ranges:
                if base + start < high and low < base + end:
                    self.paint(region.target, base, max(low, base + start), min(high, base + end), readonly=readonly)
        elif isinstance(region, Alias):
            self.paint(region.target, base - region.offset, low, high, readonly=readonly or region.readonly)
        else:
            self._fill(region, base, low, high, readonly)

    def _fill(self, region: Region, base: int, low: int, high: int, readonly: bool) -> None:
        index = bisect_right(self.starts, low)
        if index and self.ends[index - 1] > low:
            low = self.ends[index - 1]
        while low < high:
            end = min(high, self.starts[index]) if index < len(self.starts) else high
            if low < end:
                self.starts.insert(index, low)
                self.ends.insert(index, end)
                self.shown.insert(index, (region, base, readonly))
                index += 1
            if index == len(self.starts):
                return
            low = self.ends[index]
            index += 1

    def merged(self) -> list[Section]:
        """The sections, neighbours that show the same region in the same way as one."""
        spans: list[tuple[int, int, tuple[Region, int, bool]]] = []
        for start, end, shown in zip(self.starts, self.ends, self.shown, strict=True):
            if spans and spans[-1][1] == start and spans[-1][2] == shown:
                spans[-1] = (spans[-1][0], end, shown)
            else:
                spans.append((start, end, shown))
        return [_section(start, end, *shown) for start, end, shown in spans]


def _section(start: int, end: int, region: Region, base: int, readonly: bool) -> Section:
    device = region if isinstance(region, MMIO) else None
    memory, reads, writes = None, False, False
    if isinstance(region, Direct):
        memory, reads, writes = region.memory, True, region.writable and not readonly
    elif isinstance(region, ROMDevice):
        memory, reads = region.memory, region.direct
    return Section(start, end, region, start - base, readonly, reads, writes, memory, device, -base)
