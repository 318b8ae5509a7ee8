"""The native subset of Python: declarations, layouts, checker, and the emitter for CPython.

What native modules import is here; `__init__.pyi` is the same for type checkers, where u8...i64 are ints, pointers
are generic classes, and a struct class is its own reference. The LLVM emitter is dbt.backends.llvm.native.
"""

from dbt.native.function import (
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
from dbt.native.function import (
    Table as table,  # noqa: N813 - in native modules it reads as a declaration
)
from dbt.native.types import (
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
from dbt.native.types import (
    ArrayLength as array,  # noqa: N813
)

__all__ = [
    "AnyPtr", "Arr", "Assembly", "Code", "Fn", "Native", "NativeError", "Ptr", "Struct", "addr", "address", "array",
    "asm", "atomic_add", "atomic_and", "atomic_load", "atomic_or", "atomic_store", "atomic_xchg", "bitreverse",
    "bswap", "cas", "cast", "clz", "copy", "ctz", "fence", "i8", "i16", "i32", "i64", "likely", "mul_high",
    "native", "new", "offsetof", "pause", "popcount", "rotl", "rotr", "sizeof", "struct", "symbol", "syscall",
    "table", "tail", "trap", "u8", "u16", "u32", "u64", "u128", "unlikely", "volatile_load", "volatile_store",
]  # fmt: skip
