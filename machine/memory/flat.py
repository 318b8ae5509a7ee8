"""The flattened view of a graph of regions: sorted sections without overlap, found by bisection.

Regions are painted from the one that wins to the one that loses, each only where nothing is yet; so a region costs a
bisection and the gaps that it fills.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dbt.machine.errors import MapError
from dbt.machine.memory.regions import MMIO, Alias, Container, Direct, Region, ROMDevice, Windows

if TYPE_CHECKING:
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
    """An immutable view. `sections` are sorted; `find` takes O(log n)."""

    __slots__ = ("sections", "size", "starts", "targets")

    def __init__(self, sections: tuple[Section, ...], size: int) -> None:
        self.sections = sections
        self.size = size
        # The same with the holes, so that every address, also a wrong one, has an entry: None is a hole.
        self.starts: list[int] = []
        self.targets: list[Section | None] = []
        end = 0
        for section in sections:
            if section.start > end or not self.starts:
                self.starts.append(end)
                self.targets.append(None)
            self.starts.append(section.start)
            self.targets.append(section)
            end = section.end
        self.starts.append(end)
        self.targets.append(None)

    def find(self, address: int) -> Section | None:
        """The section at `address`; None in a hole."""
        return self.targets[bisect_right(self.starts, address) - 1]

    def hole_end(self, address: int) -> int:
        """Where the next section behind an `address` in a hole starts, or the space ends."""
        index = bisect_right(self.starts, address)
        return self.starts[index] if index < len(self.starts) else self.size


def flatten(root: Region, size: int) -> FlatView:
    """The view of `root` in a space of `size` bytes."""
    painter = _Painter()
    painter.paint(root, 0, 0, min(size, root.size), readonly=False)
    return FlatView(tuple(painter.merged()), size)


class _Painter:
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
