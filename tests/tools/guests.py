"""A guest whose functions the tools' tests know, with and without symbols."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

BASE: Final = 0x400000
START, LOOP = 0x1000, 0x1010  # offsets
ROUNDS: Final = 1000
STATUS: Final = 7
_CODE: Final = (
    # _start
    0xD2807D00,  # mov x0, #1000
    0x94000003,  # bl loop
    0xD2800BA8,  # mov x8, #93 (exit)
    0xD4000001,  # svc #0: the status is x0
    # loop
    0xF81F0FE0,  # str x0, [sp, #-16]!
    0xF1000400,  # subs x0, x0, #1
    0x54FFFFE1,  # b.ne to it
    0xF100001F,  # cmp x0, #0: no flag lives on behind the loop
    0xD28000E0,  # mov x0, #7
    0xD65F03C0,  # ret
)
INSTRUCTIONS: Final = 4 + 1 + 2 * ROUNDS + 3
_NAMES: Final = (("_start", START, 16), ("loop", LOOP, 24))


def write_guest(path: Path, *, symbols: bool = True) -> Path:
    """An executable for AArch64 Linux: one segment, and a symbol table if `symbols`."""
    code = struct.pack(f"<{len(_CODE)}I", *_CODE)
    size = START + len(code)
    strings = b"\0" + b"".join(name.encode() + b"\0" for name, _, _ in _NAMES)
    table = bytes(24)
    for name, start, length in _NAMES:
        table += struct.pack("<IBBHQQ", strings.index(name.encode()), 0x12, 0, 1, BASE + start, length)
    sections = [
        bytes(64),
        struct.pack("<IIQQQQIIQQ", 0, 1, 6, BASE + START, START, len(code), 0, 0, 4, 0),
        struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, size, len(table), 3, 1, 8, 24),
        struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, size + len(table), len(strings), 0, 0, 1, 0),
    ]
    rest = table + strings if symbols else b""
    at, count = (size + len(rest), len(sections)) if symbols else (0, 0)
    head = b"\x7fELF\2\1\1" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, BASE + START, 64, at, 0, 64, 56, 1, 64, count, count and 3)
    head += struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 0x1000)
    path.write_bytes(head.ljust(START, b"\0") + code + rest + (b"".join(sections) if symbols else b""))
    path.chmod(0o755)
    return path
