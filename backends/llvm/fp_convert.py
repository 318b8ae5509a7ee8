"""Lowering of conversions between float formats and of rounding to integral values.

x86 keeps sign and payload of a NaN as Arm does, so that only FPCR.DN needs a cold path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.ir.types import F16, F32, F64, I16
from dbt.ir.values import IRError

from .fp_arithmetic import default_if_dn, fix_nans, fix_underflow
from .fp_host import (
    ROUNDING,
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
    shape,
    test,
    unlikely,
    widen,
    with_rounding,
)
from .text import llvm_type

if TYPE_CHECKING:
    from dbt.ir.types import Type
    from dbt.ir.values import Op

    from .lower import Lower, Lowering

_EIGHT: Final = I16.with_lanes(8)
_FOUR: Final = F32.with_lanes(4)
_QUIET: Final = 8  # round's immediate: do not raise inexact
_CURRENT: Final = 4  # MXCSR's mode
_CONVERT: Final = {(32, 64): ("ss2sd", "ps2pd"), (64, 32): ("sd2ss", "pd2ps")}
HALF: Final = 16


def _host_lanes(low: Lowering, value: str, type_: Type, lanes: int) -> str:
    """A vector with `lanes` lanes, whose upper ones are zero."""
    text, n = llvm_type(type_), type_.lanes
    if n == lanes:
        return value
    picks = ", ".join(f"i32 {min(i, n)}" for i in range(lanes))
    return low.emit(f"shufflevector {text} {value}, {text} zeroinitializer, <{lanes} x i32> <{picks}>")


def _first_lanes(low: Lowering, value: str, type_: Type, lanes: int) -> str:
    """The first lanes of a vector; 0: the first one as a scalar."""
    text = llvm_type(type_)
    if lanes in (0, type_.lanes):
        return value if lanes else low.emit(f"extractelement {text} {value}, i64 0")
    picks = ", ".join(f"i32 {i}" for i in range(lanes))
    return low.emit(f"shufflevector {text} {value}, {text} poison, <{lanes} x i32> <{picks}>")


def _from_half(low: Lowering, value: str, lanes: int) -> str:
    """f16 to f32, scalar or up to four lanes."""
    ints = I16.with_lanes(lanes or 1)
    bits = low.emit(f"bitcast {llvm_type(F16.with_lanes(lanes))} {value} to {llvm_type(ints)}")
    full = _host_lanes(low, bits, ints, 8)
    floats = asm(low, llvm_type(_FOUR), "vcvtph2ps $1, $0", "=x,x", (llvm_type(_EIGHT), full))
    return _first_lanes(low, floats, _FOUR, lanes)


def _to_half(low: Lowering, value: str, lanes: int) -> str:
    """f32 to f16 in the current mode, scalar or up to four lanes."""
    if lanes == 0:
        text = llvm_type(_FOUR)
        full = low.emit(f"insertelement {text} zeroinitializer, float {value}, i64 0")
    else:
        full = _host_lanes(low, value, F32.with_lanes(lanes), 4)
    halves = asm(low, llvm_type(_EIGHT), f"vcvtps2ph $${_CURRENT}, $1, $0", "=x,x", (llvm_type(_FOUR), full))
    bits = _first_lanes(low, halves, _EIGHT, lanes or 1)
    target = F16.with_lanes(lanes)
    return low.emit(f"bitcast {llvm_type(I16.with_lanes(lanes or 1))} {bits} to {llvm_type(target)}")


def _resize(low: Lowering, value: str, source: Type, target: Type) -> str:
    """Between f32 and f64."""
    lanes = source.lanes
    scalar, packed = _CONVERT[source.bits, target.bits]
    if not lanes:
        return asm(low, llvm_type(target), f"vcvt{scalar} $1, $1, $0", "=x,x", (llvm_type(source), value))
    full_source, full_target = (_FOUR, target) if source.bits < target.bits else (source, _FOUR)
    wide = _host_lanes(low, value, source, full_source.lanes)
    result = asm(low, llvm_type(full_target), f"vcvt{packed} $1, $0", "=x,x", (llvm_type(full_source), wide))
    return _first_lanes(low, result, full_target, target.lanes)


def _odd(low: Lowering, value: str, lanes: int) -> str:
    """An f64 that is exact in f32 (but for its range) and rounds to f16 as the original: the low 29 bits are one."""
    sh = Shape(F64.with_lanes(lanes), "")
    ints = llvm_type(sh.ints)
    bits, below = as_ints(low, sh, value), (1 << 29) - 1
    rest = low.emit(f"and {ints} {bits}, {constant(below, sh.ints)}")
    sticky = choose(low, sh, test(low, sh, "ne", rest, 0), constant(below + 1, sh.ints), constant(0, sh.ints))
    head = low.emit(f"and {ints} {bits}, {constant(~below, sh.ints)}")
    return as_floats(low, sh, low.emit(f"or {ints} {head}, {sticky}"))


def _steps(low: Lowering, value: str, source: Type, target: Type) -> str:
    lanes, single = source.lanes, F32.with_lanes(source.lanes)
    if source.bits == HALF:
        value = _from_half(low, value, lanes)
        return value if target.lane is F32 else _resize(low, value, single, target)
    if target.bits == HALF:
        if source.lane is not F32:
            value = _resize(low, _odd(low, value, lanes), source, single)
        return _to_half(low, value, lanes)
    return _resize(low, value, source, target)


def _to_odd(low: Lowering, source: Type, target: Type, value: str) -> str:
    """Truncated, and the last bit set if that lost anything (FPConvertRoundOdd)."""
    if (source.bits, target.bits) != (64, 32):
        raise IRError(f"rounding of {source} to odd {target} is not lowered")
    result = with_rounding(low, "zero", lambda: _resize(low, value, source, target))
    back, wide, sh = _resize(low, result, target, source), Shape(source, ""), Shape(target, "")
    lost = low.emit(f"fcmp one {wide.text} {back}, {value}")
    bits = as_ints(low, sh, result)
    odd = low.emit(f"or {llvm_type(sh.ints)} {bits}, {constant(1, sh.ints)}")
    return as_floats(low, sh, choose(low, sh, lost, odd, bits))


def _fconvert(low: Lowering, op: Op) -> str:
    assert op.result is not None
    source, target = op.args[0].type, op.result.type
    value, rm = low.use(op.args[0]), str(op.attrs["rm"])

    def compute() -> str:
        return _steps(low, value, source, target)

    sh = Shape(target, "")
    result = _to_odd(low, source, target, value) if rm == "odd" else with_rounding(low, rm, compute)
    if target.bits < source.bits:
        fix_underflow(low, sh, result, compute)
    # The test is on bits: LLVM would make an f32 of an f16.
    nan = test(low, sh, "ugt", magnitude(low, sh, as_ints(low, sh, result)), sh.infinity)

    def cold() -> str:
        bits = as_ints(low, sh, result)
        return as_floats(low, sh, choose(low, sh, nan, default_if_dn(low, sh, bits), bits))

    return unlikely(low, any_lane(low, sh, nan), sh.text, cold, result, "nan")


def integral(low: Lowering, sh: Shape, value: str, rm: str, *, exact: bool = False) -> str:
    """Rounded to an integral value. Raises invalid for a signaling NaN, inexact only if `exact`."""
    if rm != "away":
        immediate = (_CURRENT if rm == "dynamic" else ROUNDING[rm]) | (0 if exact else _QUIET)
        source = "$1" if sh.type.lanes else "$1, $1"
        return asm(low, sh.text, f"vround{sh.suffix} $${immediate}, {source}, $0", "=x,x", (sh.text, value))
    if exact:
        raise IRError("ties away from zero with inexact is not lowered")
    # Below 2 ** fraction: truncate, and one more if what was cut off is a half or more; both steps are exact.
    ints = llvm_type(sh.ints)
    truncated = integral(low, sh, value, "zero")
    bits = as_ints(low, sh, value)
    small = test(low, sh, "ult", magnitude(low, sh, bits), sh.power(sh.fraction))
    zero = constant(0, sh.ints)
    x = as_floats(low, sh, choose(low, sh, small, bits, zero))
    t = as_floats(low, sh, choose(low, sh, small, as_ints(low, sh, truncated), zero))
    rest = as_ints(low, sh, instruction(low, sh, "sub", x, t))
    sign = low.emit(f"and {ints} {bits}, {constant(sh.sign, sh.ints)}")
    one = as_floats(low, sh, low.emit(f"or {ints} {sign}, {constant(sh.power(0), sh.ints)}"))
    more = as_ints(low, sh, instruction(low, sh, "add", t, one))
    up = test(low, sh, "uge", magnitude(low, sh, rest), sh.power(-1))
    return as_floats(low, sh, choose(low, sh, up, more, as_ints(low, sh, truncated)))


def _frint(low: Lowering, op: Op) -> str:
    type_ = op.args[0].type
    sh, value = shape(type_), widen(low, low.use(op.args[0]), type_)
    result = integral(low, sh, value, str(op.attrs["rm"]), exact=bool(op.attrs["exact"]))
    return narrow(low, fix_nans(low, sh, result, lambda: default_if_dn(low, sh, as_ints(low, sh, result))), type_)


LOWER: Final[dict[str, Lower]] = {"fconvert": _fconvert, "frint": _frint}
