"""What the runtime must know of a form without looking into it: derived from its template, never written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.engine.layout import (
    ENDS_ALWAYS,
    ENDS_CONDITIONAL,
    ENDS_DIRECT,
    ENDS_NO,
    USES_IMM,
    USES_NPC,
    USES_PC,
    USES_TARGET,
)
from dbt.ir.ops import CONDITIONS, FLAGS_OUT, GET, LOAD, OPS, PUT, STORE
from dbt.ir.passes import flag_effects

if TYPE_CHECKING:
    from dbt.ir.builder import Template

_USES: Final = {
    "imm": USES_IMM, "imm2": USES_TARGET, "goto": USES_TARGET, "goto_if": USES_TARGET, "pc": USES_PC,
    "npc": USES_NPC, "exit_if": USES_PC, "align_check": USES_PC, "repeat_if": USES_PC,
}  # fmt: skip
_ENDS: Final = {
    "goto": ENDS_ALWAYS | ENDS_DIRECT, "goto_if": ENDS_CONDITIONAL | ENDS_DIRECT, "goto_indirect": ENDS_ALWAYS,
    "exit": ENDS_ALWAYS, "repeat_if": ENDS_CONDITIONAL,
}  # fmt: skip


class Metadata(NamedTuple):
    """The derived part of layout.FormInfo."""

    flags_read: int
    flags_written: int
    flags_killed: int
    ends: int
    uses: int
    fuse_first: bool  # may start a fused pair
    fuse_second: int | None  # the condition number of a conditional branch on flags
    accesses: bool


def metadata_of(template: Template) -> Metadata:
    """Derive it from the ops."""
    read, written, killed = flag_effects(template)
    uses = 0
    effects = 0
    for op in template.ops:
        effects |= OPS[op.name].effects
        uses |= _USES.get(op.name, 0)
        if op.name in ("exit", "exit_if"):
            uses |= USES_NPC if op.attrs["pc"] == "next" else USES_PC
    names = [op.name for op in template.ops]
    return Metadata(
        flags_read=read,
        flags_written=written,
        flags_killed=killed,
        ends=_ENDS.get(names[-1], ENDS_NO) if names else ENDS_NO,
        uses=uses,
        # An integer operation that does nothing else: compare or test and branch.
        fuse_first=(
            names.count("flags") == 1
            and not effects & ~(FLAGS_OUT | GET | PUT)
            and not uses & ~USES_IMM
            and "helper" not in names
            and "set_fpcr" not in names
        ),
        fuse_second=CONDITIONS.index(str(template.ops[0].attrs["cc"])) if names == ["cond", "goto_if"] else None,
        accesses=bool(effects & (LOAD | STORE)) and names != ["fence"],
    )


