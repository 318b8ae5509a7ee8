"""Joining: the templates of instructions behind each other become one, with registers and immediates as numbers.

A register that one instruction writes and a later one reads becomes a value (forward), and what is written again before
anybody can see it is not written (dead_puts). Accesses to guest memory stay, in their order, so that each can be told
apart by its number; before each of them all that is written before it is written still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dbt.ir.ops import LOAD, OPS, STORE
from dbt.ir.types import I64
from dbt.ir.values import Place

from .dead_puts import dead_puts
from .fold import fold
from .forward import forward
from .rewrite import Rewriter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbt.ir.values import Op, Template

_SLOT = 8  # bytes of the zero and junk slots


class Joining(NamedTuple):
    """An instruction to be joined. The second immediate of one that branches is its target and stays open."""

    template: Template
    tokens: Sequence[int]
    imm: int
    imm2: int


class Slots(NamedTuple):
    """Byte offsets of the slot that reads as 0 and of the one that is never read."""

    zero: int
    junk: int


class Joined(NamedTuple):
    """The template, and which part each of its accesses to guest memory belongs to, in order."""

    template: Template
    accesses: tuple[int, ...]


def join(parts: Sequence[Joining], slots: Slots) -> Joined:
    """Join; IRError if one but the last ends."""
    rewriter = Rewriter()
    accesses = []
    for number, part in enumerate(parts):
        for op in part.template.ops:
            if OPS[op.name].effects & (LOAD | STORE):
                accesses.append(number)
            _copy(rewriter, op, part, slots)
    joined = fold(forward(fold(rewriter.template("+".join(part.template.name for part in parts)))))
    return Joined(dead_puts(joined), tuple(accesses))


def _copy(rewriter: Rewriter, op: Op, part: Joining, slots: Slots) -> None:
    build, place = rewriter.builder, op.attrs.get("place")
    if op.name == "imm":
        rewriter.replace(op, build.const(I64, part.imm))
    elif op.name == "imm2":
        rewriter.replace(op, build.const(I64, part.imm2))
    elif isinstance(place, Place):
        offset = place.offset if place.token is None else place.offset + part.tokens[place.token]
        if op.type is not None and op.type.is_int and slots.zero <= offset < slots.zero + _SLOT:
            rewriter.replace(op, build.const(op.type, 0))
        elif op.name != "put" or not slots.junk <= offset < slots.junk + _SLOT:
            rewriter.copy(op, place=Place(None, offset))
    else:
        rewriter.copy(op)
