"""Advanced SIMD three same: shifts of each lane by the signed low byte of another register's lane. C4.1.96.25.

A positive amount shifts left, a negative one right; both may exceed the lane's width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .operands import V
from .simd_common import OR_BHSD, OR_D, saturated, shape
from .simd_operands import simd
from .simd_text import text

if TYPE_CHECKING:
    from dbt.ir.values import Value

    from .lifter import Lifter


def amounts(b: Value) -> tuple[Value, Value]:
    """Lanes of shift amounts: to the left (negative as a large unsigned number) and one less than to the right."""
    bits = b.type.bits
    left = (b << (bits - 8)).ashr(bits - 8)
    return left, ~left  # -n - 1


def shift_left(a: Value, left: Value) -> Value:
    """0 once all bits are gone."""
    return left.ult(a.type.bits).select(a << left, 0)


def shift_right(a: Value, less: Value, U: int, rounding: int) -> Value:
    """Right by less + 1 with an amount of up to 128; rounding adds the last bit that is shifted out."""
    bits = a.type.bits
    once = less.ult(bits).select(a.lshr(less), 0) if U else a.ashr(less.umin(bits - 1))
    result = once.lshr(1) if U else once.ashr(1)
    return result + (once & 1) if rounding else result


@simd("0 Q U s 1110 size:2 1 Rm:5 010 R 0 1 Rn:5 Rd:5", static="Q U s size R", where=OR_D, asm=text("{U:s|u}{R:|r}shl"))
def SHL_v(cpu: Lifter, Q: int, U: int, s: int, size: int, R: int, Rm: V, Rn: V, Rd: V) -> None:
    """SSHL, USHL, SRSHL, URSHL."""
    t = shape(Q, s, size)
    a = Rn.read(t)
    left, less = amounts(Rm.read(t))
    Rd.write(left.slt(0).select(shift_right(a, less, U, R), shift_left(a, left)))


def saturating_left(a: Value, left: Value, U: int) -> tuple[Value, Value]:
    """a << left with saturation, and the mask of the lanes that needed it; left is not negative."""
    bits = a.type.bits
    shifted = shift_left(a, left)
    back = shifted.lshr(left) if U else shifted.ashr(left)
    lost = left.ult(bits).select(back, 0).ne(a)
    limit = a.builder.const(a.type, -1) if U else a.ashr(bits - 1) ^ ((1 << (bits - 1)) - 1)
    return lost.select(limit, shifted), lost


@simd(
    "0 Q U s 1110 size:2 1 Rm:5 010 R 1 1 Rn:5 Rd:5",
    static="Q U s size R",
    where=OR_BHSD,
    asm=text("{U:s|u}q{R:|r}shl"),
)
def QSHL_v(cpu: Lifter, Q: int, U: int, s: int, size: int, R: int, Rm: V, Rn: V, Rd: V) -> None:
    """SQSHL, UQSHL, SQRSHL, UQRSHL."""
    t = shape(Q, s, size)
    a = Rn.read(t)
    left, less = amounts(Rm.read(t))
    right = left.slt(0)
    shifted, lost = saturating_left(a, left, U)
    Rd.write(right.select(shift_right(a, less, U, R), shifted))
    saturated(cpu, lost & ~right)
