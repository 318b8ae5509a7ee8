"""Sets of offsets as sorted (start, end) that neither overlap nor touch: what of a region has changed.

A set of many parts becomes the whole between its first and its last: more is looked at then, and never less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Extents = tuple[tuple[int, int], ...]

MOST = 32  # parts


def union(*sets: Iterable[tuple[int, int]]) -> Extents:
    """What is in one of them at least."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(part for parts in sets for part in parts):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return ((joined[0][0], joined[-1][1]),) if len(joined) > MOST else tuple(joined)


def clipped(extents: Extents, low: int, high: int) -> Extents:
    """What is from `low` on and before `high`."""
    return tuple((max(start, low), min(end, high)) for start, end in extents if start < high and low < end)


def moved(extents: Extents, by: int) -> Extents:
    """All of it, further up."""
    return tuple((start + by, end + by) for start, end in extents)
