"""Operands: what an instruction's non-static fields mean, for the decoder, for semantics and for text.

An `Operand` in a row is a description (which fields, how they become a token or a value). When a form's template is
built, a copy bound to the lifter is handed to the semantics function: reading and writing it emits IR. The lifter
turns that into `Extraction`s, the one thing that decoders know: tables.py serialises them as formats.OperandInfo.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Self

from .pattern import RowError

if TYPE_CHECKING:
    from dbt.ir.builder import Value

    from .lifter import Lifter

REGISTER, IMMEDIATE, TARGET = 0, 1, 2  # formats.OperandInfo.kind
NO_BASE, PC_BASE, PAGE_BASE = 0, 1, 2  # formats.OperandInfo.pc_base
MAX_PARTS: Final = 4
MASK64: Final = (1 << 64) - 1
Table = Sequence[int] | Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Extraction:
    """How one token or value is taken out of an instruction word; see formats.OperandInfo."""

    kind: int
    slot: int
    parts: tuple[tuple[int, int], ...]  # (lowest bit, width), highest part first
    table: tuple[int, ...] | None = None
    sign: int = 0  # sign-extend from this many bits
    shift: int = 0
    pc_base: int = NO_BASE

    def raw(self, word: int) -> int:
        """The concatenated fields."""
        value = 0
        for position, width in self.parts:
            value = value << width | word >> position & ((1 << width) - 1)
        return value

    def value(self, word: int, pc: int) -> int:
        """The register token, or the value as a signed 64-bit integer."""
        value = self.raw(word)
        if self.table is not None:
            value = self.table[value]
        if self.kind == REGISTER:
            return value
        if self.sign and value >> (self.sign - 1) & 1:
            value -= 1 << self.sign
        value <<= self.shift
        if self.pc_base:
            value += pc & -4096 if self.pc_base == PAGE_BASE else pc
        value &= MASK64
        return value - (1 << 64) if value >> 63 else value


class Operand:
    """A description of one operand; `names` are the fields that make it up, highest first."""

    __slots__ = ("cpu", "names")
    cpu: Lifter

    def __init__(self, names: str) -> None:
        self.names = tuple(names.split())
        if not 1 <= len(self.names) <= MAX_PARTS:
            raise RowError(f"an operand has 1 to {MAX_PARTS} fields, not {len(self.names)}")

    def bind(self, cpu: Lifter) -> Self:
        """A copy that emits into `cpu`."""
        bound = copy.copy(self)
        bound.cpu = cpu
        return bound

    def text(self, value: int, style: str, statics: Mapping[str, int]) -> str:
        """How assembly shows it."""
        raise NotImplementedError


class Register(Operand):
    """A register number; a kind says which tokens (byte offsets into the guest's registers) numbers stand for.

    `skip`: the register that many places further on.
    """

    __slots__ = ("skip",)
    READ: ClassVar[tuple[int, ...]] = ()
    WRITE: ClassVar[tuple[int, ...]] = ()

    def __init__(self, names: str, skip: int = 0) -> None:
        super().__init__(names)
        self.skip = skip

    def next(self, count: int) -> Self:
        """The register `count` places further on (past the last: the first)."""
        other = copy.copy(self)
        other.skip = self.skip + count
        return other

    def read_token(self) -> int:
        """The number of the record's token to read this register through."""
        return self.cpu.token(self.names, self._rotated(self.READ))

    def write_token(self) -> int:
        """The number of the record's token to write this register through."""
        return self.cpu.token(self.names, self._rotated(self.WRITE))

    def _rotated(self, table: tuple[int, ...]) -> tuple[int, ...]:
        skip = self.skip % len(table)
        return table[skip:] + table[:skip] if skip else table


class Imm(Operand):
    """A value computed from fields: concatenated, looked up in a table, sign-extended, shifted, added to the PC.

    `table` is a sequence, or a function that is called for every value of the fields when forms are made.
    """

    __slots__ = ("pc", "shift", "signed", "slot", "table")
    PLAIN_SLOT: ClassVar = IMMEDIATE

    def __init__(
        self, names: str, *, signed: bool = False, shift: int = 0, pc: int = NO_BASE, table: Table | None = None
    ) -> None:
        super().__init__(names)
        self.signed = signed
        self.shift = shift
        self.pc = pc
        self.table = table
        self.slot = self.PLAIN_SLOT

    def bind(self, cpu: Lifter) -> Self:
        """Takes the record's immediate, or its target if that is taken already."""
        bound = super().bind(cpu)
        bound.slot = cpu.immediate(self)
        return bound

    def extraction(self, parts: tuple[tuple[int, int], ...], slot: int) -> Extraction:
        """For fields at `parts` of the instruction word; slot: IMMEDIATE or TARGET."""
        width = sum(width for _, width in parts)
        table: tuple[int, ...] | None
        if self.table is None:
            table = None
        elif callable(self.table):
            table = tuple(self.table(value) for value in range(1 << width))
        else:
            table = tuple(self.table)
        if table is not None and len(table) < 1 << width:
            raise RowError(f"the table of {' '.join(self.names)} has {len(table)} entries for {width} bits")
        return Extraction(slot, 0, parts, table, width if self.signed else 0, self.shift, self.pc)

    def read(self, bits: int = 64) -> Value:
        """The value, truncated to `bits`."""
        value = self.cpu.imm() if self.slot == IMMEDIATE else self.cpu.imm2()
        return value.trunc(bits)

    def text(self, value: int, style: str, statics: Mapping[str, int]) -> str:
        """`#5`, `#-8`; style `x`: a bare address."""
        del statics
        return f"{value & MASK64:#x}" if style == "x" else f"#{value}"


class Rel(Imm):
    """A branch target relative to the PC; it is what `goto` and `goto_if` go to."""

    __slots__ = ()
    PLAIN_SLOT: ClassVar = TARGET

    def __init__(self, names: str, *, shift: int = 2) -> None:
        super().__init__(names, signed=True, shift=shift, pc=PC_BASE)

    def text(self, value: int, style: str, statics: Mapping[str, int]) -> str:
        """The absolute address."""
        del style, statics
        return f"#{value & MASK64:#x}"
