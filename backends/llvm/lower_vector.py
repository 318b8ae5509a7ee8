"""Lowering of ops on whole vectors: lanes, shuffles, reductions, table look-up, carry-less products, narrowing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.ir.types import I8, I64, vector
from dbt.ir.values import Place

from .lower_int import constant, splat
from .text import llvm_type, mangled

if TYPE_CHECKING:
    from dbt.ir.types import Type
    from dbt.ir.values import Op, Value

    from .lower import Lower, Lowering, Operand

_V16I8: Final = vector(I8, 16)
_V2I64: Final = vector(I64, 2)
_TABLE_BYTES: Final = 16


def _type(op: Op) -> Type:
    assert op.type is not None
    return op.type


def _number(op: Op, name: str) -> int:
    value = op.attrs[name]
    assert isinstance(value, int)
    return value


def _bitcast(low: Lowering, op: Op) -> Operand:
    (a,), result = op.args, _type(op)
    if llvm_type(a.type) == llvm_type(result):
        return low.operand(a)
    return low.emit(f"bitcast {low.typed(a)} to {llvm_type(result)}")


def _lane(low: Lowering, op: Op) -> Operand:
    return low.emit(f"extractelement {low.typed(op.args[0])}, i32 {_number(op, 'index')}")


def _with_lane(low: Lowering, op: Op) -> Operand:
    a, lane = op.args
    return low.emit(f"insertelement {low.typed(a)}, {low.typed(lane)}, i32 {_number(op, 'index')}")


def _splat(low: Lowering, op: Op) -> Operand:
    result, (a,) = _type(op), op.args
    text = llvm_type(result)
    one = low.emit(f"insertelement {text} poison, {low.typed(a)}, i32 0")
    return low.emit(f"shufflevector {text} {one}, {text} poison, <{result.lanes} x i32> zeroinitializer")


def _shuffle(low: Lowering, op: Op) -> Operand:
    mask = op.attrs["mask"]
    assert isinstance(mask, tuple)
    assert not isinstance(mask, Place)
    a, b = op.args
    return low.emit(f"shufflevector {low.typed(a)}, {low.typed(b)}, {_mask(mask)}")


def _mask(lanes: tuple[int, ...]) -> str:
    return f"<{len(lanes)} x i32> <{', '.join(f'i32 {lane}' for lane in lanes)}>"


def _reduce(low: Lowering, op: Op) -> Operand:
    (a,) = op.args
    name = f"llvm.vector.reduce.{op.attrs['op']}.{mangled(a.type)}"
    return low.call(llvm_type(a.type.lane), name, (llvm_type(a.type), low.use(a)))


def _tbl(low: Lowering, op: Op) -> Operand:
    """pshufb picks within 16 bytes and gives 0 where bit 7 of the index is set.

    For table t the index is taken relative to it and saturated upwards by adding 0x70, so that anything not in
    [0, 16) has bit 7 set: bytes below the table wrap to large values before.
    """
    index, tables = op.args[0], op.args[1:]
    wide, text = llvm_type(_V16I8), llvm_type(index.type)
    picked = low.use(index)
    if index.type.lanes != _TABLE_BYTES:
        grown = tuple(range(index.type.lanes)) * (_TABLE_BYTES // index.type.lanes)
        picked = low.emit(f"shufflevector {text} {picked}, {text} poison, {_mask(grown)}")
    result = ""
    for i, table in enumerate(tables):
        relative = picked
        if i:
            relative = low.emit(f"sub {wide} {picked}, {splat(_TABLE_BYTES * i, _V16I8)}")
        safe = low.call(wide, "llvm.uadd.sat.v16i8", (wide, relative), (wide, splat(0x70, _V16I8)))
        part = low.call(wide, "llvm.x86.ssse3.pshuf.b.128", (wide, low.use(table)), (wide, safe))
        result = low.emit(f"or {wide} {result}, {part}") if result else part
    if index.type.lanes != _TABLE_BYTES:
        kept = _mask(tuple(range(index.type.lanes)))
        result = low.emit(f"shufflevector {wide} {result}, {wide} poison, {kept}")
    return result


def _clmul(low: Lowering, op: Op) -> Operand:
    """pclmulqdq, which every host with SSE4.2 of the last decade has; backends/llvm/compile.py checks features."""
    pair = llvm_type(_V2I64)
    a, b = (low.emit(f"insertelement {pair} zeroinitializer, i64 {low.use(arg)}, i32 0") for arg in op.args)
    product = low.call(pair, "llvm.x86.pclmulqdq", (pair, a), (pair, b), ("i8 immarg", "0"))
    return low.emit(f"bitcast {pair} {product} to i128")


def _pmul(low: Lowering, op: Op) -> Operand:
    """Lane by lane with shifts and masks: eight partial products of bytes."""
    a, b = op.args
    text, zero = llvm_type(a.type), splat(0, a.type)
    use_a, use_b = low.use(a), low.use(b)
    total = zero
    for bit in range(8):
        there = low.emit(f"and {text} {use_b}, {splat(1 << bit, a.type)}")
        unset = low.emit(f"icmp eq {text} {there}, {zero}")
        shifted = low.emit(f"shl {text} {use_a}, {splat(bit, a.type)}")
        part = low.emit(f"select <{a.type.lanes} x i1> {unset}, {text} {zero}, {text} {shifted}")
        total = low.emit(f"xor {text} {total}, {part}")
    return total


def _sat_narrow(low: Lowering, op: Op) -> Operand:
    """Clamp in the wide type, then truncate."""
    (a,), result = op.args, _type(op)
    value = low.use(a)
    top = (1 << (result.bits - bool(op.attrs["to_signed"]))) - 1
    bottom = -(1 << (result.bits - 1)) if op.attrs["to_signed"] else 0
    if op.attrs["from_signed"]:
        value = _clamp(low, "smax", a, value, bottom)
        value = _clamp(low, "smin", a, value, top)
    else:
        value = _clamp(low, "umin", a, value, top)
    return low.emit(f"trunc {llvm_type(a.type)} {value} to {llvm_type(result)}")


def _clamp(low: Lowering, op: str, a: Value, value: str, bound: int) -> str:
    text = llvm_type(a.type)
    lanes = (bound & ((1 << a.type.bits) - 1),) * a.type.lanes
    limit = constant(lanes if a.type.lanes else bound, a.type)
    return low.call(text, f"llvm.{op}.{mangled(a.type)}", (text, value), (text, limit))


LOWER: Final[dict[str, Lower]] = {
    "bitcast": _bitcast, "lane": _lane, "with_lane": _with_lane, "splat": _splat, "shuffle": _shuffle,
    "reduce": _reduce, "tbl": _tbl, "clmul": _clmul, "pmul": _pmul, "sat_narrow": _sat_narrow,
}  # fmt: skip
