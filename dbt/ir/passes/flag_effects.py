"""Which flags a template reads, writes and kills: what liveness over a block of decoded records needs.

Bits as in formats.FormInfo: 8 N, 4 Z, 2 C, 1 V.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.ir.ops import FLAGS_IN, FLAGS_OUT, LEAVE, LOAD, OPS, STORE

if TYPE_CHECKING:
    from dbt.ir.values import Op, Template

N, Z, C, V = 8, 4, 2, 1
ALL: Final = N | Z | C | V
_READ: Final = {
    "eq": Z, "ne": Z, "cs": C, "cc": C, "mi": N, "pl": N, "vs": V, "vc": V, "hi": C | Z, "ls": C | Z,
    "ge": N | V, "lt": N | V, "gt": N | V | Z, "le": N | V | Z,
}  # fmt: skip


class FlagEffects(NamedTuple):
    """`read`: the value on entry matters; `killed`: written on every path, whatever the value on entry was."""

    read: int
    written: int
    killed: int


def _read(op: Op) -> int:
    if op.name == "cond":
        return _READ[str(op.attrs["cc"])]
    return C if op.name == "carry" else ALL


def flag_effects(template: Template) -> FlagEffects:
    """The effects of the whole template. What it would show of the flags in a fault is not counted as a read."""
    read = written = killed = 0
    may_leave = False
    for op in template.ops:
        effects = OPS[op.name].effects
        if effects & FLAGS_IN:
            read |= _read(op) & ~killed
        if effects & (LOAD | STORE | LEAVE):
            may_leave = True
        if effects & FLAGS_OUT:
            written |= ALL
            killed |= 0 if may_leave else ALL
    return FlagEffects(read, written, killed)
