"""The decoder tables as a file that the runtime maps: formats.TablesHead and the arrays behind it."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from dbt.engine.formats import TABLES_MAGIC, TablesHead

if TYPE_CHECKING:
    from .guest import Guest

_ALIGN = 16
_ARRAYS = ("nodes", "children", "forms", "operands", "tokens", "constants")


def tables_bytes(guest: Guest, stamp: str) -> bytes:
    """The file's content."""
    serialised = guest.tables.serialise()
    body = bytearray()
    head: Any = TablesHead.view()

    def append(data: bytes) -> int:
        body.extend(bytes(-(TablesHead.size + len(body)) % _ALIGN))
        at = len(body)
        body.extend(data)
        return int(at + TablesHead.size)

    for name in _ARRAYS:
        setattr(head, name, append(getattr(serialised, name)))
    text = stamp.encode()
    head.stamp, head.stamp_size = append(text), len(text)
    head.magic = TABLES_MAGIC
    head.size = TablesHead.size + len(body)
    head.checksum = zlib.crc32(body)
    head.hwcap, head.hwcap2 = guest.hwcap
    head.n_forms = serialised.counts["forms"]
    head.n_fusable = serialised.n_fusable
    return bytes(head) + bytes(body)
