"""Lowering of conversions between floats and integers or fixed point.

x86 answers with the most negative integer where Arm saturates, has no directed rounding in the conversion itself, and
reports inexact when it rounds before the range is known. So: round to an integral value without flags, convert (which
raises invalid only), and then convert the original for its inexact flag; the integer is in range if that is reached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.ir.types import F64, I32, I64, int_type
from dbt.ir.values import IRError

from .fp_arithmetic import nan_mask
from .fp_convert import integral
from .fp_host import (
    IOC,
    Shape,
    any_lane,
    as_floats,
    as_ints,
    asm,
    choose,
    constant,
    instruction,
    magnitude,
    narrow,
    raise_flags,
    shape,
    test,
    unlikely,
    widen,
    with_rounding,
)
from .text import llvm_type

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.ir.types import Type
    from dbt.ir.values import Op

    from .lower import Lower, Lowering

WORD: Final = 32


def _cvt(low: Lowering, sh: Shape, bits: int, value: str, *, truncate: bool = True) -> str:
    """The host's signed conversion to i32 or i64."""
    name = f"vcvt{'t' if truncate else ''}{sh.suffix}2si{'l' if bits == WORD else 'q'}"
    return asm(low, f"i{bits}", f"{name} $1, $0", "=r,x", (sh.text, value))


def _scaled(low: Lowering, sh: Shape, value: str, fbits: int) -> str:
    """value * 2**fbits, exact; from 2**64 on the value itself, which saturates as well (the product might overflow)."""
    if not fbits:
        return value
    moderate = test(low, sh, "ult", magnitude(low, sh, as_ints(low, sh, value)), sh.power(64))
    factor = choose(low, sh, moderate, constant(sh.power(fbits), sh.ints), constant(sh.power(0), sh.ints))
    return instruction(low, sh, "mul", value, as_floats(low, sh, factor))


def _saturated(low: Lowering, sh: Shape, value: str, bits: int, *, signed: bool) -> str:
    """What Arm answers for a number out of range (0 for a NaN)."""
    float_bits = as_ints(low, sh, value)
    negative = test(low, sh, "slt", float_bits, 0)
    least = -(1 << (bits - 1)) if signed else 0
    most = (1 << (bits - 1)) - 1 if signed else -1
    edge = low.emit(f"select i1 {negative}, i{bits} {least}, i{bits} {most}")
    return low.emit(f"select i1 {nan_mask(low, sh, float_bits)}, i{bits} 0, i{bits} {edge}")


def _signed(low: Lowering, sh: Shape, value: str, bits: int, rm: str) -> str:
    """The host's answer for anything out of range is the least integer, which may be right as well."""
    text, least = f"i{bits}", 1 << (bits - 1)
    if rm in {"zero", "dynamic"}:
        found = _cvt(low, sh, bits, value, truncate=rm == "zero")
        edge = low.emit(f"icmp eq {text} {found}, {least}")
        return unlikely(low, edge, text, lambda: _saturated(low, sh, value, bits, signed=True), found, "range")
    rounded = integral(low, sh, value, rm)
    found = _cvt(low, sh, bits, rounded)
    edge = low.emit(f"icmp eq {text} {found}, {least}")

    def inexact() -> str:
        _cvt(low, sh, bits, value)
        return found

    def cold() -> str:
        exactly = test(low, sh, "eq", as_ints(low, sh, rounded), sh.sign | sh.power(bits - 1))
        return unlikely(low, exactly, text, inexact, lambda: _saturated(low, sh, value, bits, signed=True), "least")

    return unlikely(low, edge, text, cold, inexact, "range")


def _unsigned(low: Lowering, sh: Shape, value: str, bits: int, rm: str) -> str:
    rounded = integral(low, sh, value, rm)
    text = f"i{bits}"

    def bad() -> str:
        raise_flags(low, str(IOC))
        return _saturated(low, sh, value, bits, signed=False)

    def with_inexact(found: str) -> str:
        _cvt(low, sh, 64, value)
        return found

    if bits == WORD:
        found = _cvt(low, sh, 64, rounded)
        over = low.emit(f"icmp ugt i64 {found}, {(1 << WORD) - 1}")
        return unlikely(low, over, text, bad, lambda: with_inexact(low.emit(f"trunc i64 {found} to i32")), "range")

    float_bits = as_ints(low, sh, rounded)

    def upper() -> str:  # from 2**63 on, integral in either format: no inexact
        less = instruction(low, sh, "sub", rounded, constant(sh.power(63), sh.type))
        return low.emit(f"xor i64 {_cvt(low, sh, 64, less)}, {1 << 63}")

    def cold() -> str:
        above = low.emit(f"sub {llvm_type(sh.ints)} {float_bits}, {constant(sh.power(63), sh.ints)}")
        in_upper = test(low, sh, "ult", above, 1 << sh.fraction)
        minus_zero = test(low, sh, "eq", float_bits, sh.sign)
        return unlikely(
            low, in_upper, text, upper,
            lambda: unlikely(low, minus_zero, text, lambda: with_inexact("0"), bad, "minus"), "upper",
        )  # fmt: skip

    special = test(low, sh, "uge", float_bits, sh.power(63))
    return unlikely(low, special, text, cold, lambda: with_inexact(_cvt(low, sh, 64, rounded)), "range")


def _lanewise(low: Lowering, source: Type, target: Type, value: str, convert: Callable[[str], str]) -> str:
    result = "poison"
    for i in range(source.lanes):
        lane = low.emit(f"extractelement {llvm_type(source)} {value}, i64 {i}")
        converted = convert(lane)
        result = low.emit(f"insertelement {llvm_type(target)} {result}, {llvm_type(target.lane)} {converted}, i64 {i}")
    return result


def _packed_signed(low: Lowering, value: str, source: Type, rm: str) -> str:
    """f32 lanes to i32 lanes, towards zero or in the current mode."""
    sh, wide = shape(source), widen(low, value, source)
    ints, least = llvm_type(sh.ints), 1 << (WORD - 1)
    found = asm(low, ints, f"vcvt{'t' if rm == 'zero' else ''}ps2dq $1, $0", "=x,x", (sh.text, wide))
    edge = test(low, sh, "eq", found, least)

    def cold() -> str:
        bits = as_ints(low, sh, wide)
        negative = test(low, sh, "slt", bits, 0)
        limit = choose(low, sh, negative, constant(least, sh.ints), constant(least - 1, sh.ints))
        fixed = choose(low, sh, nan_mask(low, sh, bits), constant(0, sh.ints), limit)
        return choose(low, sh, edge, fixed, found)

    result = unlikely(low, any_lane(low, sh, edge), ints, cold, found, "range")
    return narrow(low, result, int_type(WORD).with_lanes(source.lanes))


def _ftoi(low: Lowering, op: Op) -> str:
    assert op.result is not None
    source, target = op.args[0].type, op.result.type
    if source.bits not in (32, 64) or target.bits not in (32, 64):
        raise IRError(f"{op!r} is not lowered")
    rm, fbits, signed = str(op.attrs["rm"]), op.attrs["fbits"], bool(op.attrs["signed"])
    assert isinstance(fbits, int)
    sh = shape(source.lane)

    def convert(value: str) -> str:
        scaled = _scaled(low, sh, value, fbits)
        return (_signed if signed else _unsigned)(low, sh, scaled, target.bits, rm)

    value = low.use(op.args[0])
    if not source.lanes:
        return convert(value)
    if signed and source.bits == WORD and rm in {"zero", "dynamic"} and not fbits:
        return _packed_signed(low, value, source, rm)
    return _lanewise(low, source, target, value, convert)


def _from_int(low: Lowering, value: str, source: Type, sh: Shape, *, signed: bool) -> str:
    """One integer, in the current rounding mode."""
    if source.bits < WORD or (source.bits == WORD and not signed):
        wide = I32 if source.bits < WORD else I64
        value = low.emit(f"{'sext' if signed else 'zext'} {source} {value} to {wide}")
        source = wide
        signed = True
    unit = constant(0, sh.type)
    code = f"vcvtsi2{sh.suffix}{'l' if source.bits == WORD else 'q'} $2, $1, $0"
    if signed:
        return asm(low, sh.text, code, "=x,x,r", (sh.text, unit), (str(source), value))
    # From 2**63 on: half of it, with what is shifted out kept as a sticky bit, and doubled, which is exact.
    large = low.emit(f"icmp slt i64 {value}, 0")
    half = low.emit(f"or i64 {low.emit(f'lshr i64 {value}, 1')}, {low.emit(f'and i64 {value}, 1')}")
    operand = low.emit(f"select i1 {large}, i64 {half}, i64 {value}")
    single = asm(low, sh.text, code, "=x,x,r", (sh.text, unit), (str(source), operand))
    double = instruction(low, sh, "add", single, single)
    return low.emit(f"select i1 {large}, {sh.text} {double}, {sh.text} {single}")


def _itof(low: Lowering, op: Op) -> str:
    assert op.result is not None
    source, target = op.args[0].type, op.result.type
    if target.bits not in (32, 64) or source.bits > F64.bits:
        raise IRError(f"{op!r} is not lowered")
    fbits, signed, rm = op.attrs["fbits"], bool(op.attrs["signed"]), str(op.attrs["rm"])
    assert isinstance(fbits, int)
    sh = shape(target.lane)

    def convert(value: str) -> str:
        result = _from_int(low, value, source.lane, sh, signed=signed)
        if fbits:
            result = instruction(low, sh, "mul", result, constant(sh.power(-fbits), sh.type))
        return result

    value = low.use(op.args[0])
    if not source.lanes:
        return with_rounding(low, rm, lambda: convert(value))
    if signed and source.bits == target.bits == WORD and not fbits:
        wide, lanes = widen(low, value, source), shape(target)
        packed = with_rounding(
            low, rm, lambda: asm(low, lanes.text, "vcvtdq2ps $1, $0", "=x,x", (llvm_type(lanes.ints), wide))
        )
        return narrow(low, packed, target)
    return with_rounding(low, rm, lambda: _lanewise(low, source, target, value, convert))


LOWER: Final[dict[str, Lower]] = {"ftoi": _ftoi, "itof": _itof}
