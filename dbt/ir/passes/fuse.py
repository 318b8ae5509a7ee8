"""Fusing: a flag setter and the conditional branch behind it become one template that writes no flags.

The pair is one record: the first gives tokens and the immediate, the second only the target, PC and next PC. It may
stand for the two where the flags are dead on both ways out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.ir.ops import END, FLAGS_OUT, OPS
from dbt.ir.values import IRError, Place

from .conditions import condition
from .dead_code import dead_code
from .drop_flags import drop_flags
from .rewrite import Rewriter

if TYPE_CHECKING:
    from dbt.ir.values import Op, Template


def fuse(first: Template, second: Template) -> Template:
    """The two in a row, conditions computed directly; IRError if they cannot be fused."""
    name = f"{first.name}+{second.name}"
    setters = [op for op in first.ops if OPS[op.name].effects & FLAGS_OUT]
    if len(setters) != 1 or OPS[first.ops[-1].name].effects & END:
        raise IRError(f"{name}: the first must set the flags once, and go on")
    if any(op.name in ("imm2", "pc", "npc", "align_check", "exit_if") for op in first.ops):
        raise IRError(f"{name}: the first uses the target or its own PC")
    if any(op.name in ("imm", "imm2") for op in second.ops):
        raise IRError(f"{name}: the second uses an immediate")
    if any(op.name in ("carry", "nzcv") for op in second.ops):
        raise IRError(f"{name}: the second reads the flags as a number")
    rewriter = Rewriter()
    tokens = 0
    for op in first.ops:
        rewriter.copy(op)
        tokens = max(tokens, _token(op) + 1)
    setter = setters[0]
    args = rewriter.args(setter)
    for op in second.ops:
        place = op.attrs.get("place")
        if op.name == "cond":
            cc = str(op.attrs["cc"])
            rewriter.replace(op, condition(rewriter.builder, cc, setter.name, args, setter.attrs))
        elif isinstance(place, Place) and place.token is not None:
            rewriter.copy(op, place=Place(place.token + tokens, place.offset))
        else:
            rewriter.copy(op)
    if not second.ops or not OPS[second.ops[-1].name].effects & END:
        raise IRError(f"{name}: the second does not branch")
    return drop_flags(dead_code(rewriter.template(name)))


def _token(op: Op) -> int:
    place = op.attrs.get("place")
    return place.token if isinstance(place, Place) and place.token is not None else -1
