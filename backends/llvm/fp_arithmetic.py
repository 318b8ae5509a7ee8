"""Lowering of fadd, fsub, fmul, fdiv, fsqrt, fma, and of minimum and maximum.

The host's instruction is right but in two cases, which take a cold path:
- A NaN result: Arm takes the first signaling operand, else the first quiet one, x86 the first of either, and their
  default NaNs differ in sign.
- A product, quotient or fused sum of the smallest normal magnitude: Arm detects tininess before rounding, SSE after, so
  that UE may be missing. The operation is done again, rounding to zero: then a result is tiny after rounding just when
  it was before, and the other flags are those that are set already. (A sum that is tiny is exact.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.ir.values import IRError

from .fp_host import (
    Shape,
    any_lane,
    as_floats,
    as_ints,
    asm,
    choose,
    constant,
    default_nan,
    instruction,
    is_nan,
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
    from collections.abc import Callable, Sequence

    from dbt.ir.values import Op

    from .lower import Lower, Lowering

_BINARY: Final = {"fadd": "add", "fsub": "sub", "fmul": "mul", "fdiv": "div"}
_MAY_UNDERFLOW: Final = {"fmul", "fmulx", "fdiv", "fma"}


def nan_mask(low: Lowering, sh: Shape, bits: str) -> str:
    """Lanewise on integer bits: a NaN of either kind."""
    return test(low, sh, "ugt", magnitude(low, sh, bits), sh.infinity)


def quiet_mask(low: Lowering, sh: Shape, bits: str) -> str:
    """Lanewise on integer bits: a quiet NaN."""
    return test(low, sh, "uge", magnitude(low, sh, bits), sh.infinity | sh.quiet)


def default_if_dn(low: Lowering, sh: Shape, bits: str) -> str:
    """A NaN's bits, or the default NaN if FPCR.DN."""
    ints = llvm_type(sh.ints)
    default = constant(sh.infinity | sh.quiet, sh.ints)
    return low.emit(f"select i1 {default_nan(low)}, {ints} {default}, {ints} {bits}")


def process_nans(low: Lowering, sh: Shape, operands: Sequence[str]) -> str:
    """FPProcessNaNs on integer bits: what the result is in lanes where it is a NaN."""
    ints = llvm_type(sh.ints)
    chosen = constant(sh.infinity | sh.quiet, sh.ints)
    for bits in reversed(operands):
        chosen = choose(low, sh, quiet_mask(low, sh, bits), bits, chosen)
    for bits in reversed(operands):
        quieted = low.emit(f"or {ints} {bits}, {constant(sh.quiet, sh.ints)}")
        # Signaling: a NaN, and its magnitude below the quiet ones'.
        at = low.emit(f"sub {ints} {magnitude(low, sh, bits)}, {constant(sh.infinity + 1, sh.ints)}")
        signaling = test(low, sh, "ult", at, sh.quiet - 1)
        chosen = choose(low, sh, signaling, quieted, chosen)
    return default_if_dn(low, sh, chosen)


def _zero_times_infinity(low: Lowering, sh: Shape, a: str, b: str) -> str:
    """Lanewise on integer bits: one is a zero and the other an infinity."""
    first, second = magnitude(low, sh, a), magnitude(low, sh, b)
    cases = []
    for x, y in ((first, second), (second, first)):
        infinite, zero = test(low, sh, "eq", x, sh.infinity), test(low, sh, "eq", y, 0)
        cases.append(low.emit(f"and {sh.mask} {infinite}, {zero}"))
    return low.emit(f"or {sh.mask} {cases[0]}, {cases[1]}")


def fix_nans(low: Lowering, sh: Shape, result: str, nans: Callable[[], str]) -> str:
    """`result` with its NaN lanes taken from nans() (integer bits)."""
    mask = is_nan(low, sh, result)

    def cold() -> str:
        if not sh.type.lanes:
            return as_floats(low, sh, nans())
        return as_floats(low, sh, choose(low, sh, mask, nans(), as_ints(low, sh, result)))

    return unlikely(low, any_lane(low, sh, mask), sh.text, cold, result, "nan")


def fix_underflow(low: Lowering, sh: Shape, result: str, again: Callable[[], str]) -> None:
    """Let again() raise UE if a lane of the result may be rounded up from a tiny number."""
    tiny = test(low, sh, "eq", magnitude(low, sh, as_ints(low, sh, result)), sh.power(1 - sh.bias))

    def cold() -> str:
        with_rounding(low, "zero", again)
        return "0"

    unlikely(low, any_lane(low, sh, tiny), "i1", cold, "0", "tiny")


def _operands(low: Lowering, op: Op) -> tuple[Shape, list[str]]:
    type_ = op.args[0].type
    if type_.bits not in (32, 64):
        raise IRError(f"{op!r}: half-precision arithmetic is not lowered")
    return shape(type_), [widen(low, low.use(arg), type_) for arg in op.args]


def _finish(low: Lowering, op: Op, sh: Shape, compute: Callable[[], str], nans: Callable[[], str]) -> str:
    rm = op.attrs["rm"]
    assert isinstance(rm, str)
    result = with_rounding(low, rm, compute)
    if op.name in _MAY_UNDERFLOW:
        fix_underflow(low, sh, result, compute)
    return narrow(low, fix_nans(low, sh, result, nans), op.args[0].type)


def _arithmetic(low: Lowering, op: Op) -> str:
    sh, (a, b) = _operands(low, op)
    return _finish(
        low, op, sh,
        lambda: instruction(low, sh, _BINARY[op.name], a, b),
        lambda: process_nans(low, sh, [as_ints(low, sh, a), as_ints(low, sh, b)]),
    )  # fmt: skip


def _mulx(low: Lowering, op: Op) -> str:
    """fmul, but zero times infinity is two with the product's sign: the operands become two and one."""
    sh, (a, b) = _operands(low, op)
    bits = [as_ints(low, sh, value) for value in (a, b)]
    either = _zero_times_infinity(low, sh, *bits)
    ints = llvm_type(sh.ints)
    changed = []
    for value, exponent in zip(bits, (1, 0), strict=True):
        sign = low.emit(f"and {ints} {value}, {constant(sh.sign, sh.ints)}")
        number = low.emit(f"or {ints} {sign}, {constant(sh.power(exponent), sh.ints)}")
        changed.append(as_floats(low, sh, choose(low, sh, either, number, value)))
    return _finish(
        low, op, sh,
        lambda: instruction(low, sh, "mul", *changed),
        lambda: process_nans(low, sh, bits),
    )  # fmt: skip


def _sqrt(low: Lowering, op: Op) -> str:
    sh, (a,) = _operands(low, op)
    return _finish(
        low, op, sh,
        lambda: instruction(low, sh, "sqrt", a),
        lambda: process_nans(low, sh, [as_ints(low, sh, a)]),
    )  # fmt: skip


def _fma(low: Lowering, op: Op) -> str:
    sh, (a, n, m) = _operands(low, op)
    arguments = ((sh.text, a), (sh.text, n), (sh.text, m))

    def nans() -> str:
        bits = [as_ints(low, sh, value) for value in (a, n, m)]
        found = process_nans(low, sh, bits)
        # FPMulAdd: infinity times zero is invalid even beside a quiet NaN.
        either = _zero_times_infinity(low, sh, *bits[1:])
        invalid = low.emit(f"and {sh.mask} {either}, {quiet_mask(low, sh, bits[0])}")
        raise_flags(low, low.emit(f"zext i1 {any_lane(low, sh, invalid)} to i64"))
        return choose(low, sh, invalid, constant(sh.infinity | sh.quiet, sh.ints), found)

    return _finish(
        low, op, sh, lambda: asm(low, sh.text, f"vfmadd231{sh.suffix} $3, $2, $0", "=x,0,x,x", *arguments), nans
    )


def _pair(low: Lowering, sh: Shape, name: str, a: str, b: str) -> str:
    """The minimum or maximum of numbers. x86 takes the second of two zeros: both ways, and the signs combined."""
    first = as_ints(low, sh, instruction(low, sh, name, a, b))
    second = as_ints(low, sh, instruction(low, sh, name, b, a))
    joined = low.emit(f"{'or' if name == 'min' else 'and'} {llvm_type(sh.ints)} {first}, {second}")
    return as_floats(low, sh, joined)


def unordered(low: Lowering, sh: Shape, a: str, b: str) -> str:
    """i1: some lane of either is a NaN; raises invalid for signaling ones."""
    arguments = ((sh.text, a), (sh.text, b))
    if not sh.type.lanes:
        parity = asm(low, "i32", f"vucomi{sh.suffix} $2, $1", "={@ccp},x,x,~{flags}", *arguments)
        return low.emit(f"icmp ne i32 {parity}, 0")
    ints = llvm_type(sh.ints)
    found = asm(low, ints, f"vcmpunord{sh.suffix} $2, $1, $0", "=x,x,x", *arguments)
    return any_lane(low, sh, low.emit(f"icmp slt {ints} {found}, zeroinitializer"))


def _minimum(low: Lowering, op: Op) -> str:
    sh, (a, b) = _operands(low, op)
    name, number = op.name[1:4], op.name.endswith("nm")

    def cold() -> str:
        x, y = as_ints(low, sh, a), as_ints(low, sh, b)
        if number:  # a quiet NaN beside anything but one loses: it becomes the infinity that does
            loser = constant(sh.infinity | (sh.sign if name == "max" else 0), sh.ints)
            quiet = quiet_mask(low, sh, x), quiet_mask(low, sh, y)
            differ = low.emit(f"xor {sh.mask} {quiet[0]}, {quiet[1]}")
            masks = [low.emit(f"and {sh.mask} {differ}, {mask}") for mask in quiet]
            x, y = choose(low, sh, masks[0], loser, x), choose(low, sh, masks[1], loser, y)
        nan = low.emit(f"or {sh.mask} {nan_mask(low, sh, x)}, {nan_mask(low, sh, y)}")
        zero = constant(0, sh.ints)
        numbers = [as_floats(low, sh, choose(low, sh, nan, zero, value)) for value in (x, y)]
        pair = as_ints(low, sh, _pair(low, sh, name, *numbers))
        return as_floats(low, sh, choose(low, sh, nan, process_nans(low, sh, [x, y]), pair))

    result = unlikely(low, unordered(low, sh, a, b), sh.text, cold, lambda: _pair(low, sh, name, a, b), "nan")
    return narrow(low, result, op.args[0].type)


def _sign(low: Lowering, op: Op) -> str:
    """fneg, fabs: bits only."""
    type_ = op.args[0].type
    sh = Shape(type_, "")
    bits = as_ints(low, sh, low.use(op.args[0]))
    if op.name == "fabs":
        return as_floats(low, sh, magnitude(low, sh, bits))
    return as_floats(low, sh, low.emit(f"xor {llvm_type(sh.ints)} {bits}, {constant(sh.sign, sh.ints)}"))


LOWER: Final[dict[str, Lower]] = {
    **dict.fromkeys(_BINARY, _arithmetic), "fmulx": _mulx, "fsqrt": _sqrt, "fma": _fma,
    **dict.fromkeys(("fmin", "fmax", "fminnm", "fmaxnm"), _minimum), "fneg": _sign, "fabs": _sign,
}  # fmt: skip
