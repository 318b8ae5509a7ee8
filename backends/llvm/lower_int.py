"""Lowering of integer arithmetic, scalar and lanewise, and of the operands of the record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.ir.values import Place

from .lower import int_text
from .source import IMM, NPC, PC, SHIFTS, TARGET, Immediate
from .text import PAIR, UNPREDICTABLE, llvm_type, mangled

if TYPE_CHECKING:
    from dbt.ir.types import Type
    from dbt.ir.values import Op, Value

    from .lower import Lower, Lowering, Operand

_FOLDS: Final = {"add", "sub", "and", "or", "xor", "mul"}
_COMMUTES: Final = {"add", "and", "or", "xor", "mul"}
_SUMS: Final = ("add", "sub")
_INTRINSICS: Final = {
    "umin": "umin", "umax": "umax", "smin": "smin", "smax": "smax", "uaddsat": "uadd.sat", "saddsat": "sadd.sat",
    "usubsat": "usub.sat", "ssubsat": "ssub.sat", "popcount": "ctpop", "bitreverse": "bitreverse",
}  # fmt: skip
_WITH_FLAG: Final = {"clz": "ctlz", "ctz": "cttz", "abs": "abs"}
# Predicates, and what they are with the operands exchanged.
_PREDICATES: Final = {"eq": "eq", "ne": "ne", "ult": "ugt", "ule": "uge", "slt": "sgt", "sle": "sge"}


def _result(op: Op) -> Value:
    assert op.result is not None
    return op.result


def constant(value: int | tuple[int, ...], type_: Type) -> str:
    """A constant of any type; floats by their bits."""
    lane = type_.lane
    if type_.lanes:
        lanes = value if isinstance(value, tuple) else (value,) * type_.lanes
        if not any(lanes):
            return "zeroinitializer"
        return "<" + ", ".join(f"{llvm_type(lane)} {constant(v, lane)}" for v in lanes) + ">"
    number = value[0] if isinstance(value, tuple) else value
    if lane.is_float:
        return f"bitcast (i{lane.bits} {number} to {llvm_type(lane)})"
    return int_text(number, lane)


def splat(value: int, type_: Type) -> str:
    """The constant with every lane (or the scalar) `value`."""
    return constant((value,) * type_.lanes if type_.lanes else value, type_)


def _const(_low: Lowering, op: Op) -> Operand:
    value = op.attrs["value"]
    assert isinstance(value, int | tuple)
    assert not isinstance(value, Place)
    return constant(value, _result(op).type)


def _number(which: str) -> Lower:
    return lambda _low, _op: Immediate(which)


def _sum(low: Lowering, op: Op) -> Immediate | None:
    """An immediate of 64 bits plus a small constant stays an immediate."""
    if op.name not in ("add", "sub"):
        return None
    for i in (0, 1) if op.name == "add" else (0,):
        found, other = low.operand(op.args[i]), op.args[1 - i].op
        if isinstance(found, Immediate) and found.bits == 64 and other.name == "const":
            value = other.attrs["value"]
            assert isinstance(value, int)
            signed = (value ^ 1 << 63) - (1 << 63)
            if abs(signed) < 1 << 12:
                addend = found.addend + (signed if op.name == "add" else -signed)
                return found._replace(addend=addend)
    return None


def binary(low: Lowering, op: Op) -> Operand:
    """add, sub, mul, and, or, xor."""
    kept = _sum(low, op)
    if kept is not None:
        return kept
    a, b = op.args
    bits = a.type.width
    if bits == 128 and a.type.is_int and op.name in ("and", "or", "xor"):
        x, y = (low.body.paired(low.use(v)) for v in (a, b))
        return low.body.unpaired(low.emit(f"{op.name} {PAIR} {x}, {y}"))
    if op.name in _COMMUTES and isinstance(low.operand(a), Immediate):
        a, b = b, a
    number = low.operand(b)
    if isinstance(number, Immediate) and op.name in _SUMS and bits in (32, 64) and not low.compared(b):
        if op.name == "add" and low.uses[a.index] > 1:  # lea, which keeps the other
            return low.emit(f"add {llvm_type(a.type)} {low.use(a)}, {low.fold(b)}")
        summed = low.source.summed(op.name, bits, low.use(a), number)
        if summed is not None:
            return summed
    return low.emit(f"{op.name} {llvm_type(a.type)} {low.use(a)}, {right_operand(low, op.name, b)}")


def right_operand(low: Lowering, name: str, b: Value) -> str:
    """The second operand of a binary op; the flags of the op are taken from the same text, so that LLVM merges them.

    A 64-bit number beside a loaded operand is shorter through a register (holes.py), but sub, which cannot commute
    and whose difference is most often compared, takes it directly.
    """
    bits = b.type.width
    direct = name in _FOLDS and (bits == 32 or (bits == 64 and name == "sub"))
    return low.fold(b) if direct else low.use(b)


def _shift(low: Lowering, op: Op) -> Operand:
    """Shifts and rotations: the amount counts modulo the lane's width."""
    a, n = op.args
    type_ = a.type
    amount = low.operand(n)
    if isinstance(amount, Immediate) and type_.is_int and type_.bits in (32, 64) and op.name in SHIFTS:
        shifted = low.source.shifted(op.name, type_.bits, low.use(a), amount)
        if shifted is not None:
            return shifted
    text = llvm_type(type_)
    if op.name == "rotr":
        return low.call(text, f"llvm.fshr.{mangled(type_)}", (text, low.use(a)), (text, low.use(a)), (text, low.use(n)))
    count = low.use(n)
    if n.op.name != "const" or any_out_of_range(n, type_.bits):
        count = low.emit(f"and {text} {count}, {splat(type_.bits - 1, type_)}")
    return low.emit(f"{op.name} {text} {low.use(a)}, {count}")


def any_out_of_range(n: Value, bits: int) -> bool:
    """Whether a constant shift amount has a lane of `bits` or more."""
    value = n.op.attrs["value"]
    lanes = (value,) if isinstance(value, int) else value
    return not isinstance(lanes, tuple) or any(lane is None or lane >= bits for lane in lanes)


def _fshr(low: Lowering, op: Op) -> Operand:
    a, b, n = op.args
    text, amount = llvm_type(a.type), low.operand(n)
    if isinstance(amount, Immediate) and a.type.is_int and a.type.bits in (32, 64):
        funneled = low.source.funneled(a.type.bits, low.use(a), low.use(b), amount)
        if funneled is not None:
            return funneled
    return low.call(text, f"llvm.fshr.{mangled(a.type)}", *((text, low.use(v)) for v in (a, b, n)))


def _divide(low: Lowering, op: Op) -> Operand:
    """x / 0 = 0, MIN / -1 = MIN: the divisor is made harmless first, since the host's division traps."""
    a, b = op.args
    text, use_a, use_b = llvm_type(a.type), low.use(a), low.use(b)
    cond = f"<{a.type.lanes} x i1>" if a.type.lanes else "i1"
    zero, one = splat(0, a.type), splat(1, a.type)
    by_zero = low.emit(f"icmp eq {text} {use_b}, {zero}")
    bad = by_zero
    if op.name == "sdiv":
        minus = low.emit(f"icmp eq {text} {use_b}, {splat(-1, a.type)}")
        least = low.emit(f"icmp eq {text} {use_a}, {splat(1 << (a.type.bits - 1), a.type)}")
        overflow = low.emit(f"and {cond} {minus}, {least}")
        bad = low.emit(f"or {cond} {by_zero}, {overflow}")
    safe = low.emit(f"select {cond} {bad}, {text} {one}, {text} {use_b}")
    quotient = low.emit(f"{op.name} {text} {use_a}, {safe}")
    return low.emit(f"select {cond} {by_zero}, {text} {zero}, {text} {quotient}")


def _high(low: Lowering, op: Op) -> Operand:
    a, b = op.args
    text = llvm_type(a.type)
    wide = f"<{a.type.lanes} x i{2 * a.type.bits}>" if a.type.lanes else f"i{2 * a.type.bits}"
    extend = "zext" if op.name == "umulh" else "sext"
    x = low.emit(f"{extend} {text} {low.use(a)} to {wide}")
    y = low.emit(f"{extend} {text} {low.use(b)} to {wide}")
    product = low.emit(f"mul {wide} {x}, {y}")
    amount = f"<{', '.join([f'i{2 * a.type.bits} {a.type.bits}'] * a.type.lanes)}>" if a.type.lanes else a.type.bits
    high = low.emit(f"lshr {wide} {product}, {amount}")
    return low.emit(f"trunc {wide} {high} to {text}")


def _intrinsic(low: Lowering, op: Op) -> Operand:
    text = llvm_type(op.args[0].type)
    name = f"llvm.{_INTRINSICS[op.name]}.{mangled(op.args[0].type)}"
    return low.call(text, name, *((text, low.use(v)) for v in op.args))


def _counted(low: Lowering, op: Op) -> Operand:
    (a,) = op.args
    text = llvm_type(a.type)
    return low.call(text, f"llvm.{_WITH_FLAG[op.name]}.{mangled(a.type)}", (text, low.use(a)), ("i1", "false"))


def _bswap(low: Lowering, op: Op) -> Operand:
    (a,) = op.args
    if a.type.bits == 8:
        return low.use(a)
    text = llvm_type(a.type)
    return low.call(text, f"llvm.bswap.{mangled(a.type)}", (text, low.use(a)))


def _compare(low: Lowering, op: Op) -> Operand:
    a, b = op.args
    predicate = op.name
    if isinstance(low.operand(a), Immediate):  # a constant stands on the right
        a, b, predicate = b, a, _PREDICATES[predicate]
    right = low.fold(b) if a.type.is_int else low.use(b)
    return low.emit(f"icmp {predicate} {llvm_type(a.type)} {low.use(a)}, {right}")


def _convert(low: Lowering, op: Op) -> Operand:
    (a,), result = op.args, _result(op)
    found = low.operand(a)
    if isinstance(found, Immediate) and op.name == "trunc" and result.type.bits > 1:
        return found._replace(bits=result.type.bits)
    if a.type is result.type:
        return found
    return low.emit(f"{op.name} {low.typed(a)} to {llvm_type(result.type)}")


def _select(low: Lowering, op: Op) -> Operand:
    condition, a, b = op.args
    return low.emit(f"select {low.typed(condition)}, {low.typed(a)}, {low.typed(b)}, {UNPREDICTABLE}")


LOWER: Final[dict[str, Lower]] = {
    "const": _const, "imm": _number(IMM), "imm2": _number(TARGET), "pc": _number(PC), "npc": _number(NPC),
    "number": lambda _low, op: Immediate(f"N{op.attrs['index']}"),
    **dict.fromkeys(("add", "sub", "mul", "and", "or", "xor"), binary),
    **dict.fromkeys(SHIFTS, _shift), "fshr": _fshr,
    "udiv": _divide, "sdiv": _divide, "umulh": _high, "smulh": _high,
    **dict.fromkeys(_INTRINSICS, _intrinsic), **dict.fromkeys(_WITH_FLAG, _counted), "bswap": _bswap,
    **dict.fromkeys(_PREDICATES, _compare),
    "zext": _convert, "sext": _convert, "trunc": _convert, "select": _select,
}  # fmt: skip
