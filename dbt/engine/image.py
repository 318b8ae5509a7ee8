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
    """A loaded image. It stays mapped as long as the process: code in it may be running."""

    __slots__ = ("_map", "base", "exports", "path", "size")

    def __init__(self, path: str, mapped: mmap.mmap, base: int, exports: dict[str, int]) -> None:
        self.path = path
        self._map = mapped
        self.base = base
        self.size = len(mapped)
        self.exports = exports

    def address(self, name: str) -> int:
        """Host address of an exported function or symbol."""
        offset = self.exports.get(name)
        if offset is None:
            raise ImageError(f"{self.path}: nothing is exported as {name!r}")
        return self.base + offset

    def function(self, name: str, restype: Any, argtypes: tuple[Any, ...]) -> Any:  # noqa: ANN401 - ctypes
        """An exported function of the C convention, callable through ctypes (which releases the GIL)."""
        return ctypes.CFUNCTYPE(restype, *argtypes)(self.address(name))


def load_image(path: str, expected_stamp: str) -> Image:
    """Map an image. Raises OSError if it cannot be read and ImageError if it is not what is expected."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        head_size = ImageHead.size
        if size < head_size:
            raise ImageError(f"{path}: not an image: {size} bytes")
        mapped = mmap.mmap(descriptor, size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        os.close(descriptor)
    base = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    head = ImageHead.at(base)
    if head.magic != MAGIC:
        raise ImageError(f"{path}: not an image: wrong magic number")
    if head.size != size:
        raise ImageError(f"{path}: truncated: {size} of {head.size} bytes")
    view = memoryview(mapped)
    if crc32(view[head_size:]) != head.checksum:
        raise ImageError(f"{path}: damaged: the checksum differs")
    stamp = mapped[head.stamp : head.stamp + head.stamp_size].decode()
    if stamp != expected_stamp:
        raise ImageError(f"{path}: built from something else: {stamp!r}, not {expected_stamp!r}")
    words = view[head.fixups : head.fixups + 16 * head.n_fixups].cast("Q")
    whole = view[: size & -8].cast("Q")
    for index in range(0, len(words), 2):
        whole[words[index] // 8] = base + words[index + 1]
    lines = mapped[head.exports : head.exports + head.exports_size].decode().split()
    exports = dict(zip(lines[::2], map(int, lines[1::2]), strict=True))
    _protect(base + head.code, head.data - head.code, path)
    return Image(path, mapped, base, exports)


def _protect(address: int, length: int, path: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(length), mmap.PROT_READ | mmap.PROT_EXEC):
        error = ctypes.get_errno()
        raise ImageError(f"{path}: the host does not allow executable memory: {os.strerror(error)}")
