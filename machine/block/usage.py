"""What checks, measures and creations of formats that map clusters have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.block.errors import BadOption, ImageCorrupt
from dbt.machine.block.node import Measure

from dbt.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dbt.machine.block.node import CheckResult, Format

MAX_CHECKED = 1 << 30  # clusters of a file that is checked, a byte each


class Usage:
    """Which units of a file are used, for checks: who uses one twice, who lies behind the end, what nobody uses."""

    def __init__(self, node: Format, unit: int, result: CheckResult) -> None:
        self.unit = unit
        self.result = result
        self.limit = node.file.size
        self.units = -(-self.limit // unit)
        if self.units > MAX_CHECKED:
            raise ImageCorrupt(node.name, f"the file has {self.units} clusters, more than can be checked")
        self.used = bytearray(self.units)

    def take(self, offset: int, length: int, what: str) -> bool:
        """Note that `what` is there; False, and a corruption, if it cannot be."""
        if offset + length > self.limit:
            self.corrupt(f"{what} lies behind the end of the file", offset)
            return False
        first, last = offset // self.unit, -(-(offset + length) // self.unit)
        if any(self.used[first:last]):
            self.corrupt(f"{what} overlaps with something else", offset)
            return False
        self.used[first:last] = b"\1" * (last - first)
        return True

    def corrupt(self, text: str, offset: int | None = None) -> None:
        """One more corruption."""
        self.result.corruptions += 1
        self.result.note(text, offset)

    def count_leaks(self) -> int:
        """Note what nobody uses; the number of units at the end that are such."""
        used_end = self.used.rfind(1) + 1
        self.result.leaks = self.used.count(0)
        self.result.image_end = used_end * self.unit
        if self.result.leaks:
            unused = f"{counted(self.result.leaks, 'cluster')} not used by anything"
            self.result.note(unused, self.used.find(0) * self.unit)
        return self.units - used_end


def measured(size: int, cluster: int, data: Iterable[tuple[int, int]], tables: int, extra: int = 0) -> Measure:
    """The size of an image with `tables` bytes that are always there, and `extra` for each cluster."""
    last, stored = -1, 0
    for offset, length in data:
        first, end = max(offset // cluster, last + 1), -(-(offset + length) // cluster)
        if end > first:
            stored += end - first
            last = end - 1
    each = cluster + extra
    return Measure(tables + stored * each, tables + -(-size // cluster) * each)


def power_of_two(value: int, low: int, high: int, what: str, name: str) -> None:
    """BadOption unless `value` is a power of two from `low` to `high`."""
    if value & value - 1 or not low <= value <= high:
        raise BadOption(name, f"{what} {value} is no power of two between {low} and {high}")
