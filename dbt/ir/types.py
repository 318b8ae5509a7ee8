"""The types of IR values: integers, binary floats, and vectors of either.

A type is interned, so types compare by identity; its name is what the text format prints ('i64', 'f32', 'v16i8').
"""

from __future__ import annotations

from typing import Final


class Type:
    """One IR type. `kind` is 'i' or 'f' (of a lane), `bits` the width of a lane, `lanes` 0 for a scalar."""

    __slots__ = ("bits", "kind", "lanes", "name")

    def __init__(self, kind: str, bits: int, lanes: int = 0) -> None:
        self.kind: Final = kind
        self.bits: Final = bits
        self.lanes: Final = lanes
        self.name: Final = f"v{lanes}{kind}{bits}" if lanes else f"{kind}{bits}"

    def __repr__(self) -> str:
        return self.name

    @property
    def width(self) -> int:
        """The whole width in bits."""
        return self.bits * (self.lanes or 1)

    @property
    def is_vector(self) -> bool:
        return self.lanes != 0

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_int(self) -> bool:
        """A scalar integer."""
        return self.kind == "i" and not self.lanes

    @property
    def lane(self) -> Type:
        """The type of one lane (the type itself for a scalar)."""
        return _type(self.kind, self.bits, 0)

    def with_lanes(self, lanes: int) -> Type:
        """The vector of `lanes` such lanes (0: the scalar)."""
        return _type(self.kind, self.bits, lanes)


_INTERNED: Final[dict[tuple[str, int, int], Type]] = {}
_INT_BITS: Final = (1, 8, 16, 32, 64, 128)
_FLOAT_BITS: Final = (16, 32, 64)
_LANES: Final = (0, 1, 2, 4, 8, 16)


def _type(kind: str, bits: int, lanes: int) -> Type:
    key = (kind, bits, lanes)
    found = _INTERNED.get(key)
    if found is None:
        allowed = _INT_BITS if kind == "i" else _FLOAT_BITS
        if bits not in allowed or lanes not in _LANES:
            raise ValueError(f"no IR type {kind}{bits} with {lanes} lanes")
        found = _INTERNED[key] = Type(kind, bits, lanes)
    return found


def int_type(bits: int) -> Type:
    """iN; bits is 1, 8, 16, 32, 64 or 128."""
    return _type("i", bits, 0)


def float_type(bits: int) -> Type:
    """fN; bits is 16, 32 or 64."""
    return _type("f", bits, 0)


def vector(lane: Type, lanes: int) -> Type:
    """A vector of `lanes` lanes of type `lane`."""
    return lane.with_lanes(lanes)


def parse_type(name: str) -> Type:
    """The inverse of Type.name."""
    text, lanes = name, 0
    if text.startswith("v"):
        digits = len(text) - len(text[1:].lstrip("0123456789")) - 1
        lanes, text = int(text[1 : 1 + digits] or 0), text[1 + digits :]
    if not text or text[0] not in "if" or not text[1:].isdigit():
        raise ValueError(f"{name!r} is not an IR type")
    return _type(text[0], int(text[1:]), lanes)


I1: Final = int_type(1)
I8: Final = int_type(8)
I16: Final = int_type(16)
I32: Final = int_type(32)
I64: Final = int_type(64)
I128: Final = int_type(128)
F16: Final = float_type(16)
F32: Final = float_type(32)
F64: Final = float_type(64)
