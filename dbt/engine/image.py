"""Loads an image: native code of ours as one flat file, mapped in place (written by dbt.backends.llvm.image).

File: an ImageHead, the stamp, the export list, the fixups, then from `code` on the pages of text and constants, then
from `data` on the pages of variables. The file is mapped as a whole, so offsets in it are offsets in memory. Code
refers to itself relative to the program counter; places that hold an absolute address are listed as fixups.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from zlib import crc32

from dbt.errors import DragomanError
from dbt.native import Struct, struct, u32, u64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAP_FIXED = 0x10
MAGIC = 0x31474D4947415244  # 'DRAGIMG1', little-endian


@struct
class ImageHead(Struct):
    """Offsets are from the start of the file; `code` and `data` are multiples of the page size."""

    magic: u64
    size: u64  # of the whole file
    checksum: u32  # CRC-32 of everything behind this head
    n_fixups: u32  # pairs of u64: place, target
    code: u64
    data: u64
    stamp: u32
    stamp_size: u32
    exports: u32  # lines 'name offset'
    exports_size: u32
    fixups: u32
    pad: u32


class ImageError(DragomanError):
    """An image file that cannot be used: damaged, or built from something else. The file is named."""


class Image:
    """A loaded image. It stays mapped as long as the process lives: code or signal handlers in it may be in use."""

    __slots__ = ("base", "exports", "path", "size")

    def __init__(self, path: str, base: int, size: int, exports: dict[str, int]) -> None:
        self.path = path
        self.base = base
        self.size = size
        self.exports = exports

    def address(self, name: str) -> int:
        """Host address of an exported function or symbol."""
        offset = self.exports.get(name)
        if offset is None:
            raise ImageError(f"{self.path}: nothing is exported as {name!r}")
        return self.base + offset

    def function(self, name: str, restype: Any, argtypes: tuple[Any, ...]) -> Any:
        """An exported function of the C convention, callable through ctypes (which releases the GIL)."""
        return ctypes.CFUNCTYPE(restype, *argtypes)(self.address(name))


def load_image(path: str, expected_stamp: str, descriptor: int = -1, data: bytes = b"") -> Image:
    """Map an image. Raises OSError if it cannot be read and ImageError if it is not what is expected.

    `descriptor`: of the file itself or of a copy, which is closed; `data`: what is in it, where there is no file.
    """
    if data:
        return _load_bytes(path, expected_stamp, data)
    if descriptor < 0:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        if size < ImageHead.size:
            raise ImageError(f"{path}: not an image: {size} bytes")
        base = _map(descriptor, 0, size, mmap.PROT_READ | mmap.PROT_WRITE, 0, path)
        try:
            exports = _prepare(base, size, path, expected_stamp)
            head = ImageHead.at(base)
            # Mapped anew, not made executable: a host may refuse that for pages that could be written.
            code, end = head.code, head.data
            _map(descriptor, base + code, end - code, mmap.PROT_READ | mmap.PROT_EXEC, code, path)
        except BaseException:
            _libc().munmap(ctypes.c_void_p(base), ctypes.c_size_t(size))
            raise
    finally:
        os.close(descriptor)
    return Image(path, base, size, exports)


def _load_bytes(path: str, expected_stamp: str, data: bytes) -> Image:
    """Without a file, on hosts that let memory become executable that could be written."""
    size = len(data)
    if size < ImageHead.size:
        raise ImageError(f"{path}: not an image: {size} bytes")
    base = _map(-1, 0, size, mmap.PROT_READ | mmap.PROT_WRITE, 0, path)
    ctypes.memmove(base, data, size)
    exports = _prepare(base, size, path, expected_stamp)
    head = ImageHead.at(base)
    start, length = ctypes.c_void_p(base + head.code), ctypes.c_size_t(head.data - head.code)
    if _libc().mprotect(start, length, mmap.PROT_READ | mmap.PROT_EXEC):
        raise ImageError(f"{path}: cannot be made executable: {os.strerror(ctypes.get_errno())}")
    return Image(path, base, size, exports)


def _prepare(base: int, size: int, path: str, expected_stamp: str) -> dict[str, int]:
    """Check a mapped image and apply its fixups; the offsets of what it exports."""
    head = ImageHead.at(base)
    if head.magic != MAGIC:
        raise ImageError(f"{path}: not an image: wrong magic number")
    if head.size != size:
        raise ImageError(f"{path}: truncated: {size} of {head.size} bytes")
    view = memoryview((ctypes.c_uint8 * size).from_address(base)).cast("B")
    if crc32(view[ImageHead.size :]) != head.checksum:
        raise ImageError(f"{path}: damaged: the checksum differs")
    stamp = bytes(view[head.stamp : head.stamp + head.stamp_size]).decode()
    if stamp != expected_stamp:
        raise ImageError(f"{path}: built from something else: {stamp!r}, not {expected_stamp!r}")
    pairs = view[head.fixups : head.fixups + 16 * head.n_fixups].cast("Q")
    words = view.cast("Q")
    for index in range(0, len(pairs), 2):
        words[pairs[index] // 8] = base + pairs[index + 1]
    text = bytes(view[head.exports : head.exports + head.exports_size]).decode().split()
    return dict(zip(text[::2], map(int, text[1::2]), strict=True))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _map(descriptor: int, at: int, size: int, prot: int, offset: int, path: str) -> int:
    """Map part of a file, privately. Not through the mmap module, which would unmap it under a running handler."""
    function = _libc().mmap
    function.restype = ctypes.c_size_t
    function.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    flags = mmap.MAP_PRIVATE | (_MAP_FIXED if at else 0) | (mmap.MAP_ANONYMOUS if descriptor < 0 else 0)
    base: int = function(at, size, prot, flags, descriptor, offset)
    if base == ctypes.c_size_t(-1).value:
        raise ImageError(f"{path}: cannot be mapped: {os.strerror(ctypes.get_errno())}")
    return base
