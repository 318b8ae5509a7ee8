"""Which guest instruction each line of a region's LLVM text and each byte of its code belongs to.

The text that regions.py writes has comments with the address of each instruction, and labels b, p and x with an address
for blocks, polls and exits. From these every line gets a debug location, whose line number stands for its *part* of the
region. LLVM's passes and code generation keep the locations where they can, and say them in the object file's line
table (DWARF 4, section 6.2). What LLVM has made of several parts has the location of none, and stays with what is in
front of it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.backends.llvm.regions import ENTRY
from dbt.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD: Final = "entry"
_KINDS: Final = {"b": "at", "p": "poll", "x": "exit"}
_FIRST: Final = 1000  # number of the metadata
_DEBUG: Final = f"""\
!llvm.dbg.cu = !{{!{_FIRST}}}
!llvm.module.flags = !{{!{_FIRST + 1}, !{_FIRST + 2}}}
!{_FIRST} = distinct !DICompileUnit(language: DW_LANG_C99, file: !{_FIRST + 3}, emissionKind: LineTablesOnly)
!{_FIRST + 1} = !{{i32 2, !"Debug Info Version", i32 3}}
!{_FIRST + 2} = !{{i32 2, !"Dwarf Version", i32 4}}
!{_FIRST + 3} = !DIFile(filename: "region", directory: "/")
!{_FIRST + 4} = !DISubroutineType(types: !{_FIRST + 5})
!{_FIRST + 5} = !{{null}}
!{_FIRST + 6} = distinct !DISubprogram(name: "{ENTRY}", file: !{_FIRST + 3}, line: 1, type: !{_FIRST + 4},
  unit: !{_FIRST}, spFlags: DISPFlagDefinition)
"""
_LOCATIONS: Final = _FIRST + 7


class Part(NamedTuple):
    """What code may belong to: `at` an instruction, the `poll` before or the `exit` to an address, the `entry`."""

    kind: str
    pc: int = 0


class Located(NamedTuple):
    """A region's text with locations: line n + 1 is parts[n]. `lines`: of each part, without locations."""

    text: str
    parts: list[Part]
    lines: dict[Part, list[str]]


def locate(text: str) -> Located:
    """Give each instruction of a region's text (regions.region_text) a location."""
    parts: dict[Part, int] = {}
    lines: dict[Part, list[str]] = {}
    written = []
    part = Part(HEAD)
    inside = False
    for line in text.splitlines():
        if line.startswith("define ") and f"@{ENTRY}(" in line:
            inside = True
            written.append(f"{line.removesuffix('{')}!dbg !{_FIRST + 6} {{")
            continue
        if not inside or line.startswith("}"):
            inside = False
            written.append(line)
            continue
        named = re.fullmatch(r"([bpx])([0-9a-f]+):|  ; ([0-9a-f]+)", line)
        if named is not None:
            part = Part(_KINDS[named[1] or "b"], int(named[2] or named[3], 16))
        number = parts.setdefault(part, len(parts))
        if named is None or named[1]:
            lines.setdefault(part, []).append(line.strip())
        plain = line.endswith(":") or line.lstrip().startswith(";")
        written.append(line if plain else f"{line}, !dbg !{_LOCATIONS + number}")
    locations = [
        f"!{_LOCATIONS + number} = !DILocation(line: {number + 1}, scope: !{_FIRST + 6})" for number in parts.values()
    ]
    return Located("\n".join([*written, _DEBUG, *locations, ""]), list(parts), lines)


def optimised_lines(text: str, parts: list[Part]) -> dict[Part, list[str]]:
    """The lines of each part in the text of a module that locate() began."""
    numbers = {
        int(number): int(line) for number, line in re.findall(r"^!(\d+) = !DILocation\(line: (\d+)", text, re.MULTILINE)
    }
    body = text[text.index(f"@{ENTRY}(", text.index("define ")) :].split("\n}", 1)[0].splitlines()[1:]
    found: dict[Part, list[str]] = {}
    known = dict.fromkeys(parts)
    part = parts[0]
    waiting: list[str] = []  # labels, and what has no location, behind one
    for line in _joined(body):
        label = re.match(r"([A-Za-z$._0-9]+):", line)
        if label is not None:
            found.setdefault(part, []).extend(waiting)
            waiting = [line]
            own = re.fullmatch(r"([bpx])([0-9a-f]+)", label[1])
            named = Part(_KINDS[own[1]], int(own[2], 16)) if own is not None else None
            if named in known:
                part = named
                found.setdefault(part, []).append(line)
                waiting = []
            continue
        location = re.search(r", !dbg !(\d+)", line)
        number = numbers.get(int(location[1]), 0) if location is not None else 0
        if number:
            part = parts[number - 1]
            found.setdefault(part, []).extend(waiting)
            waiting = []
        shown = re.sub(r", !dbg !\d+", "", line)
        (waiting or found.setdefault(part, [])).append(shown)
    found.setdefault(part, []).extend(waiting)
    return found


def _joined(body: list[str]) -> Iterator[str]:
    """Instructions and labels, a line each; `switch` and `callbr` are printed on several."""
    held = ""
    for line in body:
        if held or line.endswith("[") or re.match(r"\s+(%\S+ = )?callbr ", line):
            held = f"{held} {line.strip()}".strip()
            if not line.lstrip().startswith(("]", "to label ")):
                continue
            line, held = held, ""  # noqa: PLW2901 - whole now
        if line.strip():
            yield " ".join(line.split())


def code_lines(table: bytes) -> list[tuple[int, int]]:
    """(offset in the code, line) where a line begins, in order; line 0: of no part. `table`: section .debug_line.

    Raises InternalError where it is not as LLVM writes it.
    """
    version = int.from_bytes(table[4:6], "little")
    if version != 4:
        raise InternalError(f"a line table of version {version}")
    end = 4 + int.from_bytes(table[:4], "little")
    at = 10 + int.from_bytes(table[6:10], "little")
    unit, line_base, line_range, opcode_base = table[10], table[13], table[14], table[15]
    line_base -= (line_base & 0x80) << 1
    found: list[tuple[int, int]] = []
    address, line = 0, 1

    def number(*, signed: bool = False) -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = table[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value - (1 << shift) if signed and byte & 0x40 else value

    while at < end:
        opcode = table[at]
        at += 1
        if opcode >= opcode_base:
            address += (opcode - opcode_base) // line_range * unit
            line += line_base + (opcode - opcode_base) % line_range
            found.append((address, line))
        elif opcode == 0:  # extended: a sequence ends, or begins at 0, or what does not matter
            length = number()
            at += length
        elif opcode == 1:
            found.append((address, line))
        elif opcode == 2:
            address += number() * unit
        elif opcode == 3:
            line += number(signed=True)
        elif opcode == 8:
            address += (255 - opcode_base) // line_range * unit
        elif opcode == 9:
            address += int.from_bytes(table[at : at + 2], "little")
            at += 2
        elif opcode in (4, 5, 12):  # set_file, set_column, set_isa
            number()
    return found
