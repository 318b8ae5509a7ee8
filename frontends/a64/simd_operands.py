"""The decorator of Advanced SIMD rows, and operands that name one lane: the index is part of the register token."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from dbt.ir.builder import Place

from . import state
from .operands import V, a64

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbt.ir.types import Type
    from dbt.ir.values import Value

simd: Final = partial(a64, feature="asimd")  # a row; another feature may be named


class VLane(V):
    """Vn.Ts[index]: the highest fields are the index, the lowest the register number.

    `bits` is the width of a lane. The number of index bits follows from it; fields have 128 / bits * 32 values, or
    half as many where only v0 to v15 can be named.
    """

    __slots__ = ("bits", "registers")

    def __init__(self, names: str, bits: int, registers: int = 32) -> None:
        super().__init__(names)
        self.bits = bits
        self.registers = registers

    def read(self, type_: Type, offset: int = 0) -> Value:
        """The lane."""
        return self.cpu.get(type_, Place(self._lane_token(), offset))

    def write(self, value: Value) -> None:
        """Write the lane; the others stay."""
        self.cpu.put(Place(self._lane_token(), 0), value)

    def text(self, value: int, style: str, statics: Mapping[str, int]) -> str:
        """`v3.h[2]`; style: the letter of the lane."""
        del statics
        index, number = divmod(value, self.registers)
        return f"v{(number + self.skip) % 32}.{style or 'bhsd'[self.bits.bit_length() - 4]}[{index}]"

    def _lane_token(self) -> int:
        count = 128 // self.bits
        table = tuple(
            state.V0 + 16 * ((number + self.skip) % 32) + index * self.bits // 8
            for index in range(count)
            for number in range(self.registers)
        )
        return self.cpu.token(self.names, table)
