"""Lowering of flags: four words (layout.Env.flags); N and V are sign bits, Z is 'the word is 0', C is 0 or 1.

A `flags` op writes nothing yet: its operands are kept (Pending), so that a condition right behind it becomes one host
compare, and words are computed only where they leave the function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .lower import Pending
from .lower_int import right_operand
from .source import Flags, Immediate

if TYPE_CHECKING:
    from dbt.ir.values import Op, Value

    from .lower import Lower, Lowering, Operand

_PREDICATES: Final = {
    "eq": "eq", "ne": "ne", "cs": "uge", "cc": "ult", "hi": "ugt", "ls": "ule",
    "ge": "sge", "lt": "slt", "gt": "sgt", "le": "sle",
}  # fmt: skip
_LOGIC: Final = {"eq": "eq", "ne": "ne", "mi": "slt", "pl": "sge", "ge": "sge", "lt": "slt", "gt": "sgt", "le": "sle"}
_LOGIC_FIXED: Final = {"cs": "false", "cc": "true", "vs": "false", "vc": "true", "hi": "false", "ls": "true"}
_INVERTED: Final = {"ne": "eq", "cc": "cs", "pl": "mi", "vc": "vs", "ls": "hi", "ge": "lt", "le": "gt"}


def _pending(low: Lowering, kind: str, a: Value, b: Value, result: Value, carry: Value | None) -> Pending:
    if kind == "add" and isinstance(low.operand(a), Immediate):
        a, b = b, a  # as lower_int.binary does
    right = right_operand(low, kind, b) if kind != "logic" else ""
    left = low.use(a) if kind != "logic" else ""
    return Pending(kind, a.type.bits, left, right, low.use(result), None if carry is None else low.use(carry))


def _flags(low: Lowering, op: Op) -> Operand:
    a, b, result, *rest = op.args
    low.flags = _pending(low, str(op.attrs["kind"]), a, b, result, rest[0] if rest else None)
    return None


def words(low: Lowering) -> Flags:
    """The flag words, computed if the flags are still operands of what set them."""
    if isinstance(low.flags, Pending):
        low.flags = _words(low, low.flags)
    return low.flags


def _words(low: Lowering, p: Pending) -> Flags:
    bits, n, z = p.bits, p.result, p.result
    if bits < 64:
        n = low.emit(f"sext i{bits} {p.result} to i64")
        z = low.emit(f"zext i{bits} {p.result} to i64")
    if p.kind == "logic":
        return Flags(n, z, "0", "0")
    carry = low.emit(f"zext i1 {_carry(low, p)} to i64")
    overflow = low.emit(f"zext i1 {_overflow(low, p)} to i64")
    return Flags(n, z, carry, low.emit(f"shl i64 {overflow}, 63"))


def _carry(low: Lowering, p: Pending) -> str:
    text = f"i{p.bits}"
    if p.kind == "logic":
        return "false"
    if p.kind == "sub":
        return low.emit(f"icmp uge {text} {p.a}, {p.b}")
    if p.kind == "add":
        return _with_overflow(low, "uadd", p.bits, p.a, p.b)[1]
    right = p.b if p.kind == "adc" else low.emit(f"xor {text} {p.b}, -1")
    part, first = _with_overflow(low, "uadd", p.bits, p.a, right)
    carry = low.emit(f"zext i1 {p.carry} to {text}")
    _, second = _with_overflow(low, "uadd", p.bits, part, carry)
    return low.emit(f"or i1 {first}, {second}")


def _overflow(low: Lowering, p: Pending) -> str:
    text = f"i{p.bits}"
    if p.kind == "logic":
        return "false"
    if p.kind in ("add", "sub"):
        return _with_overflow(low, "s" + p.kind, p.bits, p.a, p.b)[1]
    # adc: both operands differ in sign from the result; sbc: the first differs from both
    second = f"{p.b}, {p.result}" if p.kind == "adc" else f"{p.a}, {p.b}"
    x = low.emit(f"xor {text} {p.a}, {p.result}")
    y = low.emit(f"xor {text} {second}")
    both = low.emit(f"and {text} {x}, {y}")
    return low.emit(f"icmp slt {text} {both}, 0")


def _with_overflow(low: Lowering, name: str, bits: int, a: str, b: str) -> tuple[str, str]:
    text = f"i{bits}"
    pair = low.call(f"{{ {text}, i1 }}", f"llvm.{name}.with.overflow.{text}", (text, a), (text, b))
    value = low.emit(f"extractvalue {{ {text}, i1 }} {pair}, 0")
    return value, low.emit(f"extractvalue {{ {text}, i1 }} {pair}, 1")


# reading
def _cond(low: Lowering, op: Op) -> Operand:
    cc = str(op.attrs["cc"])
    if isinstance(low.flags, Pending):
        found = _direct(low, low.flags, cc)
        if found is not None:
            return found
    return _tested(low, words(low), cc)


def _direct(low: Lowering, p: Pending, cc: str) -> str | None:
    """A condition as a compare of the operands that set the flags; None: only the words know."""
    text = f"i{p.bits}"
    if p.kind == "sub" and cc in _PREDICATES:
        return low.emit(f"icmp {_PREDICATES[cc]} {text} {p.a}, {p.b}")
    if p.kind == "logic":
        return _LOGIC_FIXED.get(cc) or low.emit(f"icmp {_LOGIC[cc]} {text} {p.result}, 0")
    if cc in ("eq", "ne", "mi", "pl"):
        return low.emit(f"icmp {_LOGIC[cc]} {text} {p.result}, 0")
    if cc in ("cs", "vs"):
        return _carry(low, p) if cc == "cs" else _overflow(low, p)
    if cc in ("cc", "vc"):
        return low.emit(f"xor i1 {_carry(low, p) if cc == 'cc' else _overflow(low, p)}, true")
    return None


def _tested(low: Lowering, f: Flags, cc: str) -> str:
    """A condition on the words, each as one test."""
    inverse = _INVERTED.get(cc)
    if cc in ("eq", "ne"):
        return low.emit(f"icmp {cc} i64 {f.z}, 0")
    if cc in ("mi", "pl", "vs", "vc"):
        sign = "slt" if cc in ("mi", "vs") else "sge"
        return low.emit(f"icmp {sign} i64 {f.n if cc in ('mi', 'pl') else f.v}, 0")
    if cc in ("cs", "cc"):
        return low.emit(f"icmp {'ne' if cc == 'cs' else 'eq'} i64 {f.c}, 0")
    if (inverse or cc) == "hi":  # C and not Z: the mask of C leaves something of z
        spread = low.emit(f"sub i64 0, {f.c}")
        both = low.emit(f"and i64 {spread}, {f.z}")
    else:
        both = low.emit(f"xor i64 {f.n}, {f.v}")
        if (inverse or cc) == "lt":
            return low.emit(f"icmp {'slt' if cc == 'lt' else 'sge'} i64 {both}, 0")
        # gt: N equals V and not Z
        spread = low.emit(f"ashr i64 {both}, 63")
        kept = low.emit(f"xor i64 {spread}, -1")
        both = low.emit(f"and i64 {kept}, {f.z}")
    return low.emit(f"icmp {'eq' if inverse else 'ne'} i64 {both}, 0")


def _carry_flag(low: Lowering, _op: Op) -> Operand:
    if isinstance(low.flags, Pending):
        return _carry(low, low.flags)
    return low.emit(f"icmp ne i64 {low.flags.c}, 0")


def _nzcv(low: Lowering, _op: Op) -> Operand:
    f = words(low)
    n = low.emit(f"lshr i64 {f.n}, 63")
    zero = low.emit(f"icmp eq i64 {f.z}, 0")
    z = low.emit(f"zext i1 {zero} to i64")
    v = low.emit(f"lshr i64 {f.v}, 63")
    total = "0"
    for word, bit in ((n, 31), (z, 30), (f.c, 29), (v, 28)):
        placed = low.emit(f"shl i64 {word}, {bit}")
        total = low.emit(f"or i64 {total}, {placed}")
    return total


# writing
def _set_nzcv(low: Lowering, op: Op) -> Operand:
    low.flags = _from_bits(low, low.use(op.args[0]), 28)
    return None


def _from_bits(low: Lowering, value: str, lowest: int) -> Flags:
    """Words from bits N, Z, C, V of a number, V at bit `lowest`."""
    n = low.emit(f"shl i64 {value}, {60 - lowest}")
    zero = low.emit(f"and i64 {value}, {4 << lowest}")
    z = low.emit(f"xor i64 {zero}, {4 << lowest}")
    shifted = low.emit(f"lshr i64 {value}, {lowest + 1}")
    c = low.emit(f"and i64 {shifted}, 1")
    return Flags(n, z, c, low.emit(f"shl i64 {value}, {63 - lowest}"))


def _flags_if(low: Lowering, op: Op) -> Operand:
    condition, a, b, result, nzcv = op.args
    use = low.use(condition)
    yes = _words(low, _pending(low, str(op.attrs["kind"]), a, b, result, None))
    no = _from_bits(low, low.use(nzcv), 0)
    low.flags = Flags(*(low.emit(f"select i1 {use}, i64 {y}, i64 {n}") for y, n in zip(yes, no, strict=True)))
    return None


LOWER: Final[dict[str, Lower]] = {
    "flags": _flags, "flags_if": _flags_if, "cond": _cond, "carry": _carry_flag, "nzcv": _nzcv, "set_nzcv": _set_nzcv,
}  # fmt: skip
