"""The LLVM emitter against the Python emitter: the same functions, the same operands, the same memory afterwards."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from dbt.backends.llvm.compile import compile_text
from dbt.backends.llvm.native import module_text

from dbt.native import (
    Arr,
    Ptr,
    Struct,
    addr,
    address,
    array,
    atomic_add,
    atomic_and,
    atomic_load,
    atomic_or,
    atomic_store,
    atomic_xchg,
    bitreverse,
    bswap,
    cas,
    clz,
    copy,
    ctz,
    fence,
    i8,
    i16,
    i64,
    mul_high,
    native,
    new,
    pause,
    popcount,
    rotl,
    rotr,
    struct,
    table,
    u8,
    u16,
    u32,
    u64,
    u128,
    volatile_load,
    volatile_store,
)

from .native_machine import edges, machine_code

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.engine.image import Image

    Build = Callable[..., Image]


WORDS = table(u64, [1 << 63, 5])


@struct
class Pair(Struct):
    low: u64
    high: u32


@struct
class Shared(Struct):
    word: u64
    half: u32
    env: Arr[u64] = array(8)
    one: Pair
    other: Pair


@native
def up(start: u8, stop: u8) -> u64:
    n: u64 = 0
    for i in range(start, stop, 100):
        n = n * 7 + i
        start = 0  # the bounds are taken once
        i = 3  # noqa: PLW2901 - the counter is its own
    return n


@native
def down(start: i8, stop: i8) -> u64:
    n: u64 = 0
    for i in range(start, stop, -50):
        n = n * 7 + u8(i)
    return n


@pytest.mark.parametrize("function", [up, down])
def test_loops_end_where_pythons_do(function: Any, build: Build) -> None:
    code = machine_code(build(function), function)
    kind = function.signature.parameters[0]
    corners = [kind(v) for v in (0, 1, 99, 100, 101, 127, 128, 155, 156, 255)]
    for start in corners:
        for stop in corners:
            assert code(start, stop) == function(start, stop), (start, stop)


@native
def atomics(s: Shared, p: Ptr[u64]) -> u64:
    old = atomic_add(addr(s.word), 5)
    old = old * 31 + atomic_xchg(addr(s.word), 77)
    old = old * 31 + cas(addr(s.word), 77, 78)
    old = old * 31 + cas(addr(s.word), 77, 79)
    old = old * 31 + atomic_or(addr(s.word), 0x100)
    old = old * 31 + atomic_and(addr(s.word), 0xFF0)
    atomic_store(addr(s.half), u32(old))
    fence()
    pause()
    volatile_store(p, volatile_load(p) + 1)
    return old * 31 + atomic_load(addr(s.half)) + WORDS[1] + (WORDS[0] >> 60)


def test_atomics_and_volatiles(build: Build) -> None:
    code = machine_code(build(atomics), atomics)
    here, there = Shared.view(word=3), Shared.view(word=3)
    result = atomics(here, address(here.env))  # type: ignore[arg-type]
    assert code(address(there), address(there.env)) == result
    assert bytes(here) == bytes(there)  # type: ignore[call-overload]


@native
def copies(s: Shared) -> u64:
    pair = new(Pair)
    pair.low = s.one.low + 1
    pair.high = 9
    copy(s.other, pair)
    room = new(u64, 4)
    for i in range(u64(4)):
        room[i] = i * i
    return room[3] + s.other.low


def test_stack_space_and_struct_copies(build: Build) -> None:
    code = machine_code(build(copies), copies)
    shared = Shared.view()
    shared.one.low = 100
    assert code(address(shared)) == 110
    assert (shared.other.low, shared.other.high) == (101, 9)


@native(inline=False)
def order_note(s: Shared, value: u64) -> u64:
    s.word = s.word * 10 + value
    return value


@native
def order(s: Shared) -> u64:
    s.env[order_note(s, 1)] = order_note(s, 2)
    s.env[order_note(s, 3)] += order_note(s, 4)
    if order_note(s, 0) or order_note(s, 5) or order_note(s, 6):
        return order_note(s, 7) - (order_note(s, 8) * order_note(s, 9))
    return 0


def test_the_order_of_evaluation_is_pythons(build: Build) -> None:
    code = machine_code(build(order), order)
    here, there = Shared.view(), Shared.view()
    assert order(here) == code(address(there))
    assert here.word == there.word == 213405789
    assert bytes(here) == bytes(there)  # type: ignore[call-overload]


@native
def squares(p: Ptr[u32], n: u64) -> None:
    for i in range(n):
        p[i] = 0


def test_loops_do_not_become_library_calls() -> None:
    assert b"memset" not in compile_text(module_text([squares]))


@native
def every_intrinsic(a: u32, b: u16, c: i64) -> u64:
    x = u64(bswap(a)) + u64(bitreverse(b)) + u64(clz(c)) + u64(ctz(b)) + u64(popcount(c))
    return x * 3 + u64(rotl(a, b)) + u64(rotr(b, 3)) + u64(mul_high(c, -3)) + u64(i16(b)) + u64(u128(a) << 40) + u8(c)


def test_intrinsics(build: Build) -> None:
    code = machine_code(build(every_intrinsic), every_intrinsic)
    rng = random.Random(1)
    for _ in range(50):
        operands = [edges(kind, rng) for kind in every_intrinsic.signature.parameters]
        assert code(*operands) == every_intrinsic(*operands), operands
