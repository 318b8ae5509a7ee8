"""Removes ops whose results nobody uses and that have no other effect. Accesses to guest memory always stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.ir.ops import FLAGS_IN, GET, OPS

from .rewrite import Rewriter

if TYPE_CHECKING:
    from dbt.ir.values import Op, Template, Value

_HARMLESS: Final = GET | FLAGS_IN


def removable(op: Op) -> bool:
    """Whether an op without users may go."""
    if op.name == "helper":
        return op.attrs["effects"] != "writes"
    return op.name == "fpsr" or not OPS[op.name].effects & ~_HARMLESS


def dead_code(template: Template) -> Template:
    """Drop what is not needed."""
    live: set[Value] = set()
    kept: list[Op] = []
    for op in reversed(template.ops):
        if op.result in live or not removable(op):
            live.update(op.args)
            kept.append(op)
    if len(kept) == len(template.ops):
        return template
    rewriter = Rewriter()
    for op in reversed(kept):
        rewriter.copy(op)
    return rewriter.template(template.name)
