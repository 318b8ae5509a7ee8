"""Makes the NO_FLAGS variant: the same instruction where nobody reads the flags that it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.ir.ops import FLAGS_OUT, OPS

from .dead_code import dead_code
from .rewrite import Rewriter

if TYPE_CHECKING:
    from dbt.ir.values import Template


def drop_flags(template: Template) -> Template:
    """Drop flag writes and what only they needed; a floating-point comparison still raises its exceptions."""
    rewriter = Rewriter()
    for op in template.ops:
        if not OPS[op.name].effects & FLAGS_OUT:
            rewriter.copy(op)
        elif op.name == "fcmp_flags":
            rewriter.builder.emit("fcmp", *rewriter.args(op), pred="eq", signaling=op.attrs["signaling"])
    return dead_code(rewriter.template(template.name))
