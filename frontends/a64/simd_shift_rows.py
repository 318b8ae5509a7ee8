"""Rows of shifts by immediate: immh's highest bit set is the lane's width, the bits below it and immb the amount."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from dbt.frontends.pattern import Asm

from .operands import Imm
from .simd_operands import simd

if TYPE_CHECKING:
    from dbt.ir.types import Type
    from dbt.ir.values import Value

Semantics = TypeVar("Semantics", bound=Callable[..., None])
_PREFIX: Final = ("0001", "001", "01", "1")  # immh for lanes of 8, 16, 32 and 64 bits, without the bits of the amount


def right_shifts(
    pattern: str, *, static: str, where: str = "", asm: Asm, sizes: int = 4
) -> Callable[[Semantics], Semantics]:
    """A row for each lane width; `amount` is one less than the shift, 0 to the width - 1. `where` may name size."""
    return _rows(pattern, static, where, sizes, asm, right=True)


def left_shifts(
    pattern: str, *, static: str, where: str = "", asm: Asm, sizes: int = 4
) -> Callable[[Semantics], Semantics]:
    """A row for each lane width; `amount` is the shift, 0 to the width - 1. `where` may name size."""
    return _rows(pattern, static, where, sizes, asm, right=False)


def _rows(
    pattern: str, static: str, where: str, sizes: int, asm: Asm, *, right: bool
) -> Callable[[Semantics], Semantics]:
    def annotate(function: Semantics) -> Semantics:
        for size in reversed(range(sizes)):
            bits = 8 << size
            text = pattern.replace("immh:immb", f"{_PREFIX[size]} shift:{size + 3}")
            table = tuple(range(bits))[::-1] if right else None
            filtered = where.replace("size", str(size)) or None
            row = simd(
                text,
                static=static,
                where=filtered,
                asm=asm,
                size=size,
                amount=Imm("shift", table=table),
                shown=Imm("shift", table=[bits - i if right else i for i in range(bits)]),
            )
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
