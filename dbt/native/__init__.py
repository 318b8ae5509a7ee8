"""The native subset of Python: declarations, struct layouts, checker, and the emitter for CPython.

Native modules import from here; `__init__.pyi` is the same for type checkers, where u8...u128 are ints, pointers are
generic classes and a struct class is its own reference. Modules: types (layouts, views), function (declarations),
scope, expressions, intrinsics and check (Python ast to typed tree), tree, python and support (running under CPython).
The LLVM emitter is dbt.backends.llvm.native, the file format dbt.engine.image.

The subset in short:

- Types: u8...u128, i8...i64, bool, `Ptr[T]`, `AnyPtr`, `Fn[result, args...]`, `Code` (translated code). A struct class
  as annotation is a reference to such a struct; its field `Arr[T] = array(n)` lies inside and is a `Ptr[T]` as a value.
- Locals take the type of their first assignment or annotation. Integers wrap. Constants adapt; an unsigned integer
  widens by itself, any pointer becomes an AnyPtr; everything else is written down: `u8(x)`, `cast(T, x)`.
- `//` and `%` truncate as in C; `>>` of a signed integer keeps the sign. Division by zero, shifts by the width or more,
  and reading `new` memory before it is written are undefined (under CPython they raise, or read 0xA5 bytes).
- Statements: assignment, if, while, `for i in range(...)`, match on integers, break, continue, return, calls.
- `new(S)` and `new(T, n)` are stack space, one piece for each place in the source. `copy(to, from)` copies a struct.
  `addr(place)` is a pointer. `tail(f, ...)` leaves the function for another of the same shape and convention.
- `@native(cc=...)`: "c"; "none": a call clobbers every register; "code": the signature and convention of Code.
  `inline=True|False`; `export=True`: under its own name in an image.
"""

from .function import (
    Assembly,
    Native,
    NativeError,
    addr,
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
    likely,
    mul_high,
    native,
    new,
    offsetof,
    pause,
    popcount,
    rotl,
    rotr,
    sizeof,
    symbol,
    syscall,
    tail,
    trap,
    unlikely,
    volatile_load,
    volatile_store,
)
from .function import (
    Table as table,  # noqa: N813 - in native modules it reads as a declaration
)
from .types import (
    AnyPtr,
    Arr,
    Code,
    Fn,
    Ptr,
    Struct,
    address,
    i8,
    i16,
    i32,
    i64,
    struct,
    u8,
    u16,
    u32,
    u64,
    u128,
)
from .types import (
    ArrayLength as array,  # noqa: N813
)

__all__ = [
    "AnyPtr", "Arr", "Assembly", "Code", "Fn", "Native", "NativeError", "Ptr", "Struct", "addr", "address", "array",
    "asm", "atomic_add", "atomic_and", "atomic_load", "atomic_or", "atomic_store", "atomic_xchg", "bitreverse",
    "bswap", "cas", "cast", "clz", "copy", "ctz", "fence", "i8", "i16", "i32", "i64", "likely", "mul_high",
    "native", "new", "offsetof", "pause", "popcount", "rotl", "rotr", "sizeof", "struct", "symbol", "syscall",
    "table", "tail", "trap", "u8", "u16", "u32", "u64", "u128", "unlikely", "volatile_load", "volatile_store",
]  # fmt: skip
