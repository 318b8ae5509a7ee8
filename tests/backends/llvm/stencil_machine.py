"""Runs single stencils in this process: copies them as the emitter does, in Python, and calls them."""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.backends.llvm.compile import compile_text
from dbt.backends.llvm.elf import read_object
from dbt.backends.llvm.holes import declarations
from dbt.backends.llvm.special import caller
from dbt.backends.llvm.stencils import compile_specials
from dbt.backends.llvm.text import METADATA

from dbt.engine import formats, layout
from dbt.engine.layout import Env

if TYPE_CHECKING:
    from dbt.backends.llvm.extract import Stencil

NEXT, TAKEN, JUMPED = 1000, 1001, 1002  # exit reasons of the stubs that edges lead to
MEMORY: Final = 1 << 18  # bytes of guest memory, from address 0; addresses wrap
GUARD: Final = 1 << 16
_ARENA: Final = 1 << 16
_CODE, _POOL, _STUBS = 0, 0x4000, 0x8000
_I32, _I64 = Struct("<i"), Struct("<q")


class Numbers(NamedTuple):
    """What fills holes: a record and the next PC."""

    r: tuple[int, ...]
    imm: int
    target: int
    pc: int
    npc: int
    site: int = 0
    instructions: int = 0


@cache
def _call_code() -> bytes:
    """Machine code of a C function that calls translated code."""
    text = "\n".join((declarations(), caller("call"), 'attributes #0 = { nounwind "frame-pointer"="none" }', METADATA))
    parsed = read_object(compile_text(text, reloc="pic"))
    section = parsed.section(".text")
    assert not section.relocations
    return section.data


@cache
def specials() -> dict[int, Stencil]:
    """The special stencils."""
    return compile_specials()


class Machine:
    """One virtual CPU with memory of its own."""

    def __init__(self) -> None:
        self._code = mmap.mmap(-1, _ARENA, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._memory = mmap.mmap(-1, MEMORY + 2 * GUARD)
        self._env = mmap.mmap(-1, 1 << 14)
        self._cache = mmap.mmap(-1, layout.JUMP_CACHE_ENTRIES * layout.JumpEntry.size)
        self._at = self.address(self._code)
        self.env_address: Final = self.address(self._env)
        self.guest: Final = memoryview(self._env)[: layout.GUEST_BYTES]
        self.words: Final = memoryview(self._env).cast("Q")
        self.memory: Final = memoryview(self._memory)[GUARD : GUARD + MEMORY]
        self._place = _STUBS
        self._pool: dict[bytes, int] = {}
        self.set("base", self.address(self._memory) + GUARD)
        self.set("mask", MEMORY - 1)
        self.set("jump_cache", self.address(self._cache))
        start = self._stub(_call_code())
        word = ctypes.c_uint64
        self._call = ctypes.CFUNCTYPE(None, *([word] * 8))(start)
        self._leave = self._at + self._place
        self._put(specials()[formats.SPECIAL_LEAVE], Numbers((), 0, 0, 0, 0), {})
        self._stops = {reason: self._stop(reason) for reason in (NEXT, TAKEN, JUMPED)}
        self._entry = self._at + self._place
        self._put(specials()[formats.SPECIAL_ENTRY], Numbers((), 0, 0, 0, 0), {})

    @staticmethod
    def address(buffer: mmap.mmap) -> int:
        """Host address of a mapping."""
        return ctypes.addressof(ctypes.c_uint8.from_buffer(buffer))

    def set(self, field: str, value: int, index: int = 0) -> None:
        """Set a field of Env."""
        self.words[Env.offset(field) // 8 + index] = value & ((1 << 64) - 1)

    def get(self, field: str, index: int = 0) -> int:
        """A field of Env."""
        return self.words[Env.offset(field) // 8 + index]

    @property
    def flags(self) -> tuple[int, int, int, int]:
        """N, Z, C, V out of the flag words."""
        n, z, c, v = (self.get("flags", i) for i in range(4))
        assert c in (0, 1)
        return n >> 63, int(z == 0), c, v >> 63

    def _stub(self, code: bytes) -> int:
        start = self._place
        self._code[start : start + len(code)] = code
        self._place += (len(code) + 15) & ~15
        return self._at + start

    def _stop(self, reason: int) -> int:
        start = self._at + self._place
        self._put(specials()[formats.SPECIAL_STOP], Numbers((), reason, 0, 0, 0), {"leave": self._leave})
        return start

    def _put(self, stencil: Stencil, numbers: Numbers, edges: dict[str, int]) -> None:
        self._stub(self._filled(stencil, numbers, self._at + self._place, edges))

    def _filled(self, stencil: Stencil, n: Numbers, at: int, edges: dict[str, int]) -> bytes:
        code = bytearray(stencil.code)
        numbers = (n.imm, n.target, n.pc, n.npc)
        for hole in stencil.holes:
            if hole.kind in (formats.HOLE_REG32, formats.HOLE_REG64):
                value = n.r[hole.source]
            elif formats.HOLE_IMM32 <= hole.kind <= formats.HOLE_NPC32:
                value = numbers[hole.kind - formats.HOLE_IMM32]
            elif formats.HOLE_IMM64 <= hole.kind <= formats.HOLE_NPC64:
                value = numbers[hole.kind - formats.HOLE_IMM64]
            elif hole.kind in (formats.HOLE_IMM8, formats.HOLE_TARGET8):
                code[hole.offset] = (numbers[hole.kind - formats.HOLE_IMM8] + hole.addend) & 0xFF
                continue
            elif hole.kind == formats.HOLE_SITE64:
                value = n.site
            elif hole.kind == formats.HOLE_COUNT32:
                value = n.instructions
            else:
                value = self._edge(hole.kind, hole.constant, edges, at + len(code)) - (at + hole.offset)
            value += hole.addend
            if hole.kind in (*range(formats.HOLE_REG64, formats.HOLE_NPC64 + 1), formats.HOLE_SITE64):
                _I64.pack_into(code, hole.offset, (value & ((1 << 64) - 1) ^ 1 << 63) - (1 << 63))
            else:
                _I32.pack_into(code, hole.offset, (value & 0xFFFFFFFF ^ 1 << 31) - (1 << 31))
        return bytes(code)

    def _edge(self, kind: int, constant: bytes, edges: dict[str, int], end: int) -> int:
        if kind == formats.HOLE_RODATA:
            if constant not in self._pool:
                self._pool[constant] = _POOL + 64 * len(self._pool)
                start = self._pool[constant]
                self._code[start : start + len(constant)] = constant
            return self._at + self._pool[constant]
        if kind == formats.HOLE_NEXT:
            return end
        return edges["taken" if kind == formats.HOLE_TAKEN else "leave"]

    def run(self, stencil: Stencil, numbers: Numbers) -> int:
        """Run a stencil; the exit reason, or NEXT, TAKEN, JUMPED."""
        edges = {"taken": self._stops[TAKEN], "leave": self._leave}
        code = self._filled(stencil, numbers, self._at + _CODE, edges)
        stop = specials()[formats.SPECIAL_STOP]
        behind = self._filled(stop, Numbers((), NEXT, 0, 0, 0), self._at + _CODE + len(code), edges)
        assert len(code) + len(behind) < _POOL
        self._code[_CODE : _CODE + len(code) + len(behind)] = code + behind
        self.set("entry_code", self._at + _CODE)
        flags = [self.get("flags", i) for i in range(4)]
        self._call(self._entry, *flags, self.env_address, self.get("base"), self.get("mask"))
        return self.get("exit")

    def know(self, pc: int) -> None:
        """Enter a guest address into the jump cache."""
        entry = ((pc >> 2) & (layout.JUMP_CACHE_ENTRIES - 1)) * layout.JumpEntry.size
        self._cache[entry : entry + 16] = pc.to_bytes(8, "little") + self._stops[JUMPED].to_bytes(8, "little")
