"""Functions of ELF files by address and by name, read with pyelftools.

Addresses are offsets from a file's lowest mapped address, as instrument.Block.where gives them.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from typing import Final

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

_PAGE: Final = 4096
_KINDS: Final = ("STT_FUNC", "STT_GNU_IFUNC", "STT_LOOS", "STT_NOTYPE")


class Symbols:
    """The functions of one file. Without a symbol table there are none."""

    def __init__(self, path: str) -> None:
        self.path: Final = path
        self.entry = 0
        self._functions: list[tuple[int, int, str]] = []  # (offset, size, name), sorted
        try:
            with open(path, "rb") as file:
                self._read(ELFFile(file))
        except (OSError, ELFError):
            return
        self._functions.sort(key=lambda f: (f[0], f[1], f[2]))
        self._starts = [start for start, _size, _name in self._functions]

    def _read(self, elf: ELFFile) -> None:
        loads = [s["p_vaddr"] for s in elf.iter_segments() if s["p_type"] == "PT_LOAD"]
        lowest = min(loads, default=0) & -_PAGE
        self.entry = elf["e_entry"] - lowest
        seen: set[int] = set()
        for section in elf.iter_sections():
            if not isinstance(section, SymbolTableSection):
                continue
            for symbol in section.iter_symbols():
                start, name = symbol["st_value"], symbol.name
                kind = symbol["st_info"]["type"]
                plain = isinstance(symbol["st_shndx"], int) and name and not name.startswith("$")
                if plain and kind in _KINDS and (kind != "STT_NOTYPE" or start not in seen):
                    seen.add(start)
                    self._functions.append((start - lowest, symbol["st_size"], name))

    def find(self, offset: int) -> tuple[str, int] | None:
        """(name, distance from its start) of the function that holds an offset."""
        i = bisect_right(self._starts, offset) - 1 if self._functions else -1
        if i < 0:
            return None
        start, size, name = self._functions[i]
        return (name, offset - start) if not size or offset < start + size else None

    def offset(self, name: str) -> int | None:
        """The offset of a function."""
        return next((start for start, _size, found in self._functions if found == name), None)


class Names:
    """Symbols of all files that are asked for."""

    def __init__(self) -> None:
        self._files: dict[str, Symbols] = {}

    def file(self, path: str) -> Symbols:
        """The symbols of a file."""
        found = self._files.get(path)
        if found is None:
            found = self._files[path] = Symbols(path)
        return found

    def function(self, path: str, offset: int) -> tuple[str, int]:
        """(function, distance from its start); where there is no symbol, (file, offset)."""
        found = self.file(path).find(offset) if path[:1] == "/" else None
        return found or (f"[{short(path)}]", offset)

    def at(self, path: str, offset: int) -> str:
        """`function+0x10`, or `[file]+0x1234`."""
        name, distance = self.function(path, offset)
        return f"{name}+{distance:#x}" if distance else name


def short(path: str) -> str:
    """A mapping's name for people."""
    return os.path.basename(path).strip("[]") or "anonymous"
