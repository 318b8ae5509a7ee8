"""Stencils out of an object file: the code of each function and its relocations as holes (formats.Hole).

A jump to the code behind the stencil is dropped where it stands last, and a conditional jump over a last jump is
turned round, so that the common way falls through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from capstone import CS_ARCH_X86, CS_MODE_64, Cs

from dbt.engine import formats

from .elf import R_X86_64_32, R_X86_64_32S, R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32, read_object
from .holes import EDGES, INSERTED, LEAVE, NEXT, NUMBERS, TAKEN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .elf import ObjectFile, Relocation, Section

STT_FUNC: Final = 2
R_X86_64_8: Final = 14
_POOL: Final = ".rodata.cst"  # sections of constants, their size at the end of the name
JUMP: Final = 0xE9
_JUMP_BYTES: Final = 5  # opcode and displacement
_JCC_BYTES: Final = 6
_JCC: Final = (0x0F, 0x80)  # 0F 80+condition
_SHORT_JCC: Final = 0x70  # 70+condition, displacement
_OVER_BYTES: Final = 3  # from a short conditional jump over a jump to the displacement of the latter
_NOP: Final = 0x90
_EDGE_KINDS: Final = {NEXT: formats.HOLE_NEXT, TAKEN: formats.HOLE_TAKEN, LEAVE: formats.HOLE_LEAVE}
_NUMBERS_32: Final = dict(
    zip(NUMBERS, (formats.HOLE_IMM32, formats.HOLE_TARGET32, formats.HOLE_PC32, formats.HOLE_NPC32), strict=True)
)
_NUMBERS_64: Final = dict(
    zip(NUMBERS, (formats.HOLE_IMM64, formats.HOLE_TARGET64, formats.HOLE_PC64, formats.HOLE_NPC64), strict=True)
)
_NUMBERS_8: Final = {NUMBERS[0]: formats.HOLE_IMM8, NUMBERS[1]: formats.HOLE_TARGET8}


class ExtractError(Exception):
    """LLVM made of a stencil what cannot be patched: the message says which and why."""


class StencilHole(NamedTuple):
    """formats.Hole, and for HOLE_RODATA the constant: addend counts from the start of its bytes."""

    offset: int
    kind: int
    source: int
    addend: int
    constant: bytes = b""


class Stencil(NamedTuple):
    """Code of one form with its holes."""

    code: bytes
    holes: tuple[StencilHole, ...]

    def disassembly(self) -> list[str]:
        """The instructions as text, holes as the numbers that the assembler left."""
        return [f"{i.mnemonic} {i.op_str}".strip() for i in Cs(CS_ARCH_X86, CS_MODE_64).disasm(self.code, 0)]


def extract(obj: bytes) -> dict[str, Stencil]:
    """All functions of an object file by name. Raises ExtractError."""
    parsed = read_object(obj)
    text = parsed.section(".text")
    relocations: dict[int, Relocation] = {r.offset: r for r in text.relocations}
    found: dict[str, Stencil] = {}
    for symbol in parsed.symbols:
        if symbol.type == STT_FUNC and symbol.section == text.index:
            end = symbol.value + symbol.size
            own = sorted(offset for offset in relocations if symbol.value <= offset < end)
            code = text.data[symbol.value : end]
            try:
                holes = [_hole(parsed, code, relocations[at], at - symbol.value) for at in own]
            except ExtractError as error:
                raise ExtractError(f"{symbol.name}: {error}") from None
            found[symbol.name] = _turned(code, holes)
    return found


def _hole(parsed: ObjectFile, code: bytes, r: Relocation, offset: int) -> StencilHole:
    name, symbol = r.symbol.name, r.symbol
    if symbol.section and symbol.section != parsed.section(".text").index:
        return _constant(parsed.sections[symbol.section], code, r, offset)
    if name in EDGES and r.type in (R_X86_64_PLT32, R_X86_64_PC32):
        return StencilHole(offset, _EDGE_KINDS[name], 0, r.addend)
    prefix, _, which = name.partition("_")
    if prefix == "H" and which.startswith("R") and which[1:].isdigit():
        kinds = {R_X86_64_32: formats.HOLE_REG32, R_X86_64_32S: formats.HOLE_REG32, R_X86_64_64: formats.HOLE_REG64}
        if r.type in kinds:
            return StencilHole(offset, kinds[r.type], int(which[1:]), r.addend)
    if prefix == "W" and which in INSERTED[1:] and r.type == R_X86_64_64:
        return StencilHole(offset, formats.HOLE_NUMBER64, INSERTED.index(which) - 1, r.addend)
    kind = _number_kind(prefix, which, r.type)
    if kind is None:
        raise ExtractError(f"relocation {r.type} against {name or 'a local symbol'} at {offset:#x}")
    return StencilHole(offset, kind, 0, r.addend)


def _number_kind(prefix: str, which: str, relocation: int) -> int | None:
    narrow = relocation in (R_X86_64_32, R_X86_64_32S)
    if prefix == "W" and which == "SITE" and relocation == R_X86_64_64:
        return formats.HOLE_SITE64
    if prefix == "H" and which == "COUNT" and narrow:
        return formats.HOLE_COUNT32
    if prefix == "W" or (prefix == "H" and relocation == R_X86_64_64):
        return _NUMBERS_64.get(which) if relocation == R_X86_64_64 else None
    if prefix in ("H", "U") and narrow:
        return _NUMBERS_32.get(which)
    if prefix == "B" and relocation == R_X86_64_8:
        return _NUMBERS_8.get(which)
    return None


def _constant(section: Section, code: bytes, r: Relocation, offset: int) -> StencilHole:
    """A reference to the constant pool: rip-relative, so the end of the instruction tells what is meant."""
    if not section.name.startswith(".rodata") or r.type != R_X86_64_PC32 or section.relocations:
        raise ExtractError(f"relocation {r.type} against section {section.name} at {offset:#x}")
    for instruction in Cs(CS_ARCH_X86, CS_MODE_64).disasm(code, 0):
        end = instruction.address + instruction.size
        if instruction.address < offset < end:
            start, size = r.symbol.value + r.addend + (end - offset), len(section.data)
            if section.name.startswith(_POOL):
                size = int(section.name.removeprefix(_POOL))
            first = start - start % size
            return StencilHole(
                offset, formats.HOLE_RODATA, 0, start - first - (end - offset), section.data[first : first + size]
            )
    raise ExtractError(f"no instruction at {offset:#x}")


def _turned(code: bytes, holes: list[StencilHole]) -> Stencil:
    """A conditional jump over a jump to an edge becomes one conditional jump, and a nop that is not on its way."""
    changed, moved = bytearray(code), {hole.offset: hole for hole in holes}
    boundaries = {i.address for i in Cs(CS_ARCH_X86, CS_MODE_64).disasm(code, 0)}
    for hole in holes:
        at = hole.offset - _OVER_BYTES
        if (
            hole.kind in _EDGE_KINDS.values() and at >= 0 and at in boundaries and code[at] & 0xF0 == _SHORT_JCC
            and code[at + 1] == _JUMP_BYTES and code[at + 2] == JUMP
        ):  # fmt: skip
            condition = code[at] & 0xF ^ 1
            changed[at : at + _OVER_BYTES + 4] = bytes((_JCC[0], _JCC[1] + condition, 0, 0, 0, 0, _NOP))
            del moved[hole.offset]
            moved[at + 2] = hole._replace(offset=at + 2)
    return _shortened(bytes(changed), [moved[at] for at in sorted(moved)])


def _shortened(code: bytes, holes: list[StencilHole]) -> Stencil:
    by_offset: Mapping[int, StencilHole] = {hole.offset: hole for hole in holes}
    size = len(code)
    last = by_offset.get(size - 4)
    if last is not None and size >= _JUMP_BYTES and code[size - _JUMP_BYTES] == JUMP:
        if last.kind == formats.HOLE_NEXT:
            return Stencil(code[: size - _JUMP_BYTES], tuple(hole for hole in holes if hole is not last))
        at = size - _JUMP_BYTES - _JCC_BYTES
        before = by_offset.get(at + 2)
        if (
            before is not None and before.kind == formats.HOLE_NEXT and at >= 0
            and code[at] == _JCC[0] and code[at + 1] & 0xF0 == _JCC[1]
        ):  # fmt: skip
            turned = code[:at] + bytes((code[at], code[at + 1] ^ 1)) + code[at + 2 : at + _JCC_BYTES]
            kept = [hole for hole in holes if hole is not last and hole is not before]
            return Stencil(turned, (*kept, last._replace(offset=before.offset)))
    return Stencil(code, tuple(holes))
