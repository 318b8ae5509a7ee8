"""Sets of the 256 interrupt vectors, as a local APIC's registers have them: eight words of 32 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def top(vectors: Sequence[int]) -> int:
    """The highest vector of a set, which is words of 32 bits; -1 if it is empty."""
    for number in range(7, -1, -1):
        if word := vectors[number]:
            return 32 * number + word.bit_length() - 1
    return -1


def has(vectors: Sequence[int], vector: int) -> bool:
    """Whether a vector is in a set."""
    return bool(vectors[vector >> 5] >> (vector & 31) & 1)


def put(vectors: list[int], vector: int) -> None:
    """Put a vector into a set."""
    vectors[vector >> 5] |= 1 << (vector & 31)


def take(vectors: list[int], vector: int) -> None:
    """Take a vector out of a set."""
    vectors[vector >> 5] &= ~(1 << (vector & 31))
