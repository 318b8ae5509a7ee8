"""Libraries of others, in C, loaded when a protocol needs them: declared functions, and vectors as iovecs.

Python's lock is released while they work, so that the workers of a disk have several requests in flight.
"""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dbt.machine.block.errors import ImageUnsupported

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dbt.machine.block.request import Vectors

Signature = tuple[Any, tuple[Any, ...]]  # what a function returns, and what it takes


class Iovec(ctypes.Structure):
    """One piece of memory (readv(2))."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Buffer(ctypes.Structure):
    """Py_buffer of Python's C API: the way to the address of memory that is only to be read."""

    _fields_ = (
        ("buf", ctypes.c_void_p), ("obj", ctypes.c_void_p), ("len", ctypes.c_ssize_t), ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int), ("ndim", ctypes.c_int), ("format", ctypes.c_void_p), ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p), ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
    )  # fmt: skip


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int)
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (ctypes.POINTER(_Buffer),)
_release_buffer.restype = None


def load(driver: str, name: str, package: str, functions: Mapping[str, Signature]) -> ctypes.CDLL:
    """The library `name` with the types of `functions` set; ImageUnsupported, with Debian's package, without it."""
    try:
        found = ctypes.CDLL(name, use_errno=True)
        for function, (result, arguments) in functions.items():
            entry = getattr(found, function)
            entry.restype, entry.argtypes = result, arguments
    except (OSError, AttributeError) as wrong:
        what = f"the protocol {driver} needs {name}, which cannot be used: {wrong}"
        raise ImageUnsupported(driver, what, hint=f"apt-get install {package}") from None
    return found


@contextmanager
def iovecs(vectors: Vectors) -> Iterator[ctypes.Array[Iovec]]:
    """`vectors` as an array of iovecs. Their memory stays where it is until the end."""
    held: list[_Buffer] = []
    try:
        array = (Iovec * len(vectors))()
        for entry, view in zip(array, vectors, strict=True):
            buffer = _Buffer()
            _get_buffer(view, buffer, 0)
            held.append(buffer)
            entry.base, entry.length = buffer.buf, buffer.len
        yield array
    finally:
        for buffer in held:
            _release_buffer(buffer)
