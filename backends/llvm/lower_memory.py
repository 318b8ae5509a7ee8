"""Lowering of guest state and guest memory: loads, stores, atomics, exclusives, fences (DESIGN, section 6).

host = base + (address AND mask). Where the address is a value plus an immediate, only the value is masked and the
immediate becomes the displacement: guard zones at both ends of the range absorb it. So it is with an index that has few
bits, where it is known (in regions): then the mask is not on the way from a register to what is loaded. A number of the
record alone is a code address plus an offset, in the range by construction, and not masked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.engine.layout import EXIT_ALIGNMENT
from dbt.ir.types import I128
from dbt.ir.values import IRError, Place

from .lower_control import leave_if
from .source import IMM, TARGET, Immediate
from .text import PAIR, UNLIKELY, llvm_type

if TYPE_CHECKING:
    from dbt.ir.types import Type
    from dbt.ir.values import Op, Value

    from .lower import Lower, Lowering, Operand

_GUARD: Final = 1 << 15  # constants below this stay displacements
_FENCES: Final = {"full": "seq_cst", "load": "acquire", "store": "release"}
_RMW: Final = {name: name for name in ("add", "and", "or", "xor", "xchg", "umin", "umax")} | {
    "smin": "min", "smax": "max",
}  # fmt: skip


# guest state
def _get(low: Lowering, op: Op) -> Operand:
    place, type_ = op.attrs["place"], op.type
    assert isinstance(place, Place)
    assert type_ is not None
    assert op.result is not None
    whole = low.source.part(place, type_)
    if whole is not None:
        return whole
    pointer = low.source.pointer(place)
    volatile = "volatile " if op.result.index in low.selected else ""
    if low.is_moved(op.result):
        return low.body.unpaired(low.emit(f"load {PAIR}, ptr {pointer}, align 8"))
    return low.emit(f"load {volatile}{llvm_type(type_)}, ptr {pointer}, align {_state_alignment(type_)}")


def _put(low: Lowering, op: Op) -> Operand:
    place, (value,) = op.attrs["place"], op.args
    assert isinstance(place, Place)
    type_ = llvm_type(value.type)
    given = low.fold(value) if value.type.is_int else low.use(value)
    if low.is_moved(value):
        type_, given = PAIR, low.body.paired(given)
    low.line(f"store {type_} {given}, ptr {low.source.pointer(place)}, align {_state_alignment(value.type)}")
    low.written(place)
    return None


def _state_alignment(type_: Type) -> int:
    return min(type_.width // 8, 8)


# addresses
def _signed(op: Op) -> int:
    """The value of a const op of 64 bits."""
    value = op.attrs["value"]
    assert isinstance(value, int)
    return (value ^ 1 << 63) - (1 << 63)


def _split(low: Lowering, address: Value) -> tuple[Value | None, Immediate | None, int]:
    """Address = value + immediate + constant, as far as a displacement holds them; value None: none is left."""
    constant, left = 0, address
    number: Immediate | None = None
    while True:
        found, op = low.operand(left), left.op
        if isinstance(found, Immediate):
            return None, found, constant
        for i in {"add": (1, 0), "sub": (1,)}.get(op.name, ()):
            rest, term = op.args[1 - i], op.args[i]
            offset = low.operand(term)
            if term.op.name == "const":
                moved = constant + (_signed(term.op) if op.name == "add" else -_signed(term.op))
                if abs(moved) < _GUARD:
                    constant, left = moved, rest
                    break
            elif (
                op.name == "add" and number is None and isinstance(offset, Immediate) and _is_offset(low, offset, rest)
            ):
                number, left = offset, rest
                break
        else:
            return left, number, constant


def _is_offset(low: Lowering, number: Immediate, rest: Value) -> bool:
    """Whether a number is an offset from the rest: not a code address, and the rest a value of the guest's."""
    return number.which in (IMM, TARGET) and number.bits == 64 and not isinstance(low.operand(rest), Immediate)


def host_pointer(low: Lowering, address: Value) -> str:
    """Host pointer of a guest address."""
    left, number, constant = _split(low, address)
    if number is not None:
        number = number._replace(addend=number.addend + constant)
        displacement = low.source.folded(number)
        if displacement is None:
            if left is not None:  # a 64-bit number may be anything: mask the whole sum
                return _masked(low, address)
            displacement = low.hold(number)
    else:
        displacement = str(constant) if constant else ""
    pointer = low.source.base if left is None else _indexed(low, left)
    return low.emit(f"getelementptr i8, ptr {pointer}, i64 {displacement}") if displacement else pointer


def _indexed(low: Lowering, address: Value) -> str:
    """Host pointer of a sum whose one term is an index that guard zones absorb: only the other term is masked."""
    if address.op.name == "add":
        for rest, index in (address.op.args, address.op.args[::-1]):
            if low.is_index(index) and isinstance(low.operand(rest), str):
                return low.emit(f"getelementptr i8, ptr {_masked(low, rest)}, i64 {low.use(index)}")
    return _masked(low, address)


def _masked(low: Lowering, address: Value) -> str:
    return low.known_pointer(address) or low.source.masked(low.use(address))


def _check_space(op: Op) -> None:
    if op.attrs.get("space", "memory") == "io":
        raise IRError(f"{op!r}: direct memory has no I/O space")


def _host(low: Lowering, op: Op) -> Operand:
    """A plain access to memory of the host: what tools insert."""
    pointer = low.emit(f"inttoptr i64 {low.use(op.args[0])} to ptr")
    if op.type is not None:
        return low.emit(f"load {llvm_type(op.type)}, ptr {pointer}, align 1")
    low.line(f"store {low.typed(op.args[1])}, ptr {pointer}, align 1")
    return None


def _swapped(low: Lowering, op: Op, value: str, type_: Type) -> str:
    if op.attrs.get("endian", "little") == "little" or type_.bits == 8:
        return value
    if not type_.is_int:
        raise IRError(f"{op!r}: big-endian accesses are of integers")
    return low.call(llvm_type(type_), f"llvm.bswap.{type_.name}", (llvm_type(type_), value))


# plain accesses
def _load(low: Lowering, op: Op) -> Operand:
    _check_space(op)
    if op.attrs["space"] == "host":
        return _host(low, op)
    assert op.type is not None
    assert op.result is not None
    pointer, ordered = host_pointer(low, op.args[0]), op.attrs["order"] == "acquire"
    if low.is_moved(op.result) and not ordered and op.attrs["endian"] == "little":
        return low.body.unpaired(low.read(pointer, PAIR))
    return _swapped(low, op, low.read(pointer, llvm_type(op.type), ordered=ordered), op.type)


def _store(low: Lowering, op: Op) -> Operand:
    _check_space(op)
    if op.attrs["space"] == "host":
        return _host(low, op)
    address, value = op.args
    pointer, text = host_pointer(low, address), llvm_type(value.type)
    given = low.fold(value) if value.type.is_int and op.attrs["endian"] == "little" else low.use(value)
    given = _swapped(low, op, given, value.type)
    if low.is_moved(value) and op.attrs["order"] == "relaxed" and op.attrs["endian"] == "little":
        low.write(pointer, PAIR, low.body.paired(given))
    elif op.attrs["order"] == "relaxed":
        low.write(pointer, text, given)
    elif value.type.is_int:
        low.line(f"store atomic volatile {text} {given}, ptr {pointer} seq_cst, align {value.type.width // 8}")
    else:
        low.line("fence release")
        low.write(pointer, text, given)
        low.line("fence seq_cst")
    return None


# atomics: on an x86 host always the host's, whatever the order asked for
def _rmw(low: Lowering, op: Op) -> Operand:
    address, value = op.args
    text = llvm_type(value.type)
    big = op.attrs["endian"] == "big"
    if big and op.attrs["op"] not in ("and", "or", "xor", "xchg"):
        raise IRError(f"{op!r}: no big-endian arithmetic in memory")
    given = _swapped(low, op, low.use(value), value.type)
    # In a region the value may be a constant. An `or` with 0 LLVM would make a load, which does not fault where the
    # memory is read-only: it must not know.
    given = low.emit(f'call {text} asm "", "=r,0"({text} {given})')
    pointer = host_pointer(low, address)
    name = _RMW[str(op.attrs["op"])]
    old = low.emit(f"atomicrmw volatile {name} ptr {pointer}, {text} {given} seq_cst, align {value.type.width // 8}")
    return _swapped(low, op, old, value.type)


def _cas(low: Lowering, op: Op) -> Operand:
    address, expected, new = op.args
    type_ = expected.type
    wanted, given = (_swapped(low, op, low.use(v), type_) for v in (expected, new))
    old, _ = _exchange(low, host_pointer(low, address), type_, wanted, given)
    return _swapped(low, op, old, type_)


def _exchange(low: Lowering, pointer: str, type_: Type, expected: str, new: str) -> tuple[str, str]:
    text = llvm_type(type_)
    pair = low.emit(
        f"cmpxchg volatile ptr {pointer}, {text} {expected}, {text} {new} seq_cst seq_cst, align {type_.width // 8}"
    )
    old = low.emit(f"extractvalue {{ {text}, i1 }} {pair}, 0")
    return old, low.emit(f"extractvalue {{ {text}, i1 }} {pair}, 1")


def _fence(low: Lowering, op: Op) -> Operand:
    low.line(f"fence {_FENCES[str(op.attrs['kind'])]}")
    return None


# the exclusive monitor: address, size and value in env; the address is all ones while it is open
def _load_exclusive(low: Lowering, op: Op) -> Operand:
    type_ = op.type
    assert type_ is not None
    pointer = host_pointer(low, op.args[0])
    value = low.read(pointer, llvm_type(type_), ordered=True)
    offsets, wide = low.offsets, value
    if type_ is not I128:
        wide = low.emit(f"zext {llvm_type(type_)} {value} to i128")
    low.line(f"store i64 {low.use(op.args[0])}, ptr {low.env(offsets.exclusive_address)}")
    low.line(f"store i64 {type_.width // 8}, ptr {low.env(offsets.exclusive_size)}")
    low.line(f"store i128 {wide}, ptr {low.env(offsets.exclusive_value)}, align 8")
    return _swapped(low, op, value, type_)


def _store_exclusive(low: Lowering, op: Op) -> Operand:
    """0 if address, size and the value in memory are what the monitor holds and the exchange succeeds, else 1."""
    address, value = op.args
    type_, offsets, text = value.type, low.offsets, llvm_type(value.type)
    armed = low.emit(f"load i64, ptr {low.env(offsets.exclusive_address)}")
    size = low.emit(f"load i64, ptr {low.env(offsets.exclusive_size)}")
    other = low.emit(f"icmp ne i64 {armed}, {low.use(address)}")
    resized = low.emit(f"icmp ne i64 {size}, {type_.width // 8}")
    refused = low.emit(f"or i1 {other}, {resized}")
    expected = low.emit(f"load {text}, ptr {low.env(offsets.exclusive_value)}, align 8")
    given = _swapped(low, op, low.use(value), type_)
    pointer = host_pointer(low, address)
    start, attempt, done = (low.body.label(hint) for hint in ("monitor", "attempt", "stored"))
    low.line(f"br label %{start}")
    low.body.place(start)
    low.line(f"br i1 {refused}, label %{done}, label %{attempt}, {UNLIKELY}")
    low.body.place(attempt)
    _, success = _exchange(low, pointer, type_, expected, given)
    failed = low.emit(f"xor i1 {success}, true")
    low.line(f"br label %{done}")
    low.body.place(done)
    status = low.emit(f"phi i1 [ true, %{start} ], [ {failed}, %{attempt} ]")
    _disarm(low)
    return low.emit(f"zext i1 {status} to i32")


def _disarm(low: Lowering) -> None:
    low.line(f"store i64 -1, ptr {low.env(low.offsets.exclusive_address)}")


def _clear_exclusive(low: Lowering, _op: Op) -> Operand:
    _disarm(low)
    return None


def _align_check(low: Lowering, op: Op) -> Operand:
    size, (address,) = op.attrs["size"], op.args
    assert isinstance(size, int)
    if size > 1:
        low_bits = low.emit(f"and i64 {low.use(address)}, {size - 1}")
        leave_if(low, low.emit(f"icmp ne i64 {low_bits}, 0"), EXIT_ALIGNMENT, low.use(address), "this")
    return None


LOWER: Final[dict[str, Lower]] = {
    "get": _get, "put": _put, "load": _load, "store": _store, "rmw": _rmw, "cas": _cas, "fence": _fence,
    "load_exclusive": _load_exclusive, "store_exclusive": _store_exclusive, "clear_exclusive": _clear_exclusive,
    "align_check": _align_check,
}  # fmt: skip
