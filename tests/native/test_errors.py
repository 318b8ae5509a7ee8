"""Misuse of the native subset: each case is a program, the line that is wrong (marked), and what is said about it."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

import pytest

from dbt.native import NativeError, native, syscall, u64

if TYPE_CHECKING:
    from pathlib import Path

HEADER = """\
from __future__ import annotations
import dbt.native.types as types
from dbt.native import *

SMALL = table(u8, [1, 2])
LIMIT = 5

@struct
class Point(Struct):
    x: u32
    y: i32
    all: Arr[u64] = array(4)

TEXT = Assembly("text", "", ("start",))

def plain(a: u64) -> u64:
    return a

@native
def callee(a: u8) -> u64:
    return a

@native
def nothing() -> None:
    pass

"""

# title: (source with the wrong line marked by '#!', message)
CASES = {
    "sign": ("def f(a: i32) -> u64:\n    return a  #!", "cannot use i32 as u64: write u64(...)"),
    "narrow": ("def f(a: u64) -> u8:\n    return a  #!", "cannot use u64 as u8: write u8(...)"),
    "mix": ("def f(a: i32, b: u64) -> u64:\n    return u64(a + b)  #!", "i32 and u64 do not mix: convert one of them"),
    "constant": ("def f(p: Point) -> None:\n    p.x = 1 << 32  #!", "the constant 4294967296 does not fit u32"),
    "field": (
        "def f(p: Point) -> u32:\n    return p.z  #!",
        "struct Point has no field 'z': it has x, y, all",
    ),
    "no struct": ("def f(a: u64) -> u64:\n    return a.x  #!", "u64 is not a struct and has no field 'x'"),
    "index": ("def f(a: u64) -> u64:\n    return a[0]  #!", "u64 cannot be indexed: it is not a pointer or an array"),
    "pointer": (
        "def f(p: Ptr[u8]) -> Ptr[u32]:\n    return p  #!",
        "cannot use Ptr[u8] as Ptr[u32]: write cast(Ptr[u32], ...)",
    ),
    "opaque": ("def f(p: AnyPtr) -> u64:\n    return p[0]  #!", "AnyPtr does not know what it points to"),
    "pointer arithmetic": ("def f(p: Ptr[u8]) -> Ptr[u8]:\n    return p & 4  #!", "pointers have + and - only"),
    "unknown name": ("def f() -> u64:\n    return nowhere  #!", "'nowhere' is not known here"),
    "wrong global": ("def f() -> u64:\n    return HEADER  #!", "'HEADER' is not known here"),
    "plain function": ("def f(a: u64) -> u64:\n    return plain(a)  #!", "plain is not a native function"),
    "count": ("def f() -> u64:\n    return callee()  #!", "callee takes 1 arguments, 0 given"),
    "argument": ("def f(a: u64) -> u64:\n    return callee(a)  #!", "cannot use u64 as u8: write u8(...)"),
    "keyword": ("def f() -> u64:\n    return callee(a=1)  #!", "keyword arguments are not in the native subset"),
    "no result": ("def f() -> u64:\n    return nothing()  #!", "cannot use None as u64: the call returns nothing"),
    "no value": ("def f() -> None:\n    x = nothing()  #!", "the call returns nothing"),
    "call an int": ("def f(a: u64) -> u64:\n    return a(1)  #!", "u64 cannot be called"),
    "before value": (
        "def f(a: u64) -> u64:\n    if a:\n        x = a\n    return x  #!",
        "'x' may be used before it has a value",
    ),
    "after loop": (
        "def f(a: u64) -> u64:\n    while a:\n        x = a\n        a -= 1\n    return x  #!",
        "'x' may be used before it has a value",
    ),
    "local everywhere": (
        "def f() -> u64:\n    x = LIMIT  #!\n    LIMIT = 3\n    return x",
        "'LIMIT' may be used before",
    ),
    "no return": ("def f(a: u64) -> u64:  #!\n    if a:\n        return 1", "f may end without returning its u64"),
    "unreachable": ("def f() -> u64:\n    return 1\n    x = 2  #!", "this statement can never be reached"),
    "type change": ("def f(a: u64, b: u8) -> None:\n    b = a  #!", "cannot use u64 as u8"),
    "annotated twice": ("def f(a: u64) -> None:\n    a: u8 = 1  #!", "'a' is u64 already"),
    "parameter": ("def f(a) -> None:  #!\n    pass", "f: parameter 'a' has no type annotation"),
    "result": ("def f(a: u64):  #!\n    pass", "f: the result has no type annotation"),
    "wrong type": ("def f(a: str) -> None:  #!\n    pass", "parameter 'a': <class 'str'> is not a native type"),
    "default": ("def f(a: u64 = 1) -> None:  #!\n    pass", "only plain positional parameters without defaults"),
    "code": ("@CODE\ndef f(a: u64) -> None:\n    pass", "a cc='code' function takes (4 x u64, 2 pointers, 2 x u64)"),
    "string": ("def f() -> u64:\n    return 'a'  #!", "str constants are not in the native subset"),
    "float": ("def f() -> u64:\n    return 1.5  #!", "float constants are not in the native subset"),
    "division": ("def f(a: u64) -> u64:\n    return a / 2  #!", "the operator of 'a / 2' is not in the native subset"),
    "wide division": ("def f(a: u128) -> u128:\n    return a // 3  #!", "u128 cannot be divided"),
    "list": ("def f() -> u64:\n    return [1]  #!", "List expressions are not in the native subset"),
    "try": (
        "def f() -> None:\n    try:  #!\n        pass\n    finally:\n        pass",
        "Try statements are not in the nat",
    ),
    "chain": ("def f(a: u64) -> bool:\n    return 1 < a < 3  #!", "chained comparisons are not in the native subset"),
    "in": ("def f(a: u64) -> bool:\n    return a in SMALL  #!", "only == != < <= > >= are in the native subset"),
    "negative": ("def f(a: u64) -> bool:\n    return a == -1  #!", "u64 is never negative: write u64(...) around"),
    "shift": ("def f(a: u8) -> u8:\n    return a << 8  #!", "a shift by 8 is out of range for u8"),
    "shifted constant": ("def f(a: u8) -> u64:\n    return 1 << a  #!", "needs a type: write u64(1) << n"),
    "for": (
        "def f(p: Point) -> None:\n    for i in p.all:  #!\n        pass",
        "a for loop is `for name in range(...)`",
    ),
    "step": (
        "def f(a: u64) -> None:\n    for i in range(0, 9, a):  #!\n        pass",
        "the step of range() must be a co",
    ),
    "capture": (
        "def f(a: u64) -> u64:\n    match a:\n        case LIMIT:  #!\n            return 1\n    return 0",
        "`case LIMIT` would bind a variable: write the module in front of a constant",
    ),
    "case twice": (
        "def f(a: u64) -> u64:\n    match a:\n        case 1 | 1:  #!\n            return 1\n    return 0",
        "1 is a case already",
    ),
    "guard": (
        "def f(a: u64) -> u64:\n    match a:\n        case 1 if a:  #!\n            return 1\n    return 0",
        "a guard on a case is not in the native subset",
    ),
    "whole struct": (
        "def f(p: Ptr[Point], q: Point) -> None:\n    p[0] = q  #!",
        "Point is not assigned as a whole: use copy(to, from), or its parts",
    ),
    "table": ("def f() -> None:\n    SMALL[0] = 1  #!", "a table is constant"),
    "address": ("def f(a: u64) -> Ptr[u64]:\n    return addr(a)  #!", "a local variable has no address: use new()"),
    "new": ("def f() -> None:\n    p = new(u64)  #!", "write new(u64, n) for an array of n on the stack"),
    "new count": ("def f(n: u64) -> None:\n    p = new(u64, n)  #!", "new(T, n): n must be a constant of at least 1"),
    "syscall": (
        "def f() -> None:\n    syscall(1, 2, 3, 4, 5, 6, 7, 8)  #!",
        "syscall() takes 1 to 7 arguments, 8 given",
    ),
    "symbol": ("def f() -> u64:\n    return symbol(TEXT, 'end')  #!", "text has no symbol 'end': it has start"),
    "tail": (
        "def f(a: u64) -> None:\n    tail(callee, 1)  #!",
        "tail() needs a function of the caller's shape Fn[None, u64], not Fn[u64, u8]",
    ),
    "tail value": ("def f(a: u8) -> u64:\n    return tail(callee, a)  #!", "tail(f, ...) is a statement of its own"),
    "intrinsic": ("def f(a: u64) -> u64:\n    return ctz(5)  #!", "ctz() needs an integer of a known type"),
    "atomic": ("def f(a: u64) -> u64:\n    return atomic_load(a)  #!", "atomic_load() needs a pointer to an integer"),
    "bool": ("def f(a: u64) -> u64:\n    return a + (a > 1)  #!", "bool is not an integer: no arithmetic with it"),
    "nothing": ("def f(a: u64) -> None:\n    a == 1  #!", "this expression does nothing"),
    "targets": ("def f(a: u64) -> None:\n    x, y = a, a  #!", "one target for each assignment"),
    "copy": ("def f(p: Point, q: Ptr[u8]) -> None:\n    copy(p, q)  #!", "both must be references to the same struct"),
    "asm": ("def f(a: u64) -> None:\n    asm(a, '')  #!", "the first two arguments are string constants"),
}


@pytest.mark.parametrize("title", CASES)
def test_misuse_names_the_line_and_the_reason(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body, message = CASES[title]
    body = body.replace("@CODE", "@native(cc='code')") if "@CODE" in body else f"@native\n{body}"
    text = HEADER + body + "\n"
    path = tmp_path / "program.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("program", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "program", module)
    spec.loader.exec_module(module)
    with pytest.raises(NativeError) as raised:
        module.f.tree  # noqa: B018
    assert message in raised.value.message
    assert raised.value.file == str(path)
    marked = [n for n, line in enumerate(text.splitlines(), 1) if line.endswith("#!")]
    if marked and not raised.value.source.startswith("def f(...)"):
        assert raised.value.line == marked[0]
        assert raised.value.source == text.splitlines()[marked[0] - 1].strip()
    assert str(raised.value).startswith(f"{path}:{raised.value.line}: ")


def test_a_closure_is_refused() -> None:
    outer = u64(1)

    @native
    def f() -> u64:
        return outer

    with pytest.raises(NativeError, match="uses variables of an enclosing function: outer"):
        f.tree  # noqa: B018


def test_intrinsics_outside_of_native_code_say_so() -> None:
    with pytest.raises(NativeError, match=r"syscall\(\) can only be used in a native function"):
        syscall(39)


def test_unknown_convention() -> None:
    with pytest.raises(TypeError, match="the conventions are c, none, code"):
        native(cc="fast")  # type: ignore[call-overload]
