# ruff: noqa: ARG001 - native types and ctypes have no common classes; pinned signatures have all arguments
"""The LLVM emitter against the Python emitter: the same functions, the same operands, the same memory afterwards."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import random
import signal
import sys
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from dbt.backends.llvm.compile import compile_text
from dbt.backends.llvm.image import link
from dbt.backends.llvm.native import module_text

from dbt.engine.image import Image, load_image
from dbt.native import (
    AnyPtr,
    Arr,
    Assembly,
    Code,
    Native,
    NativeError,
    Ptr,
    Struct,
    addr,
    address,
    array,
    asm,
    atomic_add,
    atomic_and,
    atomic_load,
    atomic_or,
    atomic_store,
    atomic_xchg,
    bitreverse,
    bswap,
    cas,
    cast,
    clz,
    copy,
    ctz,
    fence,
    i8,
    i16,
    i32,
    i64,
    mul_high,
    native,
    new,
    pause,
    popcount,
    rotl,
    rotr,
    struct,
    symbol,
    syscall,
    table,
    tail,
    trap,
    u8,
    u16,
    u32,
    u64,
    u128,
    unlikely,
    volatile_load,
    volatile_store,
)
from dbt.native.types import BOOL, VOID, Int

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Build = Callable[..., Image]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Compile, link and load some native functions."""

    def run(*roots: Any, assembly: tuple[Assembly, ...] = ()) -> Image:
        path = tmp_path / "image"
        path.write_bytes(link("test", compile_text(module_text(roots, assembly))))
        return load_image(str(path), "test")

    return run


def c_type(kind: Any) -> Any:
    if kind is VOID:
        return None
    if kind is BOOL:
        return ctypes.c_bool
    if isinstance(kind, Int):
        return getattr(ctypes, f"c_{'' if kind.signed else 'u'}int{kind.bits}")
    return ctypes.c_uint64


def machine_code(image: Image, function: Any) -> Any:
    """The compiled function, callable with ints."""
    assert isinstance(function, Native)
    kind = function.signature
    return image.function(function.name, c_type(kind.result), tuple(c_type(p) for p in kind.parameters))


def edges(kind: Int, rng: random.Random) -> int:
    """An operand that is likely to be a corner."""
    bits = rng.choice([0, 1, 2, -1, 1 << (kind.bits - 1), (1 << (kind.bits - 1)) - 1, rng.getrandbits(kind.bits)])
    return kind(bits)


# Random programs


class Program:
    """Writes native functions with random types, expressions and statements, free of undefined behaviour."""

    TYPES = ("u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "u128")
    HEADER = (
        "from __future__ import annotations\nfrom dbt.native import *\n\nT = table(i16, range(-8, 8))\n\n"
        "@struct\nclass S(Struct):\n    a: u8\n    b: i64\n    c: i16\n    d: Arr[u32] = array(4)\n"
        "    e: Arr[i8] = array(8)\n    f: u64\n"
    )
    FIELDS: ClassVar = {"u8": "s.a", "i64": "s.b", "i16": "s.c", "u64": "s.f"}

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.locals: dict[str, str] = {}
        self.loops = 0

    def text(self, functions: int) -> str:
        parts = [self.HEADER]
        for number in range(functions):
            self.locals = {f"p{i}": self.rng.choice(self.TYPES[:-1]) for i in range(3)}
            listed = "".join(f", {n}: {t}" for n, t in self.locals.items())
            first = [f"v{i}" for i in range(4)]
            lines = []
            for name in first:
                kind = self.rng.choice(self.TYPES)
                lines.append(f"{name}: {kind} = {self.expression(kind, 2)}")
                self.locals[name] = kind
            lines += self.block(2, 6)
            result = " ^ ".join(f"u64({name})" for name in first)
            body = "\n".join(f"    {line}" for line in [*lines, f"return {result}"])
            parts.append(f"@native\ndef f{number}(s: S{listed}) -> u64:\n{body}\n")
        return "\n".join(parts)

    def block(self, depth: int, size: int) -> list[str]:
        return [line for _ in range(size) for line in self.statement(depth)]

    def nested(self, depth: int) -> list[str]:
        return ["    " + line for line in self.block(depth, self.rng.randint(1, 3))]

    def statement(self, depth: int) -> list[str]:
        rng = self.rng
        choice = rng.randint(0, 9 if depth else 3)
        name = rng.choice([n for n in self.locals if not n.startswith("k")])
        kind = self.locals[name]
        if choice == 0:
            op = rng.choice(["+", "-", "*", "&", "|", "^"])
            return [f"{name} {op}= {self.expression(kind, 2)}"]
        if choice == 1:
            target, kind = rng.choice([*((f, k) for k, f in self.FIELDS.items()), ("s.d[p0 & 3]", "u32")])
            return [f"{target} {rng.choice(['', '+', '^'])}= {self.expression(kind, 2)}"]
        if choice <= 3:
            return [f"{name} = {self.expression(kind, 3)}"]
        if choice <= 5:
            lines = [f"if {self.condition(2)}:", *self.nested(depth - 1)]
            return [*lines, "else:", *self.nested(depth - 1)] if rng.random() < 0.5 else lines
        if choice == 6:
            return self.loop(depth)
        if choice == 7:
            self.loops += 1
            count = f"n{self.loops}"
            leave = f"    if {self.condition(1)}:"
            lines = [f"{count}: u64 = 0", f"while {count} < {rng.randint(1, 4)}:", f"    {count} += 1"]
            return [*lines, leave, f"        {rng.choice(['break', 'continue'])}", *self.nested(depth - 1)]
        subject = self.expression("u8", 1)
        lines = [f"match ({subject}) & 7:"]
        for values in ("1", "2 | 5", "3"):
            lines += [f"    case {values}:", *("    " + line for line in self.nested(depth - 1))]
        return [*lines, "    case _:", *("    " + line for line in self.nested(depth - 1))]

    def loop(self, depth: int) -> list[str]:
        self.loops += 1
        name = f"k{self.loops}"
        low, high = sorted(self.rng.sample(range(12), 2))
        step = self.rng.choice(["", ", 2", ", 3"])
        bounds = f"u8({low}), u8({high}){step}" if self.rng.random() < 0.7 else f"u8({high}), u8({low}), -2"
        self.locals[name] = "u8"
        body = self.nested(depth - 1)
        del self.locals[name]
        return [f"for {name} in range({bounds}):", *body]

    def condition(self, depth: int) -> str:
        rng = self.rng
        choice = rng.randint(0, 4 if depth else 0)
        if choice <= 1:
            kind = rng.choice(self.TYPES)
            op = rng.choice(["==", "!=", "<", "<=", ">", ">="])
            return f"({self.expression(kind, depth - 1)} {op} {self.expression(kind, depth - 1)})"
        if choice == 2:
            return f"(not {self.condition(depth - 1)})"
        if choice == 3:
            return f"({self.condition(depth - 1)} {rng.choice(['and', 'or'])} {self.condition(depth - 1)})"
        return f"bool({self.expression(rng.choice(self.TYPES), depth - 1)})"

    def leaf(self, kind: str) -> str:
        rng = self.rng
        names = [n for n, t in self.locals.items() if t == kind]
        if names and rng.random() < 0.6:
            return rng.choice(names)
        if kind in self.FIELDS and rng.random() < 0.5:
            return self.FIELDS[kind]
        if kind == "i16" and rng.random() < 0.5:
            return "T[p1 & 15]"
        if kind == "i8" and rng.random() < 0.5:
            return "s.e[p2 & 7]"
        return f"{kind}({rng.choice([0, 1, -1, rng.getrandbits(7), rng.getrandbits(128)])})"

    def expression(self, kind: str, depth: int) -> str:
        rng = self.rng
        if depth <= 0:
            return self.leaf(kind)
        a, b = (self.expression(kind, depth - 1) for _ in range(2))
        signed, bits = kind.startswith("i"), int(kind[1:])
        match rng.randint(0, 8):
            case 0 | 1:
                return f"({a} {rng.choice(['+', '-', '*', '&', '|', '^'])} {b})"
            case 2:
                return f"({a} {rng.choice(['<<', '>>'])} ({b} & {bits - 1}))"
            case 3 if bits <= 64:
                return f"({a} {rng.choice(['//', '%'])} (({b} & 15) + 1))"
            case 4:
                return f"{kind}({self.expression(rng.choice(self.TYPES), depth - 1)})"
            case 5:
                return f"({a} if {self.condition(depth - 1)} else {b})"
            case 6:
                return f"{rng.choice(['min', 'max', 'rotl', 'rotr'])}({a}, {b})"
            case 7:
                names = ["ctz", "clz", "popcount", "bitreverse"] + ["bswap"] * (bits > 8)
                return f"{rng.choice(names)}({a})"
        if bits <= 64:
            return f"mul_high({a}, {b})"
        return f"(-{a})" if signed else f"(~{a})"


@pytest.mark.parametrize("seed", range(8))
def test_random_programs(seed: int, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"random_native_{seed}"
    path = tmp_path / f"{name}.py"
    path.write_text(Program(seed).text(6))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    functions = [value for value in vars(module).values() if isinstance(value, Native)]
    image = build(*functions)
    rng = random.Random(seed)
    for function in functions:
        code = machine_code(image, function)
        for _ in range(12):
            operands = [edges(kind, rng) for kind in function.signature.parameters[1:]]
            content = rng.randbytes(module.S.size)
            here, there = module.S.view.from_buffer_copy(content), module.S.view.from_buffer_copy(content)
            expected, found = function(here, *operands), code(address(there), *operands)
            assert (expected, bytes(here)) == (found, bytes(there)), (seed, function.name, operands, content)


# Things that random programs do not have

WORDS = table(u64, [1 << 63, 5])
TEXT = Assembly("test_text", "  .globl answer\nanswer:\n  movl $42, %eax\n  retq\n", ("answer",))


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


@native
def squares(p: Ptr[u32], n: u64) -> None:
    for i in range(n):
        p[i] = 0


def test_loops_do_not_become_library_calls() -> None:
    assert b"memset" not in compile_text(module_text([squares]))


def test_two_exports_of_one_name() -> None:
    def make() -> Any:
        @native(export=True)
        def same() -> None:
            pass

        return same

    with pytest.raises(NativeError, match="two functions are exported as 'same'"):
        module_text([make(), make()])


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
