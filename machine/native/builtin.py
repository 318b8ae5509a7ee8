"""Native functions as builtins of the interpreter: a call costs 0.05 µs, and 0.2 to 0.5 µs through ctypes.

CPython calls `enter` by its METH_FASTCALL convention (Python/C API reference manual, "Common Object Structures"); all
that is used of it is in the limited API, which is the same in each version. Builtins hold the interpreter's lock, so
what they do is short.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from dbt.machine.native import load

from dbt.native import AnyPtr, Assembly, Fn, Ptr, Struct, cast, native, new, struct, symbol, u64

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.engine.image import Image
    from dbt.native import Native

MOST = 3  # arguments of a call
ALL_ONES = (1 << 64) - 1
METH_FASTCALL = 0x80

# dragoman_python holds the address of the Interpreter; Python stores it there when the image is loaded.
PYTHON = Assembly(
    "python",
    """
    .data
    .globl dragoman_python
    .p2align 3
dragoman_python:
    .quad 0
    .text
""",
    ("dragoman_python",),
)


@struct
class Interpreter(Struct):
    """Functions of CPython."""

    data: Fn[u64, AnyPtr]  # PyBytes_AsString
    number: Fn[u64, AnyPtr]  # PyLong_AsUnsignedLongLong: all ones if there may be an exception
    failed: Fn[u64]  # PyErr_Occurred
    bad: Fn[u64]  # PyErr_BadArgument
    made: Fn[AnyPtr, u64]  # PyLong_FromUnsignedLongLong


@struct
class Bound(Struct):
    """A function with its first argument: the content of the bytes that are a builtin's `self`."""

    function: AnyPtr
    first: u64
    count: u64  # of the other arguments
    mask: u64  # the result's bits; 0: it has none


@native(export=True)
def enter(itself: AnyPtr, given: Ptr[AnyPtr], count: u64) -> AnyPtr:
    """A call from Python, with numbers. The result is a number; null: there is an exception."""
    python = cast(Interpreter, cast(Ptr[u64], symbol(PYTHON, "dragoman_python"))[0])
    data = python.data
    number = python.number
    failed = python.failed
    bad = python.bad
    made = python.made
    bound = cast(Bound, data(itself))
    if count != bound.count:
        bad()
        return cast(AnyPtr, u64(0))
    values = new(u64, MOST)
    values[0] = 0
    values[1] = 0
    values[2] = 0
    for at in range(count):
        value = number(given[at])
        if value == ALL_ONES and failed():
            return cast(AnyPtr, u64(0))
        values[at] = value
    function = cast(Fn[u64, u64, u64, u64, u64], bound.function)  # those that take fewer do not see the others
    return made(function(bound.first, values[0], values[1], values[2]) & bound.mask)


ROOTS = (enter,)
NAMES = {  # of the fields of Interpreter
    "data": "PyBytes_AsString",
    "number": "PyLong_AsUnsignedLongLong",
    "failed": "PyErr_Occurred",
    "bad": "PyErr_BadArgument",
    "made": "PyLong_FromUnsignedLongLong",
}


class Definition(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("method", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


class Builtins:
    """Makes builtins of an image's functions. What it hands to the interpreter stays for the process's life."""

    def __init__(self, image: Image) -> None:
        api = ctypes.pythonapi
        self.image = image
        functions = {field: ctypes.cast(getattr(api, name), ctypes.c_void_p).value for field, name in NAMES.items()}
        self._interpreter = Interpreter.view(**functions)  # type: ignore[arg-type]
        place = ctypes.c_uint64.from_address(image.address("dragoman_python"))
        place.value = ctypes.addressof(self._interpreter)  # type: ignore[arg-type]
        self._new: Any = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
            ("PyCFunction_NewEx", api)
        )
        self._definitions: dict[str, Definition] = {}

    def bind(self, function: Native, first: int) -> Callable[..., int]:
        """A builtin that takes the arguments of an exported function but the first, which is an address.

        They are numbers from 0 to 2**64 - 1: an OverflowError or TypeError, if they are not. Its result is a number as
        well, 0 if the function has none. Who calls it keeps what is at the address.
        """
        count = len(function.signature.parameters) - 1
        if count > MOST:
            raise ValueError(f"{function.name} has more than {MOST} arguments besides the first")
        mask = getattr(function.signature.result, "mask", 0)
        itself = Bound.pack(function=self.image.address(function.name), first=first, count=count, mask=mask)
        return self._new(ctypes.addressof(self._definition(function.name)), itself, None)  # type: ignore[no-any-return]

    def _definition(self, name: str) -> Definition:
        known = self._definitions.get(name)
        if known is None:
            known = self._definitions[name] = Definition(
                name.encode(), self.image.address("enter"), METH_FASTCALL, None
            )
        return known


@cache
def builtins() -> Builtins | None:
    """Those of this process, if they can be had."""
    image = load() if sys.implementation.name == "cpython" else None
    return Builtins(image) if image else None
