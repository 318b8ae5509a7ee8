"""Forwarding: a read of a place that this template has just read or written gives the value at hand.

Two tokens may name the same register, so a write forgets what is known of every other token. Operands of the record
(imm, pc, ...) and constants are also read once only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.ir.ops import OPS, PUT
from dbt.ir.values import Place

from .dead_code import dead_code
from .rewrite import Rewriter

if TYPE_CHECKING:
    from dbt.ir.builder import Builder
    from dbt.ir.types import Type
    from dbt.ir.values import AttrValue, Template, Value


def forward(template: Template) -> Template:
    """Forward what is known, and remove what is no longer needed."""
    rewriter = Rewriter()
    state = _Known(rewriter.builder)
    operands: dict[tuple[str, Type | None, AttrValue], Value] = {}
    for op in template.ops:
        place = op.attrs.get("place")
        known = None
        key = (op.name, op.type, op.attrs.get("value", 0))
        if op.name == "get" and op.type is not None and isinstance(place, Place):
            known = state.find(place, op.type)
        elif not op.args and not OPS[op.name].effects:
            known = operands.get(key)
        if known is not None:
            rewriter.replace(op, known)
            continue
        value = rewriter.copy(op)
        if isinstance(place, Place):
            if op.name == "put":
                state.forget(place, op.args[0].type.width // 8)
                state.places[place] = rewriter.values[op.args[0]]
            elif value is not None:
                state.places[place] = value
        elif value is not None and not op.args and not OPS[op.name].effects:
            operands[key] = value
        elif OPS[op.name].effects & PUT:
            state.places.clear()
    return dead_code(rewriter.template(template.name))


class _Known:
    """Which value each place holds."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.places: dict[Place, Value] = {}

    def find(self, place: Place, type_: Type) -> Value | None:
        """The value at a place as `type_`; None if not known."""
        value = self.places.get(place)
        if value is None or value.type is type_:
            return value
        if value.type.width == type_.width:
            return value.bitcast(type_)
        if value.type.is_int and type_.is_int and value.type.bits > type_.bits:
            return value.trunc(type_.bits)
        return None

    def forget(self, place: Place, size: int) -> None:
        """Drop what a write of `size` bytes may change."""

        def apart(other: Place, value: Value) -> bool:
            return place.token == other.token and (
                other.offset + value.type.width // 8 <= place.offset or place.offset + size <= other.offset
            )

        self.places = {other: value for other, value in self.places.items() if apart(other, value)}
