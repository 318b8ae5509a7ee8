"""How large numbers of a region may be at most, as far as a block knows by itself.

An index whose bound guard zones absorb is added to an address behind the mask (lower_memory.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.ir.types import I64
from dbt.ir.values import Place

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.ir.values import Op, Template, Value

WORD: Final = 64  # bits


class Bounds:
    """Of the registers in a block. `number` gives the number that an `imm` op stands for, `offset` that of a place."""

    def __init__(self, number: Callable[[Value], int | None], offset: Callable[[Place], int]) -> None:
        self._number: Final = number
        self._offset: Final = offset
        self._known: Final[dict[int, int]] = {}  # by offset in Env: the bits of registers that have less than 64

    def forget(self) -> None:
        """Nothing is known: a block begins."""
        self._known.clear()

    def note(self, template: Template) -> None:
        """An instruction has been lowered, which may have written registers."""
        if any(op.name == "helper" for op in template.ops):
            self.forget()
            return
        written = [(op.attrs["place"], op.args[0]) for op in template.ops if op.name == "put"]
        found = {self._offset(place): self._held(value) for place, value in written if isinstance(place, Place)}
        self._known.update(found)

    def _held(self, value: Value) -> int:
        """Bits of a register when the value is put into it: of a narrow one it keeps the rest."""
        return self.bits(value) if value.type is I64 else WORD

    def magnitude(self, value: Value) -> int:
        """The value, taken as a signed number of 64 bits, is between -2**n and 2**n; 64: nothing is known."""
        op = value.op
        shift = self._shift(op) if op.name == "shl" else 0
        source = op.args[0].op if op.name == "shl" else op
        if source.name == "sext" and shift is not None:
            return min(source.args[0].type.bits - 1 + shift, WORD)
        return self.bits(value)

    def bits(self, value: Value) -> int:
        """The value, taken as an unsigned number, is below 2**n."""
        op, most = value.op, value.type.bits
        if op.name in ("imm", "const"):
            number = self._number(value)
            return most if number is None else (number & (1 << most) - 1).bit_length()
        if op.name == "get" and isinstance(place := op.attrs["place"], Place):
            return min(most, self._known.get(self._offset(place), most))
        if op.name in ("zext", "trunc"):
            return min(most, self.bits(op.args[0]))
        if op.name == "and":
            return min(map(self.bits, op.args))
        if op.name in ("or", "xor"):
            return max(map(self.bits, op.args))
        if op.name == "select":
            return max(map(self.bits, op.args[1:]))
        if op.name in ("shl", "lshr") and (shift := self._shift(op)) is not None:
            bits = self.bits(op.args[0])
            return min(most, bits + shift) if op.name == "shl" else max(bits - shift, 0)
        return most

    def _shift(self, op: Op) -> int | None:
        number = self._number(op.args[1])
        return number if number is not None and 0 <= number < op.args[0].type.bits else None
