"""Every integer and vector op of the evaluator against a second formulation of it, on random operands.

The second formulation works on lists of bits or on unbounded integers and shares no code with dbt/ir/lanes.py.
"""

import ctypes
from collections.abc import Callable, Sequence
from fractions import Fraction

import pytest
from dbt.backends.reference.generate import KNOWN, compile_template
from dbt.backends.reference.state import State
from hypothesis import given, settings
from hypothesis import strategies as st

from dbt.engine.layout import Env
from dbt.ir.builder import Builder, Place
from dbt.ir.ops import OPS
from dbt.ir.types import F16, F32, I1, I8, I16, I32, I64, I128, Type, float_type, int_type, vector
from dbt.ir.values import Value
from dbt.ir.verify import verify

SETTINGS = settings(max_examples=25, deadline=None)
INTS = (I8, I16, I32, I64, I128)
VECTORS = (vector(I8, 8), vector(I8, 16), vector(I16, 8), vector(I32, 2), vector(I64, 2))


class NoMemory:
    """Memory that is not there."""

    def read(self, address: int, size: int, /) -> bytes:
        raise AssertionError(address, size)

    def write(self, address: int, data: bytes, /) -> None:
        raise AssertionError(address, data)


class Bench:
    """Evaluates one expression: arguments come from the register file, the result goes back to it."""

    def __init__(self) -> None:
        self.buffer = (ctypes.c_uint64 * (Env.size // 8 + 1))()
        self.state = State(ctypes.addressof(self.buffer), NoMemory())
        self.compiled: dict[object, Callable[..., int]] = {}

    def __call__(self, key: object, types: Sequence[Type], make: Callable[..., Value], args: Sequence[int]) -> int:
        """`make` builds the op; `args` and the result are whole values as one number, lane 0 lowest."""
        function = self.compiled.get((key, *types))
        if function is None:
            b = Builder()
            value = make(*(b.get(t, Place(i + 1, 0)) for i, t in enumerate(types)))
            if value.type.lane is I1:
                value = value.zext(8)
            b.put(Place(0, 0), value)
            function = self.compiled[key, *types] = compile_template(verify(b.template()), self.state.namespace)
        raw = self.state.bytes
        raw[:256] = bytes(256)
        for i, arg in enumerate(args):
            raw[32 * (i + 1) : 32 * (i + 2)] = arg.to_bytes(32, "little")
        function([0, 32, 64, 96, 128, 160], 0, 0, 0, 4)
        return int.from_bytes(raw[:32], "little")


BENCH = Bench()


def signed(value: int, bits: int) -> int:
    """Two's complement, by subtraction."""
    return value - (1 << bits) if value >= 1 << (bits - 1) else value


def bits_of(value: int, width: int) -> list[int]:
    """Lowest bit first."""
    return [value >> i & 1 for i in range(width)]


def from_bits(bits: Sequence[int]) -> int:
    return sum(bit << i for i, bit in enumerate(bits))


def quotient(a: int, b: int) -> int:
    """Truncated exact quotient."""
    return int(Fraction(a, b)) if b else 0


def polynomial(a: int, b: int, width: int) -> int:
    """Product over GF(2), bit by bit."""
    rows = [bits_of(a << i, 2 * width) for i in range(width) if b >> i & 1]
    return from_bits([sum(column) % 2 for column in zip(*rows, strict=True)]) if rows else 0


def clamp(value: int, low: int, high: int) -> int:
    return low if value < low else min(value, high)


def clamp_signed(value: int, bits: int) -> int:
    return clamp(value, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def rotated(a: int, n: int, w: int) -> int:
    bits = bits_of(a, w)
    return from_bits(bits[n % w :] + bits[: n % w])


def leading(bits: Sequence[int]) -> int:
    return next((i for i, bit in enumerate(bits) if bit), len(bits))


# name: function of the lanes and their width; its result is taken modulo the width (of a byte for a comparison)
ORACLES: dict[str, Callable[..., int]] = {
    "add": lambda a, b, _w: a + b,
    "sub": lambda a, b, _w: a - b,
    "mul": lambda a, b, w: signed(a, w) * signed(b, w),
    "and": lambda a, b, w: from_bits([x * y for x, y in zip(bits_of(a, w), bits_of(b, w), strict=True)]),
    "or": lambda a, b, w: from_bits([max(x, y) for x, y in zip(bits_of(a, w), bits_of(b, w), strict=True)]),
    "xor": lambda a, b, w: from_bits([int(x != y) for x, y in zip(bits_of(a, w), bits_of(b, w), strict=True)]),
    "shl": lambda a, b, w: a * 2 ** (b % w),
    "lshr": lambda a, b, w: from_bits(bits_of(a, w)[b % w :]),
    "ashr": lambda a, b, w: signed(a, w) // 2 ** (b % w),
    "rotr": rotated,
    "udiv": lambda a, b, _w: quotient(a, b),
    "sdiv": lambda a, b, w: quotient(signed(a, w), signed(b, w)),
    "umulh": lambda a, b, w: a * b // 2**w,
    "smulh": lambda a, b, w: signed(a, w) * signed(b, w) // 2**w,
    "umin": lambda a, b, _w: min(a, b),
    "umax": lambda a, b, _w: max(a, b),
    "smin": lambda a, b, w: min(signed(a, w), signed(b, w)),
    "smax": lambda a, b, w: max(signed(a, w), signed(b, w)),
    "uaddsat": lambda a, b, w: clamp(a + b, 0, 2**w - 1),
    "saddsat": lambda a, b, w: clamp_signed(signed(a, w) + signed(b, w), w),
    "usubsat": lambda a, b, w: clamp(a - b, 0, 2**w - 1),
    "ssubsat": lambda a, b, w: clamp_signed(signed(a, w) - signed(b, w), w),
    "eq": lambda a, b, _w: int(not a ^ b),
    "ne": lambda a, b, _w: int(bool(a ^ b)),
    "ult": lambda a, b, _w: int(a - b < 0),
    "ule": lambda a, b, _w: int(a - b <= 0),
    "slt": lambda a, b, w: int(signed(a, w) - signed(b, w) < 0),
    "sle": lambda a, b, w: int(signed(a, w) - signed(b, w) <= 0),
    "clz": lambda a, w: leading(bits_of(a, w)[::-1]),
    "ctz": lambda a, w: leading(bits_of(a, w)),
    "popcount": lambda a, w: sum(bits_of(a, w)),
    "bitreverse": lambda a, w: from_bits(bits_of(a, w)[::-1]),
    "bswap": lambda a, w: sum((a >> i & 255) << (w - 8 - i) for i in range(0, w, 8)),
    "abs": lambda a, w: max(signed(a, w), -signed(a, w)),
    "fneg": lambda a, w: (a + 2 ** (w - 1)) % 2**w,
    "fabs": lambda a, w: a % 2 ** (w - 1),
}


def lanes_of(value: int, type_: Type) -> list[int]:
    return [value // 2 ** (type_.bits * i) % 2**type_.bits for i in range(type_.lanes or 1)]


def whole(lanes: Sequence[int], bits: int) -> int:
    return sum((lane % 2**bits) * 2 ** (bits * i) for i, lane in enumerate(lanes))


def interesting(type_: Type) -> st.SearchStrategy[int]:
    """Random lanes, often the extremes or small numbers."""
    w = type_.bits
    edges = st.sampled_from([0, 1, 2, 2**w - 1, 2**w - 2, 2 ** (w - 1), 2 ** (w - 1) - 1, w, w - 1])
    lane = st.one_of(st.integers(0, 2**w - 1), edges)
    return st.lists(lane, min_size=type_.lanes or 1, max_size=type_.lanes or 1).map(lambda v: whole(v, w))


def emit(name: str) -> Callable[..., Value]:
    return lambda first, *rest: first.builder.value(name, first, *rest)


@pytest.mark.parametrize("name", [n for n in ORACLES if n not in ("fneg", "fabs")])
@given(st.data())
@SETTINGS
def test_lanewise(name: str, data: st.DataObject) -> None:
    type_ = data.draw(st.sampled_from(INTS + VECTORS))
    args = [data.draw(interesting(type_)) for _ in OPS[name].args]
    compares = OPS[name].result == "?0"
    lanes = zip(*(lanes_of(a, type_) for a in args), strict=True)
    expected = [ORACLES[name](*lane, type_.bits) for lane in lanes]
    assert BENCH(name, [type_] * len(args), emit(name), args) == whole(expected, 8 if compares else type_.bits)


@pytest.mark.parametrize("name", ["fneg", "fabs"])
@given(st.data())
@SETTINGS
def test_signs(name: str, data: st.DataObject) -> None:
    bits = data.draw(st.sampled_from([16, 32, 64]))
    value = data.draw(interesting(int_type(bits)))
    found = BENCH((name, bits), [int_type(bits)], lambda v: emit(name)(v.bitcast(float_type(bits))), [value])
    assert found == ORACLES[name](value, bits)


@given(st.data())
@SETTINGS
def test_funnel_shift(data: st.DataObject) -> None:
    type_ = data.draw(st.sampled_from((I32, I64, vector(I32, 2))))
    high, low, n = (data.draw(interesting(type_)) for _ in range(3))
    w = type_.bits
    lanes = zip(*(lanes_of(v, type_) for v in (high, low, n)), strict=True)
    expected = [(h * 2**w + lo) // 2 ** (k % w) for h, lo, k in lanes]
    assert BENCH("fshr", [type_] * 3, lambda a, b, c: a.fshr(b, c), [high, low, n]) == whole(expected, w)


@pytest.mark.parametrize("name", ["zext", "sext", "trunc"])
@given(st.data())
@SETTINGS
def test_widths(name: str, data: st.DataObject) -> None:
    lanes = data.draw(st.sampled_from([0, 2, 4]))
    small, large = sorted(data.draw(st.lists(st.sampled_from([8, 16, 32, 64]), min_size=2, max_size=2, unique=True)))
    if lanes * large > 128:
        lanes = 0
    source, bits = (large, small) if name == "trunc" else (small, large)
    type_ = int_type(source).with_lanes(lanes)
    value = data.draw(interesting(type_))
    values = lanes_of(value, type_)
    expected = [signed(v, source) if name == "sext" else v for v in values]
    assert BENCH((name, bits), [type_], lambda v: getattr(v, name)(bits), [value]) == whole(expected, bits)


@pytest.mark.parametrize("to_signed", [False, True])
@pytest.mark.parametrize("from_signed", [False, True])
@given(st.data())
@SETTINGS
def test_saturating_narrow(from_signed: bool, to_signed: bool, data: st.DataObject) -> None:
    bits = data.draw(st.sampled_from([8, 16, 32]))
    type_ = int_type(2 * bits).with_lanes(data.draw(st.sampled_from([0, 2])))
    value = data.draw(interesting(type_))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if to_signed else (0, 2**bits - 1)
    values = [signed(v, 2 * bits) if from_signed else v for v in lanes_of(value, type_)]
    found = BENCH(
        ("sat", bits, from_signed, to_signed), [type_], lambda v: v.sat_narrow(bits, from_signed, to_signed), [value]
    )
    assert found == whole([clamp(v, low, high) for v in values], bits)


@given(st.data())
@SETTINGS
def test_i1(data: st.DataObject) -> None:
    a, b = (data.draw(st.integers(0, 255)) for _ in range(2))

    def make(x: Value, y: Value) -> Value:
        p, q = x.trunc(1), y.ult(128)
        both = (p & q).zext(64) | (p | q).zext(64) << 1 | (p ^ q).zext(64) << 2 | (~p).zext(64) << 3
        return both | q.sext(32).zext(64) << 4 | (p.eq(q)).zext(64) << 36 | p.select(q, p).zext(64) << 37

    p, q = bool(a % 2), b < 128
    fields = [p and q, p or q, p != q, not p]
    expected = from_bits([int(f) for f in fields] + [int(q)] * 32 + [int(p == q), int(q if p else p)])
    assert BENCH("i1", [I8, I8], make, [a, b]) == expected


@given(st.data())
@SETTINGS
def test_select(data: st.DataObject) -> None:
    type_ = data.draw(st.sampled_from(VECTORS))
    a, b = (data.draw(interesting(type_)) for _ in range(2))
    lanes = list(zip(lanes_of(a, type_), lanes_of(b, type_), strict=True))
    lanewise = BENCH("mask", [type_, type_], lambda x, y: x.ult(y).select(x, y), [a, b])
    assert lanewise == whole([min(pair) for pair in lanes], type_.bits)
    entire = BENCH("whole", [type_, type_], lambda x, y: x.lane(0).ult(y.lane(0)).select(x, y), [a, b])
    assert entire == (a if lanes[0][0] < lanes[0][1] else b)


@given(st.data())
@SETTINGS
def test_bitcast_keeps_bits(data: st.DataObject) -> None:
    types = st.sampled_from([I128, vector(I8, 16), vector(I64, 2), vector(F32, 4), vector(F16, 8), vector(I128, 1)])
    source, target = data.draw(types), data.draw(types)
    value = data.draw(st.integers(0, 2**128 - 1))
    assert BENCH(("bitcast", target), [source], lambda v: v.bitcast(target), [value]) == value


@given(st.data())
@SETTINGS
def test_lanes(data: st.DataObject) -> None:
    type_ = data.draw(st.sampled_from(VECTORS))
    a, b = (data.draw(interesting(type_)) for _ in range(2))
    index = data.draw(st.integers(0, type_.lanes - 1))
    lanes = lanes_of(a, type_)
    assert BENCH(("lane", index), [type_], lambda v: v.lane(index), [a]) == lanes[index]
    lanes[index] = lanes_of(b, type_)[0]
    replaced = BENCH(("with", index), [type_, type_], lambda v, w: v.with_lane(index, w.lane(0)), [a, b])
    assert replaced == whole(lanes, type_.bits)
    splat = BENCH(("splat", type_), [type_.lane], lambda v: v.splat(type_.lanes), [a % 2**type_.bits])
    assert splat == whole([a] * type_.lanes, type_.bits)


@given(st.data())
@SETTINGS
def test_shuffle(data: st.DataObject) -> None:
    type_ = data.draw(st.sampled_from(VECTORS))
    a, b = (data.draw(interesting(type_)) for _ in range(2))
    count = data.draw(st.sampled_from([n for n in (1, 2, 4, 8, 16) if n * type_.bits <= 128]))
    mask = data.draw(st.lists(st.integers(0, 2 * type_.lanes - 1), min_size=count, max_size=count))
    both = a + b * 2**type_.width
    expected = [both // 2 ** (type_.bits * i) for i in mask]
    found = BENCH(("shuffle", tuple(mask)), [type_, type_], lambda v, w: v.shuffle(w, mask), [a, b])
    assert found == whole(expected, type_.bits)


REDUCTIONS: dict[str, Callable[[list[int], int], int]] = {
    "add": lambda v, _w: sum(v),
    "and": lambda v, w: from_bits([int(all(x >> i & 1 for x in v)) for i in range(w)]),
    "or": lambda v, w: from_bits([int(any(x >> i & 1 for x in v)) for i in range(w)]),
    "xor": lambda v, w: from_bits([sum(x >> i & 1 for x in v) % 2 for i in range(w)]),
    "umin": lambda v, _w: min(v),
    "umax": lambda v, _w: max(v),
    "smin": lambda v, w: min(signed(x, w) for x in v),
    "smax": lambda v, w: max(signed(x, w) for x in v),
}


@pytest.mark.parametrize("op", REDUCTIONS)
@given(st.data())
@SETTINGS
def test_reduce(op: str, data: st.DataObject) -> None:
    type_ = data.draw(st.sampled_from(VECTORS))
    value = data.draw(interesting(type_))
    expected = REDUCTIONS[op](lanes_of(value, type_), type_.bits) % 2**type_.bits
    assert BENCH(("reduce", op), [type_], lambda v: v.reduce(op), [value]) == expected


def test_every_reduction_is_tested() -> None:
    assert set(REDUCTIONS) == set(OPS["reduce"].attrs[0].choices)


@given(st.data())
@SETTINGS
def test_table_look_up(data: st.DataObject) -> None:
    table_type = vector(I8, 16)
    indices = data.draw(st.sampled_from([vector(I8, 8), table_type]))
    count = data.draw(st.integers(1, 4))
    tables = [data.draw(interesting(table_type)) for _ in range(count)]
    picks = [data.draw(st.integers(0, 80)) for _ in range(indices.lanes)]
    content = b"".join(t.to_bytes(16, "little") for t in tables) + bytes(256)
    found = BENCH("tbl", [indices] + [table_type] * count, lambda i, *t: i.tbl(*t), [whole(picks, 8), *tables])
    assert found == int.from_bytes(bytes(content[i] for i in picks), "little")


@given(st.data())
@SETTINGS
def test_polynomials(data: st.DataObject) -> None:
    a, b = (data.draw(interesting(I64)) for _ in range(2))
    assert BENCH("clmul", [I64, I64], lambda x, y: x.clmul(y), [a, b]) == polynomial(a, b, 64)
    type_ = vector(I8, 8)
    expected = [polynomial(x, y, 8) for x, y in zip(lanes_of(a, type_), lanes_of(b, type_), strict=True)]
    assert BENCH("pmul", [type_, type_], lambda x, y: x.clmul(y), [a, b]) == whole(expected, 8)


def test_constants() -> None:
    b = Builder()
    vec = b.const(vector(I16, 4), (1, 2, 3, -1))
    b.put(Place(0, 0), vec)
    b.put(Place(None, 8), b.const(I64, -2).popcount())
    compile_template(verify(b.template()), BENCH.state.namespace)([0] * 6, 0, 0, 0, 4)
    assert bytes(BENCH.state.bytes[:16]) == bytes.fromhex("010002000300ffff") + (63).to_bytes(8, "little")


def test_every_op_is_known() -> None:
    assert set(OPS) == KNOWN


def test_every_lanewise_integer_op_has_an_oracle() -> None:
    others = {
        "const", "imm", "imm2", "pc", "npc", "number", "fshr", "zext", "sext", "trunc", "sat_narrow", "bitcast",
        "select", "lane", "with_lane", "splat", "shuffle", "reduce", "tbl", "clmul", "pmul",
    }  # fmt: skip
    pure = {name for name, info in OPS.items() if not info.effects}
    assert pure - others == set(ORACLES)
