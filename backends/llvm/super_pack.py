"""The file of superinstructions (formats.SuperHead, SuperEntry) that the interpreter maps, and how it grows.

Its code runs where it lies, at any distance from the handlers. Who looks something up compares the whole key: the hash
only says where to begin. The file is kept below a limit: when it would grow beyond, it begins anew with what is wanted
now.
"""

from __future__ import annotations

import zlib
from struct import Struct
from typing import TYPE_CHECKING, Final, Self

from dbt.engine.formats import SUPER_MAGIC, SuperHead
from dbt.engine.layout import PART_KEY
from dbt.engine.superinstructions import ENTRY_BYTES, KEY_FACTOR

from .pack import HandlerPack, PackError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .extract import Stencil

LIMIT: Final = 4 << 20  # bytes; the whole file is read when it is mapped, for its checksum
_HEAD: Final = Struct("<3Q8I")
_ENTRY: Final = Struct("<2I")
_STENCIL: Final = Struct("<HHI")
_MASK64: Final = (1 << 64) - 1
_ALIGN: Final = 16
_SLACK: Final = 64


def key_hash(key: bytes) -> int:
    """As dbt.engine.superinstructions.key_hash."""
    hashed = len(key) // PART_KEY
    for (word,) in Struct("<Q").iter_unpack(key):
        hashed = ((hashed << 23 | hashed >> 41) ^ word) * KEY_FACTOR & _MASK64
    return hashed >> 32


class SuperPack:
    """The contents while it grows: code, or none where it cannot be compiled, by key."""

    def __init__(self, stamp: str) -> None:
        self.stamp: Final = stamp
        self._code = HandlerPack(stamp, 0, 0)  # makes blobs, and keeps their constants
        self._blobs: dict[bytes, bytes] = {}

    @classmethod
    def parse(cls, data: bytes, path: str, stamp: str) -> Self:
        """The contents of a file, whose path is for the error: PackError if it is damaged or of another build."""
        if len(data) < SuperHead.size:
            raise PackError(f"{path}: {len(data)} bytes")
        magic, size, checksum, _, _, at_stamp, stamp_size, at_pool, at_entries, n_entries, at_code = _HEAD.unpack_from(
            data
        )
        if magic != SUPER_MAGIC or size != len(data) or zlib.crc32(memoryview(data)[SuperHead.size :]) != checksum:
            raise PackError(f"{path}: damaged")
        if data[at_stamp : at_stamp + stamp_size] != stamp.encode():
            raise PackError(f"{path}: of another build")
        pack = cls(stamp)
        pack._code.pool += data[at_pool:at_code]
        at = at_entries
        for _ in range(n_entries):
            parts, head = _ENTRY.unpack_from(data, at)
            key = data[at + ENTRY_BYTES : at + ENTRY_BYTES + parts * PART_KEY]
            blob = b""
            if head:
                code_size, _, code = _STENCIL.unpack_from(data, head)
                blob = data[head : head + code + code_size]
            pack._blobs[key] = blob
            at += ENTRY_BYTES + len(key)
        return pack

    def keys(self) -> set[bytes]:
        """What it has."""
        return set(self._blobs)

    def add(self, found: Mapping[bytes, Stencil | None]) -> None:
        """Add superinstructions; what was there before goes if it would be too much with them."""
        self._add(found)
        if len(self.to_bytes()) > LIMIT:
            self._code = HandlerPack(self.stamp, 0, 0)
            self._blobs.clear()
            self._add(found)

    def _add(self, found: Mapping[bytes, Stencil | None]) -> None:
        for key, stencil in found.items():
            self._blobs[key] = b"" if stencil is None else self._code.packed(stencil)

    # the file
    def to_bytes(self) -> bytes:
        """The file's contents."""
        n_slots = 1 << (2 * len(self._blobs) + 1).bit_length()
        entries_size = sum(ENTRY_BYTES + len(key) for key in self._blobs)
        stamp = self.stamp.encode()
        at_slots = SuperHead.size
        at_entries = at_slots + 4 * n_slots
        at_stamp = at_entries + entries_size
        at_pool = _aligned(at_stamp + len(stamp), 64)
        at_code = _aligned(at_pool + len(self._code.pool), _ALIGN)
        slots, entries, code = [0] * n_slots, bytearray(), bytearray()
        for key, blob in self._blobs.items():
            slot = key_hash(key) & (n_slots - 1)
            while slots[slot]:
                slot = slot + 1 & (n_slots - 1)
            slots[slot] = at_entries + len(entries)
            at = at_code + len(code)
            entries += _ENTRY.pack(len(key) // PART_KEY, at if blob else 0) + key
            if blob:
                code += self._code.placed(blob, at, at_pool, 0)
                code += bytes(-len(code) % _ALIGN)
        body = b"".join((
            Struct(f"<{n_slots}I").pack(*slots), entries, stamp.ljust(at_pool - at_stamp, b"\0"),
            self._code.pool.ljust(at_code - at_pool, b"\0"), code, bytes(_SLACK),
        ))  # fmt: skip
        head = _HEAD.pack(
            SUPER_MAGIC, SuperHead.size + len(body), zlib.crc32(body), at_slots, n_slots, at_stamp, len(stamp), at_pool,
            at_entries, len(self._blobs), at_code,
        )  # fmt: skip
        return head + body


def _aligned(at: int, to: int) -> int:
    return -(-at // to) * to
