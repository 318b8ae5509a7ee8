"""Lowering of floating-point comparisons and of the control and status registers.

ucomis raises invalid for signaling NaNs only, comis for any, just as FCMP and FCMPE do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.ir.values import IRError

from .fp_host import ROUNDING_BITS, Shape, asm, narrow, raise_flags, read_mxcsr, shape, widen, write_mxcsr
from .source import Flags
from .text import llvm_type

if TYPE_CHECKING:
    from dbt.ir.values import Op

    from .lower import Lower, Lowering

# cmpps immediates {(predicate, signaling)}; all are false for unordered operands
_PACKED: Final = {
    ("eq", False): 0x00, ("eq", True): 0x10, ("ge", False): 0x1D, ("ge", True): 0x0D, ("gt", False): 0x1E,
    ("gt", True): 0x0E,
}  # fmt: skip
_CONDITIONS: Final = {"ge": "ae", "gt": "a"}  # after comis: carry is 'less or unordered'
QC: Final = 1 << 27  # FPSR: an integer operation saturated
RMODE_SHIFT: Final = 22  # FPCR
HOST_FLAGS: Final = 0x3F  # MXCSR: PE UE OE ZE DE IE


def _comis(low: Lowering, sh: Shape, op: Op, *conditions: str) -> list[str]:
    """comis or ucomis; conditions on the host's flags as i1.

    Several conditions are taken out of the flags within the assembly: LLVM glues only the first flag output to it and
    may put an instruction that changes the flags in front of the others.
    """
    a, b = (low.use(arg) for arg in op.args)
    n = len(conditions)
    name = "vcomi" if op.attrs["signaling"] else "vucomi"
    code, arguments = f"{name}{sh.suffix} ${n + 1}, ${n}", ((sh.text, a), (sh.text, b))
    if n == 1:
        found = asm(low, "i32", code, f"={{@cc{conditions[0]}}},x,x,~{{flags}}", *arguments)
        return [low.emit(f"icmp ne i32 {found}, 0")]
    code = "; ".join([code, *(f"set{condition} ${i}" for i, condition in enumerate(conditions))])
    result = "{" + ", ".join(["i8"] * n) + "}"
    found = asm(low, result, code, ",".join([*["=q"] * n, "x", "x", "~{flags}"]), *arguments)
    parts = [low.emit(f"extractvalue {result} {found}, {i}") for i in range(n)]
    return [low.emit(f"icmp ne i8 {part}, 0") for part in parts]


def _compare(low: Lowering, op: Op) -> str:
    type_ = op.args[0].type
    if type_.bits not in (32, 64):
        raise IRError(f"{op!r}: half-precision comparison is not lowered")
    sh = shape(type_)
    predicate, signaling = str(op.attrs["pred"]), bool(op.attrs["signaling"])
    if not type_.lanes:
        if predicate == "eq":
            equal, ordered = _comis(low, sh, op, "e", "np")
            return low.emit(f"and i1 {equal}, {ordered}")
        return _comis(low, sh, op, _CONDITIONS[predicate])[0]
    a, b = (widen(low, low.use(arg), type_) for arg in op.args)
    ints = llvm_type(sh.ints)
    code = f"vcmp{sh.suffix} $${_PACKED[predicate, signaling]}, $2, $1, $0"
    found = narrow(low, asm(low, ints, code, "=x,x,x", (sh.text, a), (sh.text, b)), sh.ints.with_lanes(type_.lanes))
    return low.emit(f"icmp slt {llvm_type(sh.ints.with_lanes(type_.lanes))} {found}, zeroinitializer")


def _compare_flags(low: Lowering, op: Op) -> None:
    """N: less. Z: equal. C: not less. V: unordered."""
    above, not_below, parity = _comis(low, shape(op.args[0].type), op, "a", "ae", "p")
    not_less = low.emit(f"or i1 {not_below}, {parity}")
    c = low.emit(f"zext i1 {not_less} to i64")
    n = low.emit(f"add i64 {c}, -1")
    equal = low.emit(f"xor i1 {not_below}, {above}")
    z = low.emit(f"zext i1 {low.emit(f'xor i1 {equal}, true')} to i64")
    v = low.emit(f"sext i1 {parity} to i64")
    low.flags = Flags(n, z, c, v)


def _control(low: Lowering, op: Op) -> str:
    del op
    return low.emit(f"load volatile i64, ptr {low.env(low.offsets.fpcr)}")


def _set_control(low: Lowering, op: Op) -> None:
    """The row that writes FPCR keeps its bits to DN and RMode, and refuses what is not implemented."""
    value = low.use(op.args[0])
    low.line(f"store i64 {value}, ptr {low.env(low.offsets.fpcr)}")
    # Arm's modes are nearest, up, down, zero; the host's nearest, down, up, zero: the two bits change places.
    control = low.emit(f"trunc i64 {value} to i32")
    high = low.emit(f"and i32 {low.emit(f'lshr i32 {control}, {RMODE_SHIFT + 1 - 13}')}, {1 << 13}")
    lower = low.emit(f"and i32 {low.emit(f'lshr i32 {control}, {RMODE_SHIFT - 14}')}, {1 << 14}")
    kept = low.emit(f"and i32 {read_mxcsr(low)}, {~ROUNDING_BITS}")
    write_mxcsr(low, low.emit(f"or i32 {kept}, {low.emit(f'or i32 {high}, {lower}')}"))


def _status(low: Lowering, op: Op) -> str:
    """The stored bits, and those that the host has set since."""
    del op
    host = low.emit(f"zext i32 {read_mxcsr(low)} to i64")
    invalid = low.emit(f"and i64 {host}, 1")
    others = low.emit(f"and i64 {low.emit(f'lshr i64 {host}, 1')}, 30")  # ZE OE UE PE to DZC OFC UFC IXC
    stored = low.emit(f"load volatile i64, ptr {low.env(low.offsets.fpsr)}")
    return low.emit(f"or i64 {stored}, {low.emit(f'or i64 {invalid}, {others}')}")


def _set_status(low: Lowering, op: Op) -> None:
    low.line(f"store i64 {low.use(op.args[0])}, ptr {low.env(low.offsets.fpsr)}")
    write_mxcsr(low, low.emit(f"and i32 {read_mxcsr(low)}, {~HOST_FLAGS}"))


def _set_saturated(low: Lowering, op: Op) -> None:
    raise_flags(low, low.emit(f"select i1 {low.use(op.args[0])}, i64 {QC}, i64 0"))


LOWER: Final[dict[str, Lower]] = {
    "fcmp": _compare, "fcmp_flags": _compare_flags, "fpcr": _control, "set_fpcr": _set_control, "fpsr": _status,
    "set_fpsr": _set_status, "set_qc": _set_saturated,
}  # fmt: skip
