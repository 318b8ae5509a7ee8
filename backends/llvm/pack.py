"""The stencil pack: the file that the runtime maps (formats.PackHead, StencilHead, Hole), and how it grows.

New stencils are added to what a pack holds already. A pack is written aside and renamed into place, with mode 0600; it
is not waited for on the disk, since a pack that a crash of the host has damaged fails its checksum and is built anew.
The checksum is zlib's CRC-32 of everything behind the head.
"""

from __future__ import annotations

import zlib
from struct import Struct
from typing import TYPE_CHECKING, Final, Self

from dbt.engine.formats import (
    HANDLERS_MAGIC,
    HOLE_LEAVE,
    HOLE_RODATA,
    N_SPECIAL,
    PACK_MAGIC,
    SPECIAL_LEAVE,
    STENCIL_HEAD_BYTES,
    PackHead,
)
from dbt.engine.layout import CONDITIONS, FUSED_STENCIL, FUSED_VARIANTS, VARIANTS

if TYPE_CHECKING:
    from .extract import Stencil

_HEAD: Final = Struct("<3Q8I")
_STENCIL: Final = Struct("<HHI")
_HOLE: Final = Struct("<HBBi")
_I32: Final = Struct("<i")
_U32: Final = 4
_CODE_ALIGN: Final = 16
_POOL_ALIGN: Final = 64  # no constant wants more
_SLACK: Final = 64  # behind the last code: the emitter copies whole 16-byte words, at least two


class PackError(Exception):
    """A pack file is damaged or of another build; or a stencil does not fit the format."""


class Pack:
    """The contents of a pack while it grows. Numbers are those of EXIT_STENCIL and SPECIAL_..."""

    magic = PACK_MAGIC

    def __init__(self, stamp: str, n_forms: int, n_fusable: int) -> None:
        self.stamp: Final = stamp
        self.n_forms: Final = n_forms
        self.n_fusable: Final = n_fusable
        self._stencils: dict[int, bytes] = {}  # number: holes and code, as in the file
        self._special: dict[int, bytes] = {}
        self.pool = bytearray()  # constants, in the file behind the stamp
        self._constants: dict[bytes, int] = {}

    @classmethod
    def parse(cls, data: bytes, path: str, stamp: str, n_forms: int, n_fusable: int) -> Self:
        """The contents of a pack file, whose path is for the error: PackError if it is damaged or of another build."""
        pack = cls(stamp, n_forms, n_fusable)
        if len(data) < PackHead.size:
            raise PackError(f"{path}: {len(data)} bytes")
        magic, size, checksum, forms, fusable, *offsets = _HEAD.unpack_from(data)
        at_index, at_fused, at_special, at_pool, at_stamp, stamp_size = offsets
        if magic != cls.magic or size != len(data) or zlib.crc32(memoryview(data)[PackHead.size :]) != checksum:
            raise PackError(f"{path}: damaged")
        if (forms, fusable) != (n_forms, n_fusable) or data[at_stamp : at_stamp + stamp_size] != stamp.encode():
            raise PackError(f"{path}: of another build")
        ends: list[int] = []
        for table, at, count in (
            (pack._stencils, at_index, n_forms * VARIANTS),
            (pack._stencils, at_fused, pack._pairs),
            (pack._special, at_special, N_SPECIAL),
        ):
            for i, (start,) in enumerate(Struct("<I").iter_unpack(data[at : at + _U32 * count])):
                if start:
                    code_size, _, code = _STENCIL.unpack_from(data, start)
                    table[i | FUSED_STENCIL if at == at_fused else i] = data[start : start + code + code_size]
                    ends.append(start)
        # Old constants stay where they are, old stencils point to them.
        pack.pool += data[at_pool : min(ends, default=at_pool)]
        return pack

    def numbers(self) -> set[int]:
        """Which stencils it has."""
        return set(self._stencils)

    def specials(self) -> set[int]:
        """Which special stencils it has."""
        return set(self._special)

    def add(self, number: int, stencil: Stencil) -> None:
        """Add or replace a stencil by the number that EXIT_STENCIL carries."""
        limit = self._pairs if number & FUSED_STENCIL else self.n_forms * VARIANTS
        if number & ~FUSED_STENCIL >= limit:
            raise PackError(f"stencil {number:#x} of {limit}")
        self._stencils[number] = self.packed(stencil)

    def add_special(self, number: int, stencil: Stencil) -> None:
        """Add or replace a special stencil."""
        self._special[number] = self.packed(stencil)

    @property
    def _pairs(self) -> int:
        return self.n_fusable * CONDITIONS * FUSED_VARIANTS

    def packed(self, stencil: Stencil) -> bytes:
        """Head, holes and code of a stencil; its constants go to the pool."""
        holes = b"".join(
            _HOLE.pack(
                hole.offset, hole.kind, hole.source,
                hole.addend + (self._place(hole.constant) if hole.kind == HOLE_RODATA else 0),
            )
            for hole in stencil.holes
        )  # fmt: skip
        start = -(-(STENCIL_HEAD_BYTES + len(holes)) // _CODE_ALIGN) * _CODE_ALIGN
        head = _STENCIL.pack(len(stencil.code), len(stencil.holes), start) + holes
        return head.ljust(start, b"\0") + stencil.code

    def _place(self, constant: bytes) -> int:
        """Where a constant lies in the pool; equal ones share a place."""
        found = self._constants.get(constant)
        if found is None:
            align = min(_POOL_ALIGN, 1 << (len(constant) - 1).bit_length())
            found = self.pool.find(constant)
            while found % align and found >= 0:
                found = self.pool.find(constant, found + 1)
            if found < 0:
                self.pool += bytes(-len(self.pool) % align)
                found = len(self.pool)
                self.pool += constant
            self._constants[constant] = found
        return found

    def placed(self, blob: bytes, at: int, at_pool: int, leave: int) -> bytes:
        """Head, holes and code for their place in the file."""
        del at, at_pool, leave
        return blob

    # the file
    def to_bytes(self) -> bytes:
        """The file's contents."""
        stamp = self.stamp.encode()
        index, fused, special = [0] * (self.n_forms * VARIANTS), [0] * self._pairs, [0] * N_SPECIAL
        at_index = PackHead.size
        at_fused = at_index + _U32 * len(index)
        at_special = at_fused + _U32 * len(fused)
        at_stamp = at_special + _U32 * len(special)
        at_pool = -(-(at_stamp + len(stamp)) // _POOL_ALIGN) * _POOL_ALIGN
        parts = [bytes(self.pool)]
        at = at_pool + len(self.pool)
        stencils = [(fused if n & FUSED_STENCIL else index, n, blob) for n, blob in sorted(self._stencils.items())]
        for table, number, blob in (*((special, n, blob) for n, blob in sorted(self._special.items())), *stencils):
            padding = -at % _CODE_ALIGN
            table[number & ~FUSED_STENCIL] = at + padding
            parts += (bytes(padding), self.placed(blob, at + padding, at_pool, special[SPECIAL_LEAVE]))
            at += padding + len(blob)
        tables = b"".join(n.to_bytes(_U32, "little") for table in (index, fused, special) for n in table)
        body = b"".join((tables, stamp.ljust(at_pool - at_stamp, b"\0"), *parts, bytes(_SLACK)))
        return self._head(zlib.crc32(body), len(body), at_index, at_fused, at_special, at_pool, at_stamp) + body

    def _head(self, checksum: int, body: int, *offsets: int) -> bytes:
        at_index, at_fused, at_special, at_pool, at_stamp = offsets
        return _HEAD.pack(
            self.magic, PackHead.size + body, checksum, self.n_forms, self.n_fusable,
            at_index, at_fused, at_special, at_pool, at_stamp, len(self.stamp.encode()),
        )  # fmt: skip


class HandlerPack(Pack):
    """The interpreter's handlers: code that runs where it lies in the file, so holes are filled in by this process.

    They are against other places in the file, constants and the leave handler: the file may be mapped anywhere.
    """

    magic = HANDLERS_MAGIC

    def placed(self, blob: bytes, at: int, at_pool: int, leave: int) -> bytes:
        placed = bytearray(blob)
        _, n_holes, code = _STENCIL.unpack_from(blob)
        if leave:
            leave += _STENCIL.unpack_from(self._special[SPECIAL_LEAVE])[2]
        for i in range(n_holes):
            offset, kind, _, addend = _HOLE.unpack_from(blob, STENCIL_HEAD_BYTES + _HOLE.size * i)
            if kind not in (HOLE_RODATA, HOLE_LEAVE) or (kind == HOLE_LEAVE and not leave):
                raise PackError(f"a handler has a hole of kind {kind}")
            target = at_pool if kind == HOLE_RODATA else leave
            placed[code + offset : code + offset + _I32.size] = _I32.pack(target + addend - (at + code + offset))
        return bytes(placed)
