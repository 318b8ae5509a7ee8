"""What is where: `status` asked again and again, through the chain of backing files, like neighbours put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.block.node import Extent, Format

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbt.machine.block.node import Node


class Piece:
    """An extent at `start`, and how deep in the chain it was found: 0 is the image itself."""

    __slots__ = ("depth", "extent", "start")

    def __init__(self, start: int, extent: Extent, depth: int) -> None:
        self.start = start
        self.extent = extent
        self.depth = depth

    @property
    def end(self) -> int:
        """Where the next begins."""
        return self.start + self.extent.length

    def joins(self, other: Piece) -> bool:
        """Whether `other`, which follows, is more of the same."""
        a, b = self.extent, other.extent
        if (a.data, a.zero, a.allocated, a.compressed, self.depth) != (
            b.data, b.zero, b.allocated, b.compressed, other.depth
        ):  # fmt: skip
            return False
        if a.offset is None or b.offset is None:
            return a.offset is None and b.offset is None
        return not a.data or a.offset + a.length == b.offset


def find(node: Node, offset: int, length: int) -> Piece:
    """What is at `offset`, in this node or below it."""
    depth = 0
    while True:
        extent = node.status(offset, length)
        length = min(extent.length, length)
        backing = node.backing if isinstance(node, Format) else None
        if extent.allocated or backing is None:
            extent.length = length
            if not extent.allocated:
                extent.data, extent.zero, extent.offset = False, True, None
            return Piece(offset, extent, depth)
        depth += 1
        if offset >= backing.size:  # the backing ends sooner: zeroes from here on
            return Piece(offset, Extent(length, data=False, zero=True), depth)
        length = min(length, backing.size - offset)
        node = backing


def pieces(node: Node, start: int = 0, end: int | None = None) -> Iterator[Piece]:
    """Everything from `start` to `end`, the disk's end if not given."""
    end = node.size if end is None else end
    last: Piece | None = None
    while start < end:
        piece = find(node, start, end - start)
        start = piece.end
        if last is not None and last.joins(piece):
            last.extent.length += piece.extent.length
            continue
        if last is not None:
            yield last
        last = piece
    if last is not None:
        yield last


def data_ranges(
    node: Node, granule: int, *, start: int = 0, end: int | None = None, own: bool = False
) -> Iterator[tuple[int, int]]:
    """(start, end) of what may be anything but zero, widened to whole granules, without overlaps.

    `own`: what the node itself decides, its zeroes too, and nothing of what is below.
    """
    stop = node.size if end is None else end
    low = high = start
    for piece in pieces(node, start, stop):
        wanted = (piece.depth == 0 and piece.extent.allocated) if own else not piece.extent.zero
        if not wanted:
            continue
        first, last = piece.start // granule * granule, min(-(-piece.end // granule) * granule, stop)
        first = max(first, start)
        if first > high:
            if high > low:
                yield low, high
            low = first
        high = max(high, last)
    if high > low:
        yield low, high
