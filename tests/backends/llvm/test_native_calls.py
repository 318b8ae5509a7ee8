# ruff: noqa: ARG001 - native types and ctypes have no common classes; pinned signatures have all arguments
"""Native functions and what is around them: calling conventions, assembly, system calls, signal handlers."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from dbt.backends.llvm.native import module_text

from dbt.native import (
    AnyPtr,
    Assembly,
    Code,
    NativeError,
    Ptr,
    asm,
    cast,
    i32,
    i64,
    native,
    symbol,
    syscall,
    tail,
    trap,
    u8,
    u64,
    unlikely,
)

from .native_machine import machine_code

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.engine.image import Image

    Build = Callable[..., Image]

TEXT = Assembly("test_text", "  .globl answer\nanswer:\n  movl $42, %eax\n  retq\n", ("answer",))


@native(cc="code")
def last(n: u64, z: u64, c: u64, v: u64, env: Ptr[u64], base: AnyPtr, mask: u64, tmp: u64) -> None:
    env[0] = n
    env[1] = z
    env[2] = c
    env[3] = v
    env[4] = cast(u64, env)
    env[5] = cast(u64, base)
    env[6] = mask
    env[7] = tmp


@native(cc="code")
def first(n: u64, z: u64, c: u64, v: u64, env: Ptr[u64], base: AnyPtr, mask: u64, tmp: u64) -> None:
    tail(cast(Code, tmp), n + 1, z + 2, c + 3, v + 4, env, base, mask + 7, tmp)


@native
def enter(env: Ptr[u64], n: u64) -> u64:
    code = cast(Code, first)
    code(n, n, n, n, env, cast(AnyPtr, n), n, cast(u64, last))
    return env[6]


def test_translated_code_takes_its_arguments_in_the_pinned_order(build: Build) -> None:
    code = machine_code(build(enter), enter)
    here, there = (ctypes.c_uint64 * 8)(), (ctypes.c_uint64 * 8)()
    assert enter(here, 10) == code(ctypes.addressof(there), 10) == 17  # type: ignore[arg-type]
    assert list(there)[:4] == list(here)[:4] == [11, 12, 13, 14]
    assert there[5] == 10
    assert there[4] == ctypes.addressof(there)


@native(cc="none")
def clobber(a: u64, narrow: u8, flag: bool) -> u8:
    asm(
        "xorl %ebx, %ebx; xorl %r12d, %r12d; xorl %r13d, %r13d; xorl %r14d, %r14d; xorl %r15d, %r15d",
        "~{rbx},~{r12},~{r13},~{r14},~{r15}",
    )
    return u8(a) + narrow if flag else narrow


@native(cc="code")
def leave_by_fault(n: u64, z: u64, c: u64, v: u64, env: Ptr[u64], base: AnyPtr, mask: u64, tmp: u64) -> None:
    """Does what the fault handler does: puts back the stack pointer at entry and returns; no register is kept."""
    env[1] = z
    asm("xorl %ebx, %ebx; movl $$-1, %ebp; movq $0, %rsp; xorl %r12d, %r12d; retq", "r,~{rbx},~{memory}", env[0])


@native(cc="code")
def save_stack(n: u64, z: u64, c: u64, v: u64, env: Ptr[u64], base: AnyPtr, mask: u64, tmp: u64) -> None:
    asm("movq %rsp, ($0)", "r,~{memory}", env)
    tail(leave_by_fault, n, z, c, v, env, base, mask, tmp)


@native
def survive(a: u64, b: u64, c: u64, d: u64, env: Ptr[u64]) -> u64:
    x = u64(clobber(a, 255, True))
    e = a * 3 + b
    f = b * 5 + c
    code = cast(Code, save_stack)
    code(a, b, c, d, env, env, 0, 0)
    return x * 2 + b * 3 + c * 5 + d * 7 + e * 11 + f * 13 + a * 17 + env[1]


def test_calls_that_keep_no_register(build: Build) -> None:
    memory = (ctypes.c_uint64 * 2)()
    code = machine_code(build(survive), survive)
    for n in range(20):
        a, b, c, d = 300 + n, 2 * n, 3, 4
        x, e, f = (a + 255) & 0xFF, a * 3 + b, b * 5 + c
        expected = x * 2 + b * 3 + c * 5 + d * 7 + e * 11 + f * 13 + a * 17 + b
        assert code(a, b, c, d, ctypes.addressof(memory)) == expected


@native
def answer_address() -> u64:
    return symbol(TEXT, "answer")


@native
def swap_bytes(a: u64) -> u64:
    return asm("bswapq $0", "=r,0", a)


def test_assembly(build: Build) -> None:
    image = build(answer_address, swap_bytes, assembly=(TEXT,))
    assert machine_code(image, answer_address)() == image.address("answer")
    assert image.function("answer", ctypes.c_int, ())() == 42
    assert machine_code(image, swap_bytes)(0x1122334455667788) == 0x8877665544332211
    with pytest.raises(NativeError, match=r"asm\(\) cannot run under CPython"):
        swap_bytes(1)


@native
def process() -> i64:
    return syscall(39)


@native
def bad_call(fd: i32) -> i64:
    return syscall(3, fd)


def test_system_calls(build: Build) -> None:
    image = build(process, bad_call)
    assert machine_code(image, process)() == os.getpid()
    assert machine_code(image, bad_call)(-1) == bad_call(-1) == -9


@native(export=True)
def on_signal(number: i32, info: AnyPtr, context: AnyPtr) -> None:
    place = cast(Ptr[i32], symbol(CELL, "signal_cell"))
    place[0] = number
    if unlikely(not cast(u64, info) or not cast(u64, context)):
        trap()


CELL = Assembly(
    "cell", "  .data\n  .globl signal_cell\nsignal_cell:\n  .quad 0\n  .text\n", ("signal_cell",)
)  # fmt: skip


def test_a_signal_handler(build: Build) -> None:
    image = build(on_signal)
    libc = ctypes.CDLL(None, use_errno=True)

    class Action(ctypes.Structure):  # of glibc
        _fields_ = (("handler", ctypes.c_void_p), ("mask", ctypes.c_ubyte * 128), ("flags", ctypes.c_int))

    before = signal.getsignal(signal.SIGUSR2)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    action = Action(handler=image.address("on_signal"), flags=4)  # SA_SIGINFO
    try:
        assert libc.sigaction(int(signal.SIGUSR2), ctypes.byref(action), None) == 0
        signal.raise_signal(signal.SIGUSR2)  # to this thread: another one would take it at its own time
        assert ctypes.c_int.from_address(image.address("signal_cell")).value == signal.SIGUSR2
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_two_exports_of_one_name() -> None:
    def make() -> Any:
        @native(export=True)
        def same() -> None:
            pass

        return same

    with pytest.raises(NativeError, match="two functions are exported as 'same'"):
        module_text([make(), make()])


@native
def choose(flag: bool, a: u8) -> bool:
    other = a > 3
    if a > 200:
        return not other
    return (other and flag) or a == 0


def test_bools_cross_the_c_convention(build: Build) -> None:
    code = machine_code(build(choose), choose)
    for flag in (False, True):
        for a in (0, 3, 4, 255):
            assert code(flag, a) is choose(flag, a)
