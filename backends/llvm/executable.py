"""`python -m dbt.backends.llvm.executable FILE`: link the native launcher into an executable of one segment.

There is no linker: code and constants lie behind the ELF header, mapped as they are in the file, and refer to each
other
relative to the program counter. The file that users get is kept in the repository (bin/dragoman), so that installing
needs no compiler; `make launcher` makes it anew.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Final

from dbt.engine.launcher import START, launch
from dbt.errors import InternalError

from . import elf
from .compile import compile_text
from .native import module_text

BASE: Final = 0x10000000
ENTRY: Final = "_start"
_HEADS: Final = 64 + 56 + 56  # of the file, of the segment, of the stack
_SKIPPED: Final = (".eh_frame", ".note", ".llvm", ".comment")
_RELATIVE: Final = (elf.R_X86_64_PC32, elf.R_X86_64_PLT32)
_LOAD, _STACK = 1, 0x6474E551  # PT_LOAD, PT_GNU_STACK
_READ_EXECUTE, _READ_WRITE = 5, 6


def link(data: bytes) -> bytes:
    """An executable for x86-64 Linux from an object. Raises InternalError for what one segment cannot hold."""
    obj = elf.read_object(data)
    kept = [s for s in obj.sections if s.allocated and s.size and not s.name.startswith(_SKIPPED)]
    body = bytearray(_HEADS)
    places: dict[int, int] = {}
    for section in sorted(kept, key=lambda s: not s.flags & elf.SHF_EXECINSTR):
        if section.flags & elf.SHF_WRITE:
            raise InternalError(f"{section.name}: an executable of one segment has no variables")
        body += bytes(-len(body) % section.align)
        places[section.index] = len(body)
        body += section.data
    for section in kept:
        for relocation in section.relocations:
            target = relocation.symbol
            if relocation.type not in _RELATIVE or target.section not in places:
                raise InternalError(f"{section.name}: relocation {relocation.type} against {target.name!r}")
            place = places[section.index] + relocation.offset
            value = places[target.section] + target.value + relocation.addend - place
            body[place : place + 4] = value.to_bytes(4, "little", signed=True)
    entry = obj.symbol(ENTRY)
    start = BASE + places[entry.section] + entry.value
    head = b"\x7fELF\2\1\1" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, start, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    head += struct.pack("<IIQQQQQQ", _LOAD, _READ_EXECUTE, 0, BASE, BASE, len(body), len(body), 0x1000)
    head += struct.pack("<IIQQQQQQ", _STACK, _READ_WRITE, 0, 0, 0, 0, 0, 16)
    body[:_HEADS] = head
    return bytes(body)


def launcher() -> bytes:
    """The `dragoman` command. It runs on every x86-64 processor: nothing depends on this one's features."""
    return link(compile_text(module_text([launch], [START]), opt=1, portable=True))


def main(path: str) -> None:
    """Write the launcher to a file."""
    file = Path(path)
    file.write_bytes(launcher())
    file.chmod(0o755)


if __name__ == "__main__":
    main(*sys.argv[1:])
