"""What the runtime must know of a form without looking into it: derived from its template, never written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.engine.formats import PART_ANYWHERE, PART_LAST, PART_NEVER, USES_IMM, USES_NPC, USES_PC
from dbt.ir.ops import CONDITIONS, END, FLAGS_IN, FLAGS_OUT, GET, LOAD, OPS, PUT, STORE
from dbt.ir.passes import flag_effects, uses

if TYPE_CHECKING:
    from dbt.ir.builder import Template
    from dbt.ir.passes import Uses


class Metadata(NamedTuple):
    """The derived part of formats.FormInfo."""

    flags_read: int
    flags_written: int
    flags_killed: int
    ends: int
    uses: int
    fuse_first: bool  # may start a fused pair
    fuse_second: int | None  # the condition number of a conditional branch on flags
    accesses: bool
    updates: bool
    part: int  # of superinstructions: PART_...


def metadata_of(template: Template) -> Metadata:
    """Derive it from the ops."""
    flags = flag_effects(template)
    used = uses(template)
    names = [op.name for op in template.ops]
    effects = 0
    for op in template.ops:
        effects |= OPS[op.name].effects
    return Metadata(
        flags_read=flags.read,
        flags_written=flags.written,
        flags_killed=flags.killed,
        ends=used.ends,
        uses=used.values,
        # An integer operation that sets flags and does nothing else: compare or test and branch.
        fuse_first=(
            names.count("flags") == 1
            and not effects & ~(FLAGS_OUT | GET | PUT)
            and not used.values & ~USES_IMM
            and "helper" not in names
        ),
        fuse_second=CONDITIONS.index(str(template.ops[0].attrs["cc"])) if names == ["cond", "goto_if"] else None,
        accesses=bool(effects & (LOAD | STORE)) and names != ["fence"],
        updates="rmw" in names or "cas" in names,
        part=_part(names, effects, used),
    )


# Parts of superinstructions: registers, plain accesses to memory and flags, and nothing that leaves but at the end.
_PART_EFFECTS: Final = GET | PUT | LOAD | STORE | FLAGS_IN | FLAGS_OUT | END
_NO_PARTS: Final = frozenset((
    "helper", "rmw", "cas", "load_exclusive", "store_exclusive", "clear_exclusive", "fpcr", "set_fpcr", "repeat_if",
    "exit",
))  # fmt: skip


def _part(names: list[str], effects: int, used: Uses) -> int:
    """Where in a superinstruction the form may stand."""
    if effects & ~_PART_EFFECTS or _NO_PARTS.intersection(names):
        return PART_NEVER
    return PART_LAST if effects & END or used.values & (USES_PC | USES_NPC) else PART_ANYWHERE
