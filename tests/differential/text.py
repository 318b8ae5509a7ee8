"""Cases as lines of text: `8b020020 "add x0, x1, x2" x1=1 x2=2 => x0=3`.

Words in hex come first, then what Capstone must call them (several instructions are divided by `;`). Registers that
are not named before the arrow are 0; those that are not named behind it must stay as they were. Values are integers;
lanes of a vector register, lowest first, with their width in front (`v0=s:1,2,-1,0xff`; a lane with a point, and inf
and nan, is a float's bits); flags as letters, capital if set (`nzcv=NzCv`). `[0x104000]=00ff` is memory. `stop=fault`
says how it ends (see case.py), `pc=0x400004` where.

Before the arrow `steps=9` is how many instructions run, where it is not each word once, `at=0x400200` where it begins,
if that is not the usual place, and `before=2` how many of the words lie in front of that.
"""

from __future__ import annotations

import shlex
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .case import CODE, DATA, DATA_SIZE, OK, REGISTERS, Case, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_LANES = {"b": 8, "h": 16, "s": 32, "d": 64}
_FLOATS = {16: "<e", 32: "<f", 64: "<d"}
_FLAGS = "nzcv"
_NUMBERS = (("steps", 0), ("at", CODE), ("before", 0))


@dataclass(frozen=True, slots=True)
class Line:
    """A parsed line. `registers` and `memory` are what is expected to be different afterwards."""

    case: Case
    asm: str
    stop: str
    pc: int
    registers: Mapping[str, int]
    memory: Mapping[int, bytes]

    @property
    def expected(self) -> Outcome:
        """All of it."""
        registers = dict.fromkeys(REGISTERS, 0) | dict(self.case.registers) | dict(self.registers)
        return Outcome(self.stop, self.pc, registers, patched(self.case.data, self.memory))


def patched(data: bytes, memory: Mapping[int, bytes]) -> bytes:
    """Scratch memory with some bytes replaced."""
    result = bytearray(data)
    for address, new in memory.items():
        if not DATA <= address <= DATA + DATA_SIZE - len(new):
            raise ValueError(f"{address:#x} is not in scratch memory")
        result[address - DATA : address - DATA + len(new)] = new
    return bytes(result)


def parse(line: str) -> Line:
    """Parse one line."""
    before, arrow, after = line.partition("=>")
    if not arrow:
        raise ValueError("a case needs =>")
    words: list[int] = []
    asm = ""
    rest: list[str] = []
    for item in shlex.split(before):
        if "=" in item:
            rest.append(item)
        elif " " in item or not _is_word(item):
            asm = item
        else:
            words.append(int(item, 16))
    registers, memory, other = _assignments(rest)
    steps, address, ahead = (int(other.pop(name, str(value)), 0) for name, value in _NUMBERS)
    if other:
        raise ValueError(f"{', '.join(other)} stands before the arrow")
    case = Case(tuple(words), registers, patched(bytes(DATA_SIZE), memory), "", address, steps, ahead)
    registers, memory, other = _assignments(shlex.split(after))
    stop, pc = other.pop("stop", OK), int(other.pop("pc", "0"), 0)
    if other:
        raise ValueError(f"{', '.join(other)} is no register")
    return Line(case, asm, stop, pc or case.code_address + len(case.code), registers, memory)


def _is_word(item: str) -> bool:
    return len(item) == 8 and all(c in "0123456789abcdef" for c in item)


def _assignments(items: Iterable[str]) -> tuple[dict[str, int], dict[int, bytes], dict[str, str]]:
    registers: dict[str, int] = {}
    memory: dict[int, bytes] = {}
    other: dict[str, str] = {}
    for item in items:
        name, _, value = item.partition("=")
        if name in REGISTERS:
            registers[name] = number(name, value)
        elif name.startswith("["):
            memory[int(name.strip("[]"), 0)] = bytes.fromhex(value)
        else:
            other[name] = value
    return registers, memory, other


def number(name: str, text: str) -> int:
    """The value of a register."""
    bits = 128 if name[0] == "v" else 64
    if name == "nzcv" and text.lower() == _FLAGS:
        return sum(c.isupper() << 31 - i for i, c in enumerate(text))
    width = _LANES.get(text.partition(":")[0])
    if width is None:
        return int(text, 0) & ((1 << bits) - 1)
    lanes = text[2:].split(",")
    return sum(_lane(lane, width) << width * i for i, lane in enumerate(lanes))


def _lane(text: str, width: int) -> int:
    if "." in text or text.lstrip("-") in ("inf", "nan"):
        return int.from_bytes(struct.pack(_FLOATS[width], float(text)), "little")
    return int(text, 0) & ((1 << width) - 1)


def show(case: Case, expected: Outcome) -> str:
    """The line of a case."""
    words = " ".join(f"{word:08x}" for word in case.words)
    before = [f"{name}={value:#x}" for name, value in case.registers.items() if value]
    before += [f"[{address:#x}]={data.hex()}" for address, data in _chunks(bytes(DATA_SIZE), case.data)]
    given = (case.steps, case.address, case.before)
    before += [f"{name}={value:#x}" for (name, usual), value in zip(_NUMBERS, given, strict=True) if value != usual]
    after = [f"stop={expected.stop}"] if expected.stop != OK else []
    if expected.pc != case.code_address + len(case.code):
        after.append(f"pc={expected.pc:#x}")
    after += [
        f"{name}={expected.registers[name]:#x}"
        for name in REGISTERS
        if expected.registers[name] != case.registers.get(name, 0)
    ]
    after += [f"[{address:#x}]={data.hex()}" for address, data in _chunks(case.data, expected.data)]
    return " ".join([words, *before, "=>", *after])


def _chunks(old: bytes, new: bytes, size: int = 16) -> Iterable[tuple[int, bytes]]:
    """The aligned pieces that differ."""
    for start in range(0, len(new), size):
        if old[start : start + size] != new[start : start + size]:
            yield DATA + start, new[start : start + size]
