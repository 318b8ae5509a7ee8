"""Conversions between floating point and fixed point (DDI 0487, C4.1).

The number of fraction bits is an operand: it becomes a factor, a power of two, and multiplying by that is exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.ir.types import int_type

from .fp_common import SINGLE_DOUBLE, float_of, letter, scalar
from .lifter import datasize
from .operands import Imm, V, X

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbt.ir.builder import Value

    from .lifter import Lifter


class FractionBits(Imm):
    """64 - scale fraction bits, as the sign-and-exponent field of 2 ** (sign * bits): 9 or 12 bits."""

    __slots__ = ("bias", "sign_of_exponent")

    def __init__(self, names: str, ftype: int, sign: int) -> None:
        self.bias = 1023 if ftype else 127
        self.sign_of_exponent = sign
        first = 32 if names == "scale" else 0  # sf = 0: at most 32 fraction bits
        super().__init__(names, table=[self.bias + sign * (64 - scale) for scale in range(first, 64)])

    def text(self, value: int, style: str, statics: Mapping[str, int]) -> str:
        """`#7`."""
        del style, statics
        return f"#{abs(value - self.bias)}"


def _factor(imm: Imm, ftype: int) -> Value:
    bits = 64 if ftype else 32
    return (imm.read(bits) << (52 if ftype else 23)).bitcast(float_of(ftype))


@scalar("0 0 0 11110 ftype:2 0 00 01 U 1 scale:5 Rn:5 Rd:5", static="ftype U", where=SINGLE_DOUBLE, sf=0,
        asm=lambda ftype, U: f"{'su'[U]}cvtf {{Rd:{letter(ftype)}}}, {{Rn:w}}, {{by}}",
        by=lambda ftype: FractionBits("scale", ftype, -1))
@scalar("1 0 0 11110 ftype:2 0 00 01 U high scale:5 Rn:5 Rd:5", static="ftype U", where=SINGLE_DOUBLE, sf=1,
        asm=lambda ftype, U: f"{'su'[U]}cvtf {{Rd:{letter(ftype)}}}, {{Rn:x}}, {{by}}",
        by=lambda ftype: FractionBits("high scale", ftype, -1))
def SCVTF_fixed(cpu: Lifter, sf: int, ftype: int, U: int, by: Imm, Rn: X, Rd: V) -> None:
    """SCVTF, UCVTF (scalar, fixed-point)."""
    value = cpu.itof(Rn.read(datasize(sf)), float_of(ftype), signed=not U)
    Rd.write(cpu.fmul(value, _factor(by, ftype)))


@scalar("0 0 0 11110 ftype:2 0 11 00 U 1 scale:5 Rn:5 Rd:5", static="ftype U", where=SINGLE_DOUBLE, sf=0,
        asm=lambda ftype, U: f"fcvtz{'su'[U]} {{Rd:w}}, {{Rn:{letter(ftype)}}}, {{by}}",
        by=lambda ftype: FractionBits("scale", ftype, 1))
@scalar("1 0 0 11110 ftype:2 0 11 00 U high scale:5 Rn:5 Rd:5", static="ftype U", where=SINGLE_DOUBLE, sf=1,
        asm=lambda ftype, U: f"fcvtz{'su'[U]} {{Rd:x}}, {{Rn:{letter(ftype)}}}, {{by}}",
        by=lambda ftype: FractionBits("high scale", ftype, 1))
def FCVTZS_fixed(cpu: Lifter, sf: int, ftype: int, U: int, by: Imm, Rn: V, Rd: X) -> None:
    """FCVTZS, FCVTZU (scalar, fixed-point).

    Finite values are cut to 2 ** 63 first, so that the product cannot overflow: with a fraction bit or more they are
    out of range all the same.
    """
    n, t = datasize(sf), float_of(ftype)
    bits = Rn.read(int_type(t.bits))
    magnitude = bits & ((1 << (t.bits - 1)) - 1)
    fraction, bias = (52, 1023) if ftype else (23, 127)
    limit, infinity = bias + 63 << fraction, 2 * bias + 1 << fraction
    large = magnitude.ugt(limit) & magnitude.ult(infinity)
    value = large.select((bits ^ magnitude) | limit, bits).bitcast(t)
    Rd.write(n, cpu.ftoi(cpu.fmul(value, _factor(by, ftype)), int_type(n), signed=not U, rm="zero"))
