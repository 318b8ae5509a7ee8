"""One experiment: words, registers and memory before; what is there afterwards; and how two results differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CODE = 0x0040_0000  # of the first instruction
HIGH = 0x10_0040_0000  # another place for code: numbers near it do not fit into 32 bits
AROUND = 0x1_0000  # readable code pages on both sides: literals, short branches
CODE_START, CODE_END = CODE - AROUND, CODE + AROUND
DATA, DATA_SIZE = 0x0010_0000, 0x1_0000  # writable scratch memory
DATA_MIDDLE = DATA + 0x4000  # base registers point near it: scaled 12-bit offsets go far upwards
FILLER = b"\x1f\x20\x03\xd5" * ((CODE_END - CODE_START) // 4)  # nop, wherever there is no case

OK, FAULT, UNDEFINED, SYSCALL, BREAKPOINT = "ok", "fault", "undefined", "syscall", "breakpoint"
ALIGNMENT = "alignment"
UNIMPLEMENTED = "unimplemented"
GENERAL = tuple(f"x{i}" for i in range(31))
VECTORS = tuple(f"v{i}" for i in range(32))
REGISTERS = (*GENERAL, "sp", "nzcv", "fpcr", "fpsr", "tpidr_el0", *VECTORS)


@dataclass(frozen=True, slots=True)
class Case:
    """Registers that are not named are 0; `data` is what the scratch memory holds.

    The words lie at `address`, where it begins; `steps` instructions are to run, 0: as many as there are words.
    """

    words: tuple[int, ...]
    registers: Mapping[str, int]
    data: bytes = bytes(DATA_SIZE)
    name: str = ""
    address: int = CODE
    steps: int = 0
    before: int = 0  # words in front of `address`

    @property
    def code(self) -> bytes:
        """The words as bytes."""
        return b"".join(word.to_bytes(4, "little") for word in self.words)

    @property
    def code_address(self) -> int:
        """Where the first word is."""
        return self.address - 4 * self.before

    @property
    def count(self) -> int:
        """How many instructions run."""
        return self.steps or len(self.words)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an engine did. `stop` is one of the words above; `pc` only counts where it is `ok`."""

    stop: str
    pc: int
    registers: Mapping[str, int]
    data: bytes = field(repr=False)


def differences(expected: Outcome, found: Outcome, ignore: Mapping[str, int] | None = None) -> Iterator[str]:
    """One line for each register and stretch of memory that differs. `ignore`: bits of registers not to compare."""
    if expected.stop != found.stop:
        yield f"stop: expected {expected.stop}, found {found.stop}"
    if expected.stop == found.stop == OK and expected.pc != found.pc:
        yield f"pc: expected {expected.pc:#x}, found {found.pc:#x}"
    if FAULT in (expected.stop, found.stop):
        return  # QEMU may have done half of the instruction; the other engine's faults are looked at on their own
    for name in REGISTERS:
        keep = ~(ignore or {}).get(name, 0)
        want, got = expected.registers[name] & keep, found.registers[name] & keep
        if want != got:
            yield f"{name}: expected {want:#x}, found {got:#x}"
    if expected.data != found.data:
        first = next(i for i, (a, b) in enumerate(zip(expected.data, found.data, strict=True)) if a != b)
        want_bytes, got_bytes = expected.data[first : first + 16].hex(), found.data[first : first + 16].hex()
        yield f"memory at {DATA + first:#x}: expected {want_bytes}, found {got_bytes}"
