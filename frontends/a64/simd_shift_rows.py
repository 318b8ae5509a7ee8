"""Rows of shifts by immediate: immh's highest bit set is the lane's width, the bits below it and immb the amount."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..operands import Imm
from .rows import a64

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.ir.types import Type
    from dbt.ir.values import Value

_PREFIX = ("0001", "001", "01", "1")  # immh for lanes of 8, 16, 32 and 64 bits, without the bits of the amount


def right_shifts[Semantics: Callable[..., None]](
    pattern: str, *, static: str, where: str = "", sizes: int = 4, feature: str | None = None
) -> Callable[[Semantics], Semantics]:
    """A row for each lane width; `amount` is one less than the shift, 0 to the width - 1. `where` may name size."""
    return _rows(pattern, static, where, sizes, feature, right=True)


def left_shifts[Semantics: Callable[..., None]](
    pattern: str, *, static: str, where: str = "", sizes: int = 4, feature: str | None = None
) -> Callable[[Semantics], Semantics]:
    """A row for each lane width; `amount` is the shift, 0 to the width - 1. `where` may name size."""
    return _rows(pattern, static, where, sizes, feature, right=False)


def _rows(
    pattern: str, static: str, where: str, sizes: int, feature: str | None, *, right: bool
) -> Callable[[Any], Any]:
    def annotate(function: Any) -> Any:  # noqa: ANN401 -- as the decorator a64
        for size in reversed(range(sizes)):
            bits = 8 << size
            text = pattern.replace("immh:immb", f"{_PREFIX[size]} shift:{size + 3}")
            table = tuple(range(bits))[::-1] if right else None
            filtered = where.replace("size", str(size)) or None
            row = a64(text, static=static, where=filtered, feature=feature, size=size, amount=Imm("shift", table=table))
            function = row(function)
        return function

    return annotate


def spread(amount: Imm, t: Type) -> Value:
    """The immediate in every lane."""
    value = amount.read(t.bits)
    return value.splat(t.lanes) if t.lanes else value


def shifted_right(value: Value, amount: Imm, U: int, *, rounding: bool = False) -> Value:
    """value >> (amount + 1), so that a shift by the whole width needs no case of its own."""
    once = value.lshr(spread(amount, value.type)) if U else value.ashr(spread(amount, value.type))
    result = once.lshr(1) if U else once.ashr(1)
    return result + (once & 1) if rounding else result
