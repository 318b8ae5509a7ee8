"""Vectors of memory: cutting, filling with zeroes, asking whether they are zero, and pages that O_DIRECT can take."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.block.request import Vectors

ZEROES = bytes(1 << 16)
IOV_MAX = 1024  # vectors that one system call takes


def cut(vectors: Vectors, offset: int, length: int) -> list[memoryview]:
    """The part [offset, offset + length) of the bytes in `vectors`, without copying them."""
    if len(vectors) == 1:
        return [vectors[0][offset : offset + length]]
    part: list[memoryview] = []
    for vector in vectors:
        if length <= 0:
            break
        have = len(vector)
        if offset >= have:
            offset -= have
            continue
        piece = vector[offset : offset + length]
        part.append(piece)
        length -= len(piece)
        offset = 0
    return part


def fill(vectors: Vectors, offset: int, length: int) -> None:
    """Write zeroes to the part [offset, offset + length) of `vectors`."""
    for view in cut(vectors, offset, length):
        for start in range(0, len(view), len(ZEROES)):
            piece = view[start : start + len(ZEROES)]
            piece[:] = ZEROES[: len(piece)]


def gather(vectors: Vectors) -> bytes | memoryview:
    """All bytes of `vectors` as one object; no copy if it is one already."""
    return vectors[0] if len(vectors) == 1 else b"".join(vectors)


def scatter(data: bytes | bytearray | memoryview, vectors: Vectors) -> None:
    """Copy `data` into `vectors`, which hold as much."""
    at = 0
    source = memoryview(data)
    for view in vectors:
        view[:] = source[at : at + len(view)]
        at += len(view)


def is_zero(view: memoryview | bytes | bytearray) -> bool:
    """Whether all bytes are zero. Looks at the first ones before it compares all, in C, 64 KiB at a time."""
    if view[:64] != ZEROES[: min(64, len(view))]:
        return False
    return next((False for at in range(0, len(view), len(ZEROES)) if not _zero_piece(view, at)), True)


def _zero_piece(view: memoryview | bytes | bytearray, at: int) -> bool:
    piece = view[at : at + len(ZEROES)]
    return bytes(piece) == ZEROES[: len(piece)]


def aligned(length: int) -> memoryview:
    """A fresh buffer that starts on a page, of at least `length` bytes: O_DIRECT takes no other."""
    pages = -(-max(length, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
    return memoryview(mmap.mmap(-1, pages))[:length]


def transfer(call: Callable[[Vectors, int], int], vectors: Vectors, offset: int, length: int) -> int:
    """Repeat preadv or pwritev until `length` bytes are through or it returns 0; the bytes that are."""
    done = call(vectors, offset) if len(vectors) <= IOV_MAX else 0
    while done < length:
        rest = cut(vectors, done, length - done)
        count = call(rest[:IOV_MAX], offset + done)
        if count == 0:
            break
        done += count
    return done
