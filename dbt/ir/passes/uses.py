"""What of a record a template uses and how it ends, in the bits of formats.FormInfo."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dbt.engine.formats import (
    ENDS_ALWAYS,
    ENDS_CONDITIONAL,
    ENDS_DIRECT,
    ENDS_NO,
    USES_IMM,
    USES_NPC,
    USES_PC,
    USES_TARGET,
)
from dbt.ir.ops import FLAGS_OUT, LEAVE, LOAD, OPS, STORE
from dbt.ir.values import Place

if TYPE_CHECKING:
    from dbt.ir.values import Op, Template


class Uses(NamedTuple):
    """`values`: USES_..., what stands in code as a number; `ends`: ENDS_...; `tokens`: as many as are used."""

    values: int
    ends: int
    tokens: int
    may_leave: bool  # a fault or an exit in the middle is possible
    writes_flags: bool


_VALUES = {"imm": USES_IMM, "imm2": USES_TARGET, "pc": USES_PC, "npc": USES_NPC, "repeat_if": USES_PC,
           "align_check": USES_PC}  # fmt: skip
_ENDS = {
    "goto": ENDS_ALWAYS | ENDS_DIRECT,
    "goto_if": ENDS_CONDITIONAL | ENDS_DIRECT,
    "goto_indirect": ENDS_ALWAYS,
    "repeat_if": ENDS_CONDITIONAL,
    "exit": ENDS_ALWAYS,
}


def _values(op: Op) -> int:
    if op.name in ("exit", "exit_if"):
        return USES_PC if op.attrs["pc"] == "this" else USES_NPC
    return _VALUES.get(op.name, 0)


def uses(template: Template) -> Uses:
    """The facts of a template. A direct target does not count as a value: branches to it are patched."""
    values = tokens = effects = 0
    ends = ENDS_NO
    for op in template.ops:
        values |= _values(op)
        effects |= OPS[op.name].effects
        ends = _ENDS.get(op.name, ends)
        place = op.attrs.get("place")
        if isinstance(place, Place) and place.token is not None:
            tokens = max(tokens, place.token + 1)
    return Uses(values, ends, tokens, bool(effects & (LOAD | STORE | LEAVE)), bool(effects & FLAGS_OUT))
