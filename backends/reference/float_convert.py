"""Exact conversions between binary formats, integers and fixed point, and rounding to integral values.

DDI 0487: FPConvert, FPConvertNaN, FPConvertRoundOdd, FPToFixed, FixedToFP, FPRoundInt. `rm` is a name of the IR:
dynamic (as FPCR says), even, up, down, zero, away (ties away from zero); 'odd' for FPConvertRoundOdd.
"""

from __future__ import annotations

from .float_format import (
    DN,
    FORMATS,
    INFINITY,
    IOC,
    IXC,
    SNAN,
    ZERO,
    Result,
    process_nans,
    round_pack,
    round_shift,
    rounding,
    unpack,
)


def convert(from_bits: int, to_bits: int, a: int, fpcr: int, rm: str = "dynamic") -> Result:
    """FPConvert: a number of one format in another; a NaN keeps its sign and the top of its payload."""
    source, target = FORMATS[from_bits], FORMATS[to_bits]
    mode = rounding(fpcr, rm)
    x = unpack(source, a)
    sign = x.sign << (to_bits - 1)
    if x.is_nan:
        flags = IOC if x.kind == SNAN else 0
        if fpcr & DN:
            return target.default_nan, flags
        payload = a & (source.quiet - 1)
        shift = target.fraction - source.fraction
        payload = payload << shift if shift >= 0 else payload >> -shift
        return sign | target.default_nan | payload, flags
    if x.kind == INFINITY:
        return sign | target.infinity, 0
    return round_pack(target, x.sign, x.mantissa, x.exponent, mode)


def to_int(
    bits: int, int_bits: int, a: int, fpcr: int, *, signed: bool, rm: str = "zero", fraction_bits: int = 0
) -> Result:
    """FPToFixed: saturates with IOC (and no IXC); a NaN gives 0 with IOC. The result is modulo 2**int_bits."""
    mode = rounding(fpcr, rm)
    x = unpack(FORMATS[bits], a)
    low, high = (-(1 << (int_bits - 1)), (1 << (int_bits - 1)) - 1) if signed else (0, (1 << int_bits) - 1)
    mask = (1 << int_bits) - 1
    if x.is_nan:
        return 0, IOC
    if x.kind == INFINITY:
        return (low if x.sign else high) & mask, IOC
    magnitude, inexact = round_shift(x.sign, x.mantissa, -(x.exponent + fraction_bits), mode)
    value = -magnitude if x.sign else magnitude
    if not low <= value <= high:
        return (low if value < low else high) & mask, IOC
    return value & mask, IXC if inexact else 0


def from_int(
    int_bits: int, bits: int, a: int, fpcr: int, *, signed: bool, rm: str = "dynamic", fraction_bits: int = 0
) -> Result:
    """FixedToFP: a is taken modulo 2**int_bits; zero is +0."""
    mode = rounding(fpcr, rm)
    value = a & ((1 << int_bits) - 1)
    if signed and value >> (int_bits - 1):
        value -= 1 << int_bits
    return round_pack(FORMATS[bits], int(value < 0), abs(value), -fraction_bits, mode)


def round_int(bits: int, a: int, fpcr: int, *, rm: str = "dynamic", exact: bool = False) -> Result:
    """FPRoundInt: to an integral value of the same format; inexact is reported only if `exact`."""
    fmt = FORMATS[bits]
    mode = rounding(fpcr, rm)
    nan = process_nans(fmt, fpcr, a)
    if nan is not None:
        return nan
    x = unpack(fmt, a)
    if x.kind in {INFINITY, ZERO} or x.exponent >= 0:
        return a, 0
    magnitude, inexact = round_shift(x.sign, x.mantissa, -x.exponent, mode)
    return round_pack(fmt, x.sign, magnitude, 0, "zero")[0], IXC if exact and inexact else 0
