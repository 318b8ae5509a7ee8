"""Exact binary16, binary32 and binary64 arithmetic with Arm's rules: the definition of the IR's floating point.

DDI 0487, shared/functions/float. All functions take the width of the format in bits, operands as bit patterns and
FPCR, and return (bit pattern, flags for FPSR). `rm` is a name of the IR; dynamic: the mode that FPCR says.
"""

from __future__ import annotations

from math import isqrt

from .float_convert import convert, from_int, round_int, to_int
from .float_format import (
    DZC,
    FINITE,
    FORMATS,
    INFINITY,
    IOC,
    QNAN,
    SNAN,
    ZERO,
    Format,
    Number,
    Result,
    invalid,
    process_nans,
    round_pack,
    rounding,
    unpack,
    zero_sign,
)

__all__ = [
    "add", "compare", "compare_flags", "convert", "div", "fma", "from_int", "maximum", "maximum_number", "minimum",
    "minimum_number", "mul", "mulx", "round_int", "sqrt", "sub", "to_int",
]  # fmt: skip


def _infinity(fmt: Format, sign: int) -> Result:
    return fmt.infinity | sign << (fmt.bits - 1), 0


def _zero(fmt: Format, sign: int) -> Result:
    return sign << (fmt.bits - 1), 0


def _sum(fmt: Format, x: Number, y: Number, rm: str) -> Result:
    """Round the exact sum of two finite numbers or zeros."""
    if x.kind == ZERO and y.kind == ZERO and x.sign == y.sign:
        return _zero(fmt, x.sign)
    exponent = min(x.exponent, y.exponent)
    total = (-x.mantissa if x.sign else x.mantissa) << (x.exponent - exponent)
    total += (-y.mantissa if y.sign else y.mantissa) << (y.exponent - exponent)
    if total == 0:
        return _zero(fmt, zero_sign(rm))
    return round_pack(fmt, int(total < 0), abs(total), exponent, rm)


def add(bits: int, a: int, b: int, fpcr: int, rm: str = "dynamic") -> Result:
    """FPAdd."""
    fmt, rm = FORMATS[bits], rounding(fpcr, rm)
    nan = process_nans(fmt, fpcr, a, b)
    if nan is not None:
        return nan
    x, y = unpack(fmt, a), unpack(fmt, b)
    if x.kind == INFINITY:
        return invalid(fmt) if y.kind == INFINITY and x.sign != y.sign else _infinity(fmt, x.sign)
    if y.kind == INFINITY:
        return _infinity(fmt, y.sign)
    return _sum(fmt, x, y, rm)


def sub(bits: int, a: int, b: int, fpcr: int, rm: str = "dynamic") -> Result:
    """FPSub: as FPAdd with the second operand negated, unless that is a NaN."""
    fmt = FORMATS[bits]
    nan = process_nans(fmt, fpcr, a, b)
    if nan is not None:
        return nan
    return add(bits, a, b ^ fmt.sign_bit, fpcr, rm)


def mul(bits: int, a: int, b: int, fpcr: int, rm: str = "dynamic") -> Result:
    """FPMul."""
    fmt, rm = FORMATS[bits], rounding(fpcr, rm)
    nan = process_nans(fmt, fpcr, a, b)
    if nan is not None:
        return nan
    x, y = unpack(fmt, a), unpack(fmt, b)
    sign = x.sign ^ y.sign
    if INFINITY in {x.kind, y.kind}:
        return invalid(fmt) if ZERO in {x.kind, y.kind} else _infinity(fmt, sign)
    return round_pack(fmt, sign, x.mantissa * y.mantissa, x.exponent + y.exponent, rm)


def mulx(bits: int, a: int, b: int, fpcr: int, rm: str = "dynamic") -> Result:
    """FPMulX: as FPMul, but infinity times zero is 2.0 with the product's sign."""
    fmt = FORMATS[bits]
    x, y = unpack(fmt, a), unpack(fmt, b)
    if {x.kind, y.kind} == {INFINITY, ZERO}:
        return (x.sign ^ y.sign) << (bits - 1) | (fmt.bias + 1) << fmt.fraction, 0
    return mul(bits, a, b, fpcr, rm)


def div(bits: int, a: int, b: int, fpcr: int, rm: str = "dynamic") -> Result:
    """FPDiv."""
    fmt, rm = FORMATS[bits], rounding(fpcr, rm)
    nan = process_nans(fmt, fpcr, a, b)
    if nan is not None:
        return nan
    x, y = unpack(fmt, a), unpack(fmt, b)
    sign = x.sign ^ y.sign
    if x.kind == y.kind and x.kind in {INFINITY, ZERO}:
        return invalid(fmt)
    if x.kind == INFINITY:
        return _infinity(fmt, sign)
    if y.kind == ZERO:
        return _infinity(fmt, sign)[0], DZC
    if y.kind == INFINITY or x.kind == ZERO:
        return _zero(fmt, sign)
    # Enough quotient bits that everything below them only matters as 'not zero'.
    scale = max(0, fmt.fraction + 4 + y.mantissa.bit_length() - x.mantissa.bit_length())
    quotient, rest = divmod(x.mantissa << scale, y.mantissa)
    return round_pack(fmt, sign, quotient << 1 | (rest != 0), x.exponent - y.exponent - scale - 1, rm)


def sqrt(bits: int, a: int, fpcr: int, rm: str = "dynamic") -> Result:
    """FPSqrt."""
    fmt, rm = FORMATS[bits], rounding(fpcr, rm)
    nan = process_nans(fmt, fpcr, a)
    if nan is not None:
        return nan
    x = unpack(fmt, a)
    if x.kind == ZERO:
        return a, 0
    if x.sign:
        return invalid(fmt)
    if x.kind == INFINITY:
        return a, 0
    shift = 2 * fmt.fraction + 6
    shift += (x.exponent - shift) & 1  # the exponent left over must be even
    scaled = x.mantissa << shift
    root = isqrt(scaled)
    return round_pack(fmt, 0, root << 1 | (root * root != scaled), (x.exponent - shift) // 2 - 1, rm)


def fma(bits: int, a: int, n: int, m: int, fpcr: int, rm: str = "dynamic") -> Result:
    """FPMulAdd: a + n * m, rounded once."""
    fmt, rm = FORMATS[bits], rounding(fpcr, rm)
    x, y, z = unpack(fmt, a), unpack(fmt, n), unpack(fmt, m)
    invalid_product = {y.kind, z.kind} == {INFINITY, ZERO}
    if x.kind == QNAN and invalid_product:
        return invalid(fmt)
    nan = process_nans(fmt, fpcr, a, n, m)
    if nan is not None:
        return nan
    sign = y.sign ^ z.sign
    infinite = INFINITY in {y.kind, z.kind}
    if invalid_product or (x.kind == INFINITY and infinite and x.sign != sign):
        return invalid(fmt)
    if x.kind == INFINITY or infinite:
        return _infinity(fmt, x.sign if x.kind == INFINITY else sign)
    mantissa = y.mantissa * z.mantissa
    product = Number(FINITE if mantissa else ZERO, sign, mantissa, y.exponent + z.exponent)
    return _sum(fmt, x, product, rm)


def _order(x: Number, y: Number) -> int:
    """-1, 0 or 1 as x is less than, equal to or greater than y; neither is a NaN."""
    exponent = min(x.exponent, y.exponent)
    infinite = 1 << 5000
    left = infinite if x.kind == INFINITY else x.mantissa << (x.exponent - exponent)
    right = infinite if y.kind == INFINITY else y.mantissa << (y.exponent - exponent)
    left, right = (-left if x.sign else left), (-right if y.sign else right)
    return (left > right) - (left < right)


def _pick(bits: int, a: int, b: int, fpcr: int, want: int) -> Result:
    """FPMax (want 1) and FPMin (want -1)."""
    fmt, _ = FORMATS[bits], rounding(fpcr)
    nan = process_nans(fmt, fpcr, a, b)
    if nan is not None:
        return nan
    x, y = unpack(fmt, a), unpack(fmt, b)
    if x.kind == ZERO and y.kind == ZERO:
        return _zero(fmt, x.sign & y.sign if want > 0 else x.sign | y.sign)
    return (a if _order(x, y) == want else b), 0


def _pick_number(bits: int, a: int, b: int, fpcr: int, want: int) -> Result:
    """FPMaxNum and FPMinNum: a single quiet NaN loses to anything."""
    fmt = FORMATS[bits]
    loser = fmt.infinity | (fmt.sign_bit if want > 0 else 0)
    first, second = unpack(fmt, a).kind, unpack(fmt, b).kind
    if first == QNAN and second != QNAN:
        a = loser
    elif second == QNAN and first != QNAN:
        b = loser
    return _pick(bits, a, b, fpcr, want)


def maximum(bits: int, a: int, b: int, fpcr: int) -> Result:
    """FPMax."""
    return _pick(bits, a, b, fpcr, 1)


def minimum(bits: int, a: int, b: int, fpcr: int) -> Result:
    """FPMin."""
    return _pick(bits, a, b, fpcr, -1)


def maximum_number(bits: int, a: int, b: int, fpcr: int) -> Result:
    """FPMaxNum."""
    return _pick_number(bits, a, b, fpcr, 1)


def minimum_number(bits: int, a: int, b: int, fpcr: int) -> Result:
    """FPMinNum."""
    return _pick_number(bits, a, b, fpcr, -1)


def compare(bits: int, predicate: str, a: int, b: int, *, signaling: bool) -> tuple[bool, int]:
    """FPCompareEQ (quiet), FPCompareGE, FPCompareGT (signaling): predicate eq, ge or gt; unordered is false."""
    x, y = unpack(FORMATS[bits], a), unpack(FORMATS[bits], b)
    if x.is_nan or y.is_nan:
        return False, (IOC if signaling or SNAN in {x.kind, y.kind} else 0)
    order = _order(x, y)
    return {"eq": order == 0, "ge": order >= 0, "gt": order > 0}[predicate], 0


def compare_flags(bits: int, a: int, b: int, *, signaling: bool) -> tuple[int, int]:
    """FPCompare: (NZCV as four bits, flags for FPSR)."""
    x, y = unpack(FORMATS[bits], a), unpack(FORMATS[bits], b)
    if x.is_nan or y.is_nan:
        return 0b0011, (IOC if signaling or SNAN in {x.kind, y.kind} else 0)
    return {-1: 0b1000, 0: 0b0110, 1: 0b0010}[_order(x, y)], 0
