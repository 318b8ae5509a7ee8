"""What the runtime must know of a form without looking into it: derived from its template, never written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dbt.engine.layout import USES_IMM
from dbt.ir.ops import CONDITIONS, FLAGS_OUT, GET, LOAD, OPS, PUT, STORE
from dbt.ir.passes import flag_effects, uses

if TYPE_CHECKING:
    from dbt.ir.builder import Template


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
    updates: bool


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
    )
