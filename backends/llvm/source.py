"""Where lowered code takes its operands from and where it goes: the one difference between the engines built on LLVM.

A template has tokens for registers, immediates and addresses. A stencil turns them into link-time holes (holes.py), an
interpreter handler reads them from its record, the optimizer puts numbers in their place and labels for edges.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from dbt.ir.types import Type
    from dbt.ir.values import Place

    from .text import Body

IMM: Final = "IMM"  # Record.imm
TARGET: Final = "TGT"  # Record.target: a branch target or a second immediate
PC: Final = "PC"  # this instruction
NPC: Final = "NPC"  # the next one
SITE: Final = "SITE"  # the host address behind an insertion; N0, N1…: its numbers
SHIFTS: Final = ("shl", "lshr", "ashr", "rotr")


class Immediate(NamedTuple):
    """A number of the record that is not in a register yet: the low `bits` of (it + addend)."""

    which: str
    bits: int = 64
    addend: int = 0


class Flags(NamedTuple):
    """Operands that hold the flag words (layout.Env.flags)."""

    n: str
    z: str
    c: str
    v: str


class Source(ABC):
    """Operands and edges of one function that is being written into `body`."""

    body: Body
    base = "%base"  # host address of guest address 0
    mask = "%mask"  # what guest addresses are masked with

    @abstractmethod
    def reload(self) -> None:
        """Take base and mask out of Env again: a C function was called."""

    def masked(self, address: str) -> str:
        """The host pointer of a guest address."""
        offset = self.body.emit(f"and i64 {address}, {self.mask}")
        return self.body.emit(f"getelementptr i8, ptr {self.base}, i64 {offset}")

    @abstractmethod
    def pointer(self, place: Place) -> str:
        """Pointer to guest state."""

    def part(self, place: Place, type_: Type) -> str | None:
        """The value of a part of a register, where that is not simply read at its pointer."""
        del place, type_
        return None

    @abstractmethod
    def value(self, immediate: Immediate) -> str:
        """An operand of width immediate.bits that may stand anywhere."""

    def folded(self, immediate: Immediate) -> str | None:
        """A constant operand that becomes part of one instruction; None: use `value`."""
        del immediate
        return None

    def summed(self, op: str, bits: int, value: str, immediate: Immediate) -> str | None:
        """`value` (of 32 or 64 bits) add or sub an immediate, where no flags are taken from it; None: as usual."""
        del op, bits, value, immediate
        return None

    def shifted(self, op: str, bits: int, value: str, amount: Immediate) -> str | None:
        """`value` (of 32 or 64 bits) shifted by an immediate, one of SHIFTS; None: shift by `value(amount)`."""
        del op, bits, value, amount
        return None

    def funneled(self, bits: int, high: str, low: str, amount: Immediate) -> str | None:
        """The low half of high:low (of 32 or 64 bits each) shifted right; None: as usual."""
        del bits, high, low, amount
        return None

    @abstractmethod
    def next(self, flags: Flags) -> None:
        """End the current block: go on with the next instruction."""

    @abstractmethod
    def taken(self, flags: Flags) -> None:
        """End the current block: go to the direct branch target (after a poll, if this variant has one)."""

    @abstractmethod
    def again(self, flags: Flags) -> None:
        """End the current block: poll, then this instruction once more."""

    @abstractmethod
    def indirect(self, address: str, flags: Flags, hint: str) -> None:
        """End the current block: go to a guest address in a register."""

    @abstractmethod
    def leave(self, flags: Flags) -> None:
        """End the current block: back to the runtime; Env.pc, exit and value are set."""
