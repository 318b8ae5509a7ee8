"""Advanced SIMD (scalar) shift by immediate: conversions to and from fixed point. Arm ARM C4.1.96.15 and C4.1.96.6.

The number of fraction bits is an operand: it becomes a factor of 2^n by which the value is multiplied, which is exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.ir.types import Type

from .operands import Imm, V
from .simd_common import as_int, broadcast, float_shape
from .simd_operands import simd
from .simd_text import text

if TYPE_CHECKING:
    from dbt.ir.values import Value

    from .lifter import Lifter

_FRACTION: Final = {32: 23, 64: 52}  # bits of a significand
_BIAS: Final = {32: 127, 64: 1023}


def power(exponent: int, bits: int) -> int:
    """The bits of 2.0 ** exponent."""
    return _BIAS[bits] + exponent << _FRACTION[bits]


def factor(sz: int, sign: int) -> Imm:
    """2 ** (sign * fraction bits), as bits of the lane; the field is the lane's width less the fraction bits."""
    bits = 32 << sz
    return Imm("shift", table=[power(sign * (bits - i), bits) for i in range(bits)])


def fraction(sz: int) -> Imm:
    """The fraction bits, for text."""
    bits = 32 << sz
    return Imm("shift", table=range(bits, 0, -1))


def scale(imm: Imm, t: Type) -> Value:
    """The factor in every lane."""
    return broadcast(imm.read(t.bits).bitcast(t.lane), t)


@simd(
    "0 Q U s 11110 01 shift:5 11100 1 Rn:5 Rd:5",
    static="Q U s",
    where="Q or not s",
    sz=0,
    by=factor(0, -1),
    shown=fraction(0),
    asm=text("{U:s|u}cvtf", "Rd Rn shown"),
)
@simd(
    "0 Q U s 11110 1 shift:6 11100 1 Rn:5 Rd:5",
    static="Q U s",
    where="Q",
    sz=1,
    by=factor(1, -1),
    shown=fraction(1),
    asm=text("{U:s|u}cvtf", "Rd Rn shown"),
)
def SCVTF_f(cpu: Lifter, Q: int, U: int, s: int, sz: int, by: Imm, Rn: V, Rd: V) -> None:
    """SCVTF, UCVTF (vector, fixed-point)."""
    t = float_shape(Q, s, sz)
    Rd.write(cpu.fmul(cpu.itof(Rn.read(as_int(t)), t, signed=not U), scale(by, t)))


@simd(
    "0 Q U s 11110 01 shift:5 11111 1 Rn:5 Rd:5",
    static="Q U s",
    where="Q or not s",
    sz=0,
    by=factor(0, 1),
    shown=fraction(0),
    asm=text("fcvtz{U:s|u}", "Rd Rn shown"),
)
@simd(
    "0 Q U s 11110 1 shift:6 11111 1 Rn:5 Rd:5",
    static="Q U s",
    where="Q",
    sz=1,
    by=factor(1, 1),
    shown=fraction(1),
    asm=text("fcvtz{U:s|u}", "Rd Rn shown"),
)
def FCVTZS_f(cpu: Lifter, Q: int, U: int, s: int, sz: int, by: Imm, Rn: V, Rd: V) -> None:
    """FCVTZS, FCVTZU (vector, fixed-point). Finite values are cut to 2^64 first: the product must not overflow."""
    t = float_shape(Q, s, sz)
    bits = Rn.read(as_int(t))
    magnitude = bits & ((1 << (t.bits - 1)) - 1)
    limit = power(64, t.bits)
    infinity = power(_BIAS[t.bits] + 1, t.bits)
    large = magnitude.ugt(limit) & magnitude.ult(infinity)
    value = large.select((bits ^ magnitude) | limit, bits).bitcast(t)
    Rd.write(cpu.ftoi(cpu.fmul(value, scale(by, t)), as_int(t), signed=not U, rm="zero"))
