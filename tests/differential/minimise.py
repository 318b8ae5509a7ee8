"""Makes a case that shows a difference small: registers and memory become 0 where that changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .case import Case


def minimise(case: Case, differs: Callable[[Case], bool]) -> Case:
    """The smaller case, which still `differs`."""
    for name, value in case.registers.items():
        for smaller in (0, value & 0xFF, value & (1 << 64) - 1):
            if smaller == value:
                continue
            shorter = replace(case, registers={**case.registers, name: smaller})
            if differs(shorter):
                case = shorter
                break
    return _without_memory(case, differs, 0, len(case.data))


def _without_memory(case: Case, differs: Callable[[Case], bool], start: int, end: int) -> Case:
    """Zeroes [start, end), or what can be of it, down to pieces of 16 bytes."""
    cleared = replace(case, data=case.data[:start] + bytes(end - start) + case.data[end:])
    if differs(cleared):
        return cleared
    if end - start <= 16:
        return case
    middle = (start + end) // 2
    return _without_memory(_without_memory(case, differs, start, middle), differs, middle, end)
