"""Links one position-independent object into a flat image file, which dbt.engine.image maps without any linker.

Layout: head, stamp, exports, fixups | page: executable sections, constants | page: variables (zeroed ones stored as
zeros, so that the file is mapped as it is). Relative relocations are resolved here; absolute ones become fixups.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from dbt.engine.image import MAGIC, ImageHead
from dbt.errors import InternalError

from . import elf

PAGE: Final = 4096
_SKIPPED: Final = (".eh_frame", ".note", ".llvm", ".comment")  # nothing unwinds through native code
_RELATIVE: Final = (elf.R_X86_64_PC32, elf.R_X86_64_PLT32)
_GOT: Final = (elf.R_X86_64_GOTPCREL, elf.R_X86_64_GOTPCRELX, elf.R_X86_64_REX_GOTPCRELX)


class LinkError(InternalError):
    """The object refers to something that an image cannot have."""


def link(stamp: str, obj: bytes) -> bytes:
    """The bytes of an image file."""
    return Linker(elf.read_object(obj)).run(stamp)


class Linker:
    """Places the sections of one object and resolves its relocations."""

    def __init__(self, obj: elf.ObjectFile) -> None:
        self.obj = obj
        kept = [s for s in obj.sections if s.allocated and s.size and not s.name.startswith(_SKIPPED)]
        self.text = [s for s in kept if s.flags & elf.SHF_EXECINSTR]
        self.constant = [s for s in kept if not s.flags & (elf.SHF_EXECINSTR | elf.SHF_WRITE) and not s.relocations]
        placed = {s.index for s in self.text + self.constant}
        self.data = [s for s in kept if s.index not in placed]  # fixups may write there
        self.offsets: dict[int, int] = {}  # of sections, from the start of the file
        self.slots: dict[tuple[int, int], int] = {}  # (section, value) -> place of its address
        self.fixups: list[tuple[int, int]] = []

    def run(self, stamp: str) -> bytes:
        # Room for the tables is known before the sections are placed: fixups and GOT slots are counted first.
        relocations = [r for s in (*self.text, *self.constant, *self.data) for r in s.relocations]
        got = {(r.symbol.section, r.symbol.value) for r in relocations if r.type in _GOT}
        absolute = sum(r.type == elf.R_X86_64_64 for r in relocations) + len(got)
        exported = [s for s in self.obj.symbols if s.defined and s.binding != elf.STB_LOCAL]
        room = sum(len(s.name.encode()) + 22 for s in exported)
        stamp_bytes = stamp.encode()
        fixups = ImageHead.size
        exports = fixups + 16 * absolute
        stamp_offset = exports + room
        code = _up(stamp_offset + len(stamp_bytes), PAGE)
        end = self._place([*self.text, *self.constant], code)
        data = _up(end, PAGE)
        end = _up(self._place(self.data, data), 8)
        for number, key in enumerate(sorted(got)):
            self.slots[key] = end + 8 * number
        size = _up(end + 8 * len(got), 8)

        image = bytearray(size)
        for section in (*self.text, *self.constant, *self.data):
            start = self.offsets[section.index]
            image[start : start + len(section.data)] = section.data
        for section in (*self.text, *self.constant, *self.data):
            for relocation in section.relocations:
                self._relocate(image, section, relocation)
        for (index, value), place in self.slots.items():
            self.fixups.append((place, self.offsets[index] + value))
        for number, (place, target) in enumerate(self.fixups):
            start = fixups + 16 * number
            image[start : start + 16] = place.to_bytes(8, "little") + target.to_bytes(8, "little")
        lines = "".join(f"{s.name} {self._address(s)}\n" for s in exported).encode()
        image[exports : exports + len(lines)] = lines
        image[stamp_offset : stamp_offset + len(stamp_bytes)] = stamp_bytes
        image[: ImageHead.size] = ImageHead.pack(
            magic=MAGIC, size=size, checksum=crc32(memoryview(image)[ImageHead.size :]), n_fixups=len(self.fixups),
            code=code, data=data, stamp=stamp_offset, stamp_size=len(stamp_bytes), exports=exports,
            exports_size=len(lines), fixups=fixups,
        )  # fmt: skip
        return bytes(image)

    def _place(self, sections: list[elf.Section], offset: int) -> int:
        for section in sections:
            offset = _up(offset, section.align)
            self.offsets[section.index] = offset
            offset += section.size
        return offset

    def _address(self, symbol: elf.Symbol) -> int:
        if not symbol.defined:
            raise LinkError(f"native code refers to {symbol.name!r}, which it does not define")
        if symbol.section not in self.offsets:
            raise LinkError(f"native code refers to {symbol.name!r} in a section that is not part of an image")
        return self.offsets[symbol.section] + symbol.value

    def _relocate(self, image: bytearray, section: elf.Section, relocation: elf.Relocation) -> None:
        place = self.offsets[section.index] + relocation.offset
        target = self._address(relocation.symbol)
        if relocation.type == elf.R_X86_64_64:
            if section in self.text or place % 8:
                raise LinkError(f"{section.name}: an absolute address of {relocation.symbol.name!r} in code")
            self.fixups.append((place, target + relocation.addend))
        elif relocation.type == elf.R_X86_64_PC64:
            image[place : place + 8] = (target + relocation.addend - place).to_bytes(8, "little", signed=True)
        elif relocation.type in _RELATIVE or relocation.type in _GOT:
            if relocation.type in _GOT:
                target = self.slots[relocation.symbol.section, relocation.symbol.value]
            image[place : place + 4] = (target + relocation.addend - place).to_bytes(4, "little", signed=True)
        else:
            raise LinkError(f"{section.name}: relocation type {relocation.type} of {relocation.symbol.name!r}")


def _up(value: int, align: int) -> int:
    return (value + align - 1) & -align
