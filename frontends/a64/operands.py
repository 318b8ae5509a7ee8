"""A64 operand kinds, and the decorator of A64 rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final

from dbt.frontends.operands import Imm, Register, Rel
from dbt.frontends.pattern import Encoding

from dbt.ir.builder import Place
from dbt.ir.types import F32, F64, Type, int_type, vector

from . import state

if TYPE_CHECKING:
    from dbt.ir.builder import Value

a64: Final = Encoding(32)

_GENERAL: Final = tuple(state.X0 + 8 * i for i in range(31))


class General(Register):
    """A general register; X and XSP say what number 31 means."""

    __slots__ = ()

    def read(self, bits: int = 64) -> Value:
        """The low `bits` (8, 16, 32 or 64)."""
        return self.cpu.get(int_type(bits), Place(self.read_token(), 0))

    def write(self, bits: int, value: Value) -> None:
        """Write `bits` (32 or 64), zero-extended to the whole register."""
        self.cpu.put(Place(self.write_token(), 0), value.trunc(min(bits, value.type.bits)).zext(64))

    def text(self, value: int, style: str, statics: Mapping[str, int]) -> str:
        """`w3`, `x3`, `sp`; style w or x, else as the static field sf says."""
        letter = style or ("x" if statics.get("sf", 1) else "w")
        number = (value + self.skip) % 32
        if number == 31:
            return self._text31(letter)
        return f"{letter}{number}"

    def _text31(self, letter: str) -> str:
        raise NotImplementedError


class X(General):
    """31 is the zero register."""

    __slots__ = ()
    READ: ClassVar = (*_GENERAL, state.ZERO)
    WRITE: ClassVar = (*_GENERAL, state.JUNK)

    def _text31(self, letter: str) -> str:
        return f"{letter}zr"


class XSP(General):
    """31 is the stack pointer."""

    __slots__ = ()
    READ: ClassVar = (*_GENERAL, state.SP)
    WRITE: ClassVar = READ

    def _text31(self, letter: str) -> str:
        return "wsp" if letter == "w" else "sp"


class XPair(X):
    """A register with an even number, whose field holds half of it, and the one behind (x30: the zero register)."""

    __slots__ = ()
    READ: ClassVar = X.READ[::2]
    SECOND: ClassVar = X.WRITE[1::2]

    def read_pair(self, bits: int) -> tuple[Value, Value]:
        """The low `bits` of both."""
        token = self.read_token()  # the zero slot lies behind x30
        return self.cpu.get(int_type(bits), Place(token, 0)), self.cpu.get(int_type(bits), Place(token, 8))

    def write_pair(self, low: Value, high: Value) -> None:
        """Write both, zero-extended."""
        self.cpu.put(Place(self.read_token(), 0), low.zext(64))
        self.cpu.put(Place(self.cpu.token(self.names, self.SECOND), 0), high.zext(64))

    def text(self, value: int, style: str, statics: Mapping[str, int]) -> str:
        """`w4, w5`."""
        first = super().text(2 * value, style, statics)
        return f"{first}, {super().text(2 * value + 1, style, statics)}"


class V(Register):
    """A SIMD&FP register."""

    __slots__ = ()
    READ: ClassVar = tuple(state.V0 + 16 * i for i in range(32))
    WRITE: ClassVar = READ

    def read(self, type_: Type, offset: int = 0) -> Value:
        """Its bytes from `offset` as a value of any type."""
        return self.cpu.get(type_, Place(self.read_token(), offset))

    def read128(self) -> Value:
        """All of it as i128."""
        return self.read(int_type(128))

    def write(self, value: Value) -> None:
        """Write a value of any type to the low bytes; the bytes above become zero."""
        bits = value.type.width
        if bits < 128:
            # A vector, not i128: one 16-byte store, which a later 16-byte load can be forwarded from.
            lane = value.type if value.type in (F32, F64) else int_type(bits)
            value = self.cpu.const(vector(lane, 128 // bits), 0).with_lane(0, value.bitcast(lane))
        self.cpu.put(Place(self.write_token(), 0), value)

    def write_part(self, value: Value, offset: int) -> None:
        """Write only the value's bytes, from byte `offset`; the others stay."""
        self.cpu.put(Place(self.write_token(), offset), value)

    def read_lane(self, lane: Type, index: int) -> Value:
        """One lane."""
        return self.read(lane, index * lane.bits // 8)

    def write_lane(self, index: int, value: Value) -> None:
        """Write one lane; the others stay."""
        self.write_part(value, index * value.type.bits // 8)

    def text(self, value: int, style: str, statics: Mapping[str, int]) -> str:
        """Style b, h, s, d, q: `d3`; an arrangement: `v3.16b`; empty: `v3`."""
        del statics
        number = (value + self.skip) % 32
        if style and style in "bhsdq":
            return f"{style}{number}"
        return f"v{number}.{style}" if style else f"v{number}"


def size_type(size: int) -> Type:
    """The integer of 1 << size bytes: 0 is i8."""
    return int_type(8 << size)


__all__ = ["XSP", "General", "Imm", "Rel", "V", "X", "XPair", "a64", "size_type"]
