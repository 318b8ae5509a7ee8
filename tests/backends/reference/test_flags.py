"""Flags: what the evaluator stores for each kind, every condition, and the conditions that fusing computes directly."""

import ctypes
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
from dbt.backends.reference.generate import compile_template
from dbt.backends.reference.state import EmptyBus, State
from hypothesis import given, settings
from hypothesis import strategies as st

from dbt.engine.layout import Env
from dbt.ir.builder import Builder, Place
from dbt.ir.ops import CONDITIONS
from dbt.ir.passes import fuse
from dbt.ir.text import parse_template
from dbt.ir.types import F64, I64, int_type
from dbt.ir.values import Template

BUFFER = (ctypes.c_uint64 * (Env.size // 8 + 1))()
STATE = State(ctypes.addressof(BUFFER), EmptyBus())
TOKENS = (0, 8, 16, 24, 32, 40)
TAKEN, NEXT = 0x1000, 4
SETTINGS = settings(max_examples=60, deadline=None)

KINDS: dict[str, Callable[[int, int, int], int]] = {
    "add": lambda a, b, _c: a + b,
    "adc": lambda a, b, c: a + b + c,
    "sub": lambda a, b, _c: a - b,
    "sbc": lambda a, b, c: a - b - (1 - c),
    "logic": lambda a, b, _c: a & b,
}


class Flags(NamedTuple):
    """N, Z, C, V."""

    n: bool
    z: bool
    c: bool
    v: bool


# By the letters of the manual (DDI 0487 C1.2.4), from (N, Z, C, V).
HOLDS: dict[str, Callable[[Flags], bool]] = {
    "eq": lambda f: f.z,
    "ne": lambda f: not f.z,
    "cs": lambda f: f.c,
    "cc": lambda f: not f.c,
    "mi": lambda f: f.n,
    "pl": lambda f: not f.n,
    "vs": lambda f: f.v,
    "vc": lambda f: not f.v,
    "hi": lambda f: f.c and not f.z,
    "ls": lambda f: not (f.c and not f.z),
    "ge": lambda f: f.n == f.v,
    "lt": lambda f: f.n != f.v,
    "gt": lambda f: f.n == f.v and not f.z,
    "le": lambda f: not (f.n == f.v and not f.z),
}
EDGES = st.sampled_from([0, 1, 2**63, 2**63 - 1, 2**64 - 1, 2**31, 2**31 - 1, 2**32 - 1])
WORDS = st.one_of(EDGES, st.integers(0, 2**64 - 1))


def run(template: Template, registers: Sequence[int] = (), imm: int = 0) -> int:
    for i, value in enumerate(registers):
        STATE.words[i] = value
    return compile_template(template, STATE.namespace)(TOKENS, imm, TAKEN, 0, NEXT)


def setter(kind: str, bits: int) -> Template:
    b = Builder()
    x, y = (b.get(int_type(bits), Place(i, 0)) for i in (0, 1))
    carry = b.imm().trunc(1)
    match kind:
        case "add":
            result = x + y
        case "sub":
            result = x - y
        case "adc":
            result = x + y + carry.zext(bits)
        case "sbc":
            result = x + ~y + carry.zext(bits)
        case _:
            result = x & y
    b.put(Place(2, 0), result)
    b.flags(kind, x, y, result, carry if kind in ("adc", "sbc") else None)
    return b.template(kind)


def read_nzcv() -> tuple[int, ...]:
    run(parse_template("%0: i64 = nzcv\nput [@24] %0"))
    word = STATE.words[3]
    assert word & ~(15 << 28) == 0
    return tuple(word >> i & 1 for i in (31, 30, 29, 28))


def as_signed(value: int, bits: int) -> int:
    return value - 2**bits if value >= 2 ** (bits - 1) else value


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
@pytest.mark.parametrize("kind", KINDS)
@given(a=WORDS, b=WORDS, carry=st.integers(0, 1))
@SETTINGS
def test_kinds(kind: str, bits: int, a: int, b: int, carry: int) -> None:
    run(setter(kind, bits), [a, b], carry)
    a, b = a % 2**bits, b % 2**bits
    exact = KINDS[kind](a, b, carry)
    exact_signed = KINDS[kind](as_signed(a, bits), as_signed(b, bits), carry)
    result = exact % 2**bits
    overflow = as_signed(result, bits) != exact_signed and kind != "logic"
    carry_out = {"add": exact >= 2**bits, "adc": exact >= 2**bits, "sub": exact >= 0, "sbc": exact >= 0, "logic": False}
    assert read_nzcv() == (result >> (bits - 1), result == 0, carry_out[kind], overflow)
    assert STATE.flags[2] in (0, 1)


@pytest.mark.parametrize("cc", CONDITIONS)
def test_conditions(cc: str) -> None:
    branch = parse_template(f"%0: i1 = cond [{cc}]\ngoto_if %0")
    for word in range(16):
        run(parse_template("%0: i64 = imm\nset_nzcv %0"), imm=word << 28)
        flags = Flags(*(bool(word >> i & 1) for i in (3, 2, 1, 0)))
        assert read_nzcv() == flags
        assert (run(branch) == TAKEN) == HOLDS[cc](flags), (cc, flags)


@pytest.mark.parametrize("kind", KINDS)
@given(a=WORDS, b=WORDS, carry=st.integers(0, 1), cc=st.sampled_from(CONDITIONS), bits=st.sampled_from([32, 64]))
@SETTINGS
def test_fused_pairs_branch_the_same_way(kind: str, a: int, b: int, carry: int, cc: str, bits: int) -> None:
    first, second = setter(kind, bits), parse_template(f"%0: i1 = cond [{cc}]\ngoto_if %0")
    assert run(first, [a, b, 0], carry) == NEXT
    result = STATE.words[2]
    apart = run(second)
    together = run(fuse(first, second), [a, b, 0], carry)
    assert (together, STATE.words[2]) == (apart, result)


@given(a=WORDS, b=WORDS, word=st.integers(0, 15), cc=st.sampled_from(CONDITIONS), met=st.integers(0, 1))
@SETTINGS
def test_conditional_compare(a: int, b: int, word: int, cc: str, met: int) -> None:
    build = Builder()
    x, y = (build.get(I64, Place(i, 0)) for i in (0, 1))
    condition = build.get(I64, Place(2, 0)).trunc(1)
    build.flags_if(condition, "sub", x, y, x - y, build.imm())
    first, second = build.template("ccmp"), parse_template(f"%0: i1 = cond [{cc}]\ngoto_if %0")
    run(first, [a, b, met], word)
    flags = read_nzcv()
    if not met:
        assert flags == tuple(word >> i & 1 for i in (3, 2, 1, 0))
    assert run(fuse(first, second), [a, b, met], word) == run(second)


NUMBERS = st.sampled_from([0x3FF0000000000000, 0xBFF0000000000000, 0, 1 << 63, 0x7FF8000000000000, 0x7FF0000000000000])


@given(a=NUMBERS, b=NUMBERS, cc=st.sampled_from(CONDITIONS))
@SETTINGS
def test_fused_floating_point_comparison(a: int, b: int, cc: str) -> None:
    build = Builder()
    x, y = (build.get(F64, Place(i, 0)) for i in (0, 1))
    build.fcmp_flags(x, y, signaling=False)
    first, second = build.template("fcmp"), parse_template(f"%0: i1 = cond [{cc}]\ngoto_if %0")
    run(first, [a, b])
    assert run(fuse(first, second), [a, b]) == run(second)
