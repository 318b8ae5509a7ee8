"""The Python emitter: native functions called in unit tests, without LLVM."""

from __future__ import annotations

import ctypes
import os

import pytest

from dbt.native import (
    Arr,
    Fn,
    NativeError,
    Ptr,
    Struct,
    addr,
    address,
    array,
    cas,
    cast,
    i8,
    i64,
    native,
    new,
    struct,
    syscall,
    table,
    tail,
    u8,
    u16,
    u32,
    u64,
    u128,
)

PRIMES = table(u16, [2, 3, 5, 7, 11])


@struct
class Node(Struct):
    value: u32
    counts: Arr[u64] = array(3)
    following: Ptr[Node]


@native
def factorial(n: u64) -> u64:
    if n < 2:
        return 1
    return n * factorial(n - 1)


@native
def low(a: u8, b: u8) -> u8:
    a += b
    return a


@native
def total(node: Node) -> u64:
    sum_: u64 = 0
    while cast(u64, node):
        sum_ += node.value
        node.counts[1] += 1
        node = node.following[0]
    return sum_


@native
def second(node: Node) -> Node:
    return node.following[0]


@native
def prime(i: u64) -> u16:
    return PRIMES[i]


@native
def shifted(a: u64, n: u64) -> u64:
    return a << n


@native
def fresh_byte() -> u8:
    node = new(Node)
    return u8(node.value)


@native
def through(f: Fn[u64, u64], n: u64) -> u64:
    return f(n) + 1


@native
def indirect(n: u64) -> u64:
    return through(factorial, n)


@native
def process() -> i64:
    return syscall(39)


@native
def wide(a: u64, b: u64) -> u64:
    return u64((u128(a) * u128(b)) >> 64)


@native
def divide(a: i8, b: i8) -> i8:
    return a // b


@native
def remainder(a: i8, b: i8) -> i8:
    return a % b


@native
def swap(p: Ptr[u64], old: u64, value: u64) -> u64:
    return cas(p, old, value)


@native
def element(node: Node) -> Ptr[u64]:
    return addr(node.counts[2])


@native(cc="none")
def finish(a: u8, b: u8) -> u8:
    tail(low, a, b)


def test_numbers_wrap() -> None:
    assert factorial(20) == 2432902008176640000
    assert factorial(21) == 51090942171709440000 % 2**64
    assert low(200, 100) == 44
    assert wide(2**64 - 1, 2**64 - 1) == 2**64 - 2


@pytest.mark.parametrize(("a", "b"), [(7, 2), (-7, 2), (7, -2), (-7, -2)])
def test_division_is_that_of_c(a: int, b: int) -> None:
    assert divide(a, b) == int(a / b)
    assert remainder(a, b) == a - b * int(a / b)


def test_structs_are_shared_with_python() -> None:
    first, last = Node.view(), Node.view()
    first.value, last.value = 40, 2
    first.following = address(last)  # type: ignore[assignment]
    assert total(first) == 42
    assert list(last.counts) == [0, 1, 0]
    assert second(first).value == 2
    assert repr(second(last)) == "None"


def test_pointers_are_addresses() -> None:
    node = Node.view()
    place = element(node)
    assert cast(u64, place) == address(node) + 24
    assert swap(place, 0, 9) == 0
    assert swap(place, 0, 7) == 9
    assert node.counts[2] == 9


def test_tables_functions_and_system_calls() -> None:
    assert prime(4) == 11
    assert PRIMES[4] == 11
    assert indirect(5) == 121
    assert process() == os.getpid()


def test_real_machine_code_can_be_called() -> None:
    labs = ctypes.cast(ctypes.CDLL(None).labs, ctypes.c_void_p).value
    assert labs is not None
    assert through(labs, 41) == 42  # type: ignore[arg-type]


def test_fresh_stack_space_is_recognisable() -> None:
    assert fresh_byte() == 0xA5


def test_mistakes_are_noticed() -> None:
    with pytest.raises(NativeError, match="shifts 64 bits by 64"):
        shifted(1, 64)
    with pytest.raises(NativeError, match="accesses a u64 at address 0x8"):
        swap(8, 0, 0)  # type: ignore[arg-type]
    with pytest.raises(OverflowError, match="256 is out of range for u8"):
        low(256, 0)
    with pytest.raises(TypeError, match=r"low\(\) takes 2 arguments, 1 given"):
        low(1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'x' is not a u8"):
        low("x", 0)  # type: ignore[arg-type]


def test_tail_needs_the_same_convention() -> None:
    with pytest.raises(NativeError, match="needs a function of the caller's shape"):
        finish(1, 2)
    assert u32(-1) == 2**32 - 1
