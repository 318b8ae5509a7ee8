"""Removes writes of registers that are written again before anybody can see them.

Anybody: an access to guest memory, which may fault, an exit, and reads. Places must be fixed: tokens may be the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.ir.ops import FP, GET, LEAVE, LOAD, OPS, ORDER, PUT, STORE
from dbt.ir.values import IRError, Place

from .dead_code import dead_code
from .rewrite import Rewriter

if TYPE_CHECKING:
    from dbt.ir.values import Op, Template

_SEEN = LOAD | STORE | LEAVE | GET | PUT | FP | ORDER


def dead_puts(template: Template) -> Template:
    """Drop them, and what only they needed. Raises IRError where a place is a token."""
    written: set[int] = set()  # bytes that are written behind, before they are seen
    kept: list[Op] = []
    for op in reversed(template.ops):
        place = op.attrs.get("place")
        if isinstance(place, Place):
            if place.token is not None:
                raise IRError(f"{template.name}: {place} is not fixed")
            type_ = op.args[0].type if op.name == "put" else op.type
            assert type_ is not None
            held = range(place.offset, place.offset + type_.width // 8)
            if op.name != "put":
                written.difference_update(held)
            elif written.issuperset(held):
                continue
            else:
                written.update(held)
        elif OPS[op.name].effects & _SEEN:
            written.clear()
        kept.append(op)
    rewriter = Rewriter()
    for op in reversed(kept):
        rewriter.copy(op)
    return dead_code(rewriter.template(template.name))
