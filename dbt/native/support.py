"""What native functions need when they run under CPython: memory by address, atomics, system calls, bit operations.

For unit tests: exact, not fast, and not atomic against native threads.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from .function import NativeError
from .types import AnyPtr, Function, Int, ctype, name_of, parameter_type

if TYPE_CHECKING:
    from collections.abc import Callable

    from .function import Native

LOWEST_ADDRESS = 65536  # nothing is mapped below on Linux: such an address is a mistake of the native code
UNDEFINED_BYTE = 0xA5  # what fresh stack space holds, so that a use of it is noticed
_FUNCTION_ADDRESSES = 0x7E57_0000_0000_0000  # non-canonical: what stands for the address of a native function

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_functions: dict[int, Native] = {}
_addresses: dict[int, int] = {}


def argument(value: Any, kind: Any) -> Any:
    """Turn what a Python caller passes into the int that stands for it; refuse what does not fit."""
    if isinstance(value, (ctypes.Structure, ctypes.Array)):
        value = ctypes.addressof(value)
    if hasattr(value, "raw") and isinstance(kind, Function):
        value = function_address(value)
    if not isinstance(value, int):
        raise TypeError(f"{value!r} is not a {name_of(kind)}")
    if isinstance(kind, Int) and kind(value) != value:
        raise OverflowError(f"{value} is out of range for {kind}")
    return value


def check_address(address: int, kind: Any) -> None:
    """Catch the mistakes that would end the process."""
    if not LOWEST_ADDRESS <= address < 1 << 63:
        raise NativeError(f"native code under CPython accesses a {name_of(kind)} at address {address:#x}")


def loader(kind: Any) -> Callable[[int], int]:
    """The function that reads a value of this type at an address."""
    if isinstance(kind, Int) and kind.bits == 128:

        def load_wide(address: int) -> int:
            check_address(address, kind)
            return int.from_bytes(ctypes.string_at(address, 16), "little")

        return load_wide
    access = ctype(kind).from_address

    def load(address: int) -> int:
        check_address(address, kind)
        return int(access(address).value)

    return load


def storer(kind: Any) -> Callable[[int, int], None]:
    """The function (value, address) that writes a value of this type; in that order Python evaluates them rightly."""
    if isinstance(kind, Int) and kind.bits == 128:

        def store_wide(value: int, address: int) -> None:
            check_address(address, kind)
            ctypes.memmove(address, value.to_bytes(16, "little"), 16)

        return store_wide
    access = ctype(kind).from_address

    def store(value: int, address: int) -> None:
        check_address(address, kind)
        access(address).value = value

    return store


def stack(size: int) -> Any:
    """Stack space of a function; it lives as long as the object."""
    return ctypes.create_string_buffer(size or 1)


def fresh(memory: Any) -> int:
    """The address of stack space whose contents are undefined."""
    address = ctypes.addressof(memory)
    ctypes.memset(address, UNDEFINED_BYTE, len(memory))
    return address


def divide(a: int, b: int) -> int:
    """Division that truncates, as C's."""
    quotient = abs(a) // abs(b)
    return -quotient if (a < 0) != (b < 0) else quotient


def remainder(a: int, b: int) -> int:
    """The sign is the dividend's, as in C."""
    return a - b * divide(a, b)


def amount(value: int, bits: int) -> int:
    """Check a shift amount: out of range it is undefined natively."""
    if not 0 <= value < bits:
        raise NativeError(f"native code under CPython shifts {bits} bits by {value}")
    return value


def system_call(number: int, *args: int) -> int:
    """A system call of the host: the result, or -errno."""
    result = _libc.syscall(*[ctypes.c_long(a) for a in (number, *args)])
    return -ctypes.get_errno() if result == -1 else int(result)


def copy_struct(to: int, source: int, size: int) -> None:
    """The contents of a struct."""
    check_address(to, AnyPtr)
    check_address(source, AnyPtr)
    ctypes.memmove(to, source, size)


def unavailable(name: str) -> Any:
    """What has no meaning under CPython."""
    raise NativeError(f"{name}() cannot run under CPython")


def function_address(native: Native) -> int:
    """A number that stands for the address of a native function; calling through it works under CPython."""
    found = _addresses.get(id(native))
    if found is None:
        found = _FUNCTION_ADDRESSES + len(_addresses)
        _addresses[id(native)] = found
        _functions[found] = native
    return found


def call_pointer(kind: Function, address: int, *args: int) -> Any:
    """Call through a function pointer: a native function of ours, or real machine code of the C convention."""
    native = _functions.get(address)
    if native is not None:
        return native.raw(*args)
    if kind.convention != "c":
        raise NativeError(f"{kind} at {address:#x} cannot be called under CPython: it has no C convention")
    check_address(address, kind)

    def c_type(of: Any) -> Any:
        return ctype(of) if parameter_type(of).size else None

    prototype = ctypes.CFUNCTYPE(c_type(kind.result), *[c_type(p) for p in kind.parameters])
    return prototype(address)(*args)


def clz(value: int, bits: int) -> int:
    """Leading zeros."""
    return bits - (value & ((1 << bits) - 1)).bit_length()


def ctz(value: int, bits: int) -> int:
    """Trailing zeros; the width for 0."""
    value &= (1 << bits) - 1
    return (value & -value).bit_length() - 1 if value else bits


def popcount(value: int, bits: int) -> int:
    """Bits that are set."""
    return (value & ((1 << bits) - 1)).bit_count()


def bswap(value: int, bits: int) -> int:
    """The bytes in the other order."""
    return int.from_bytes((value & ((1 << bits) - 1)).to_bytes(bits // 8, "little"), "big")


def bitreverse(value: int, bits: int) -> int:
    """The bits in the other order."""
    return int(f"{value & ((1 << bits) - 1):0{bits}b}"[::-1], 2)


def rotl(value: int, by: int, bits: int) -> int:
    """Rotate to the left, modulo the width."""
    by %= bits
    value &= (1 << bits) - 1
    return value << by | value >> (bits - by)


def rotr(value: int, by: int, bits: int) -> int:
    """Rotate to the right, modulo the width."""
    return rotl(value, -by, bits)


BIT_OPERATIONS: dict[str, Callable[..., int]] = {
    "clz": clz,
    "ctz": ctz,
    "popcount": popcount,
    "bswap": bswap,
    "bitreverse": bitreverse,
    "rotl": rotl,
    "rotr": rotr,
}
UPDATES: dict[str, Callable[[int, int], int]] = {
    "atomic_add": lambda old, value: old + value,
    "atomic_and": lambda old, value: old & value,
    "atomic_or": lambda old, value: old | value,
    "atomic_xchg": lambda _old, value: value,
}


def update(name: str, kind: Any, address: int, value: int) -> int:
    """A read-modify-write; the old value."""
    old = loader(kind)(address)
    new = UPDATES[name](old, value)
    storer(kind)(kind(new) if isinstance(kind, Int) else new, address)
    return old


def compare_and_swap(kind: Any, address: int, expected: int, value: int) -> int:
    """The old value."""
    old = loader(kind)(address)
    if old == expected:
        storer(kind)(value, address)
    return old
