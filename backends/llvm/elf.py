"""A reader for the ELF objects that LLVM writes for us: sections, symbols and relocations (ELF-64 object file format).

Only what our own emitter can produce: little-endian x86-64 relocatable files with RELA sections.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from dbt.errors import InternalError

SHT_SYMTAB, SHT_RELA, SHT_NOBITS = 2, 4, 8
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 1, 2, 4
SHN_UNDEF, SHN_LORESERVE, SHN_ABS, SHN_COMMON = 0, 0xFF00, 0xFFF1, 0xFFF2
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STT_SECTION = 3

# System V ABI, AMD64 supplement, table 4.10
R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32, R_X86_64_GOTPCREL = 1, 2, 4, 9
R_X86_64_32, R_X86_64_32S, R_X86_64_PC64 = 10, 11, 24
R_X86_64_GOTPCRELX, R_X86_64_REX_GOTPCRELX = 41, 42

_EM_X86_64: Final = 62
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_RELA: Final = struct.Struct("<QQq")


class ElfError(InternalError):
    """The object file is not what LLVM writes for this host."""


@dataclass(slots=True)
class Section:
    """One section with its contents and the relocations that apply to it."""

    index: int
    name: str
    type: int
    flags: int
    size: int
    align: int
    data: bytes  # empty for NOBITS
    link: int = 0
    info: int = 0
    relocations: list[Relocation] = field(default_factory=list)

    @property
    def allocated(self) -> bool:
        return bool(self.flags & SHF_ALLOC)


@dataclass(slots=True, frozen=True)
class Symbol:
    """`section` is an index, SHN_UNDEF or SHN_ABS; `value` is an offset in the section."""

    name: str
    section: int
    value: int
    size: int
    binding: int
    type: int

    @property
    def defined(self) -> bool:
        return self.section != SHN_UNDEF


@dataclass(slots=True, frozen=True)
class Relocation:
    """At `offset` of its section belongs something made of the symbol's address plus the addend."""

    offset: int
    type: int
    symbol: Symbol
    addend: int


@dataclass(slots=True)
class ObjectFile:
    """Sections and symbols, in the order of their indices."""

    sections: list[Section]
    symbols: list[Symbol]

    def section(self, name: str) -> Section:
        for section in self.sections:
            if section.name == name:
                return section
        raise ElfError(f"the object has no section {name}")

    def symbol(self, name: str) -> Symbol:
        """The symbol of this name that is not local, else the local one."""
        found = [s for s in self.symbols if s.name == name and s.type != STT_SECTION]
        if not found:
            raise ElfError(f"the object has no symbol {name}")
        return max(found, key=lambda s: s.binding != STB_LOCAL)


def read_object(data: bytes) -> ObjectFile:
    """Parse a relocatable object file."""
    try:
        return _read(data)
    except (struct.error, IndexError, ValueError) as error:
        raise ElfError(f"the object file is damaged: {error}") from error


def _read(data: bytes) -> ObjectFile:
    ident, kind, machine, _, _, _, table, _, _, _, _, entry_size, count, names_index = _HEADER.unpack_from(data)
    if ident[:6] != b"\x7fELF\x02\x01" or kind != 1 or machine != _EM_X86_64 or entry_size != _SECTION.size:
        raise ElfError("not a relocatable ELF file for x86-64")
    heads = [_SECTION.unpack_from(data, table + i * entry_size) for i in range(count or 1)]
    if count == 0:  # 65,280 sections or more: the count is in the first header
        heads = [_SECTION.unpack_from(data, table + i * entry_size) for i in range(heads[0][5])]
        names_index = heads[0][6] if names_index == 0xFFFF else names_index
    names = _slice(data, heads[names_index][4], heads[names_index][5])
    sections = []
    for index, (name, type_, flags, _, offset, size, link, info, align, _) in enumerate(heads):
        content = b"" if type_ in (0, SHT_NOBITS) else _slice(data, offset, size)
        sections.append(Section(index, _string(names, name), type_, flags, size, align or 1, content, link, info))
    symbols: list[Symbol] = []
    for section in sections:
        if section.type == SHT_SYMTAB:
            symbols = _symbols(section, sections)
    for section in sections:
        if section.type == SHT_RELA:
            sections[section.info].relocations = [
                Relocation(offset, info & 0xFFFFFFFF, symbols[info >> 32], addend)
                for offset, info, addend in _RELA.iter_unpack(section.data)
            ]
    return ObjectFile(sections, symbols)


def _symbols(table: Section, sections: list[Section]) -> list[Symbol]:
    names = sections[table.link].data
    symbols = []
    for name, info, _, section, value, size in _SYMBOL.iter_unpack(table.data):
        type_ = info & 15
        if SHN_LORESERVE <= section < 0x10000 and section not in (SHN_ABS, SHN_COMMON):
            raise ElfError(f"symbol {_string(names, name)!r} is in the reserved section {section:#x}")
        text = sections[section].name if type_ == STT_SECTION else _string(names, name)
        symbols.append(Symbol(text, section, value, size, info >> 4, type_))
    return symbols


def _slice(data: bytes, offset: int, size: int) -> bytes:
    if offset + size > len(data):
        raise ElfError("the object file is truncated")
    return data[offset : offset + size]


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode()
