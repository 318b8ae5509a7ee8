"""What the writers of generated Python share: statements, how values are written, expressions over lanes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.ir.lanes import expression
from dbt.ir.values import IRError, Place

if TYPE_CHECKING:
    from dbt.ir.types import Type
    from dbt.ir.values import Op, Value

MASK64: Final = "0xffffffffffffffff"


def type_of(op: Op) -> Type:
    """The type of the result, which the op has by the table."""
    if op.type is None:
        raise IRError(f"{op!r} has no result")
    return op.type


def place_of(op: Op) -> Place:
    """The place of a get or put."""
    place = op.attrs["place"]
    if not isinstance(place, Place):
        raise IRError(f"{op!r} has no place")
    return place


class Writer:
    """Collects statements. `names` says how each value is written: a local, or a literal."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[Value, str] = {}

    def args(self, op: Op) -> list[str]:
        """The arguments as Python."""
        return [self.names[a] for a in op.args]

    def lanewise(self, op: Op, template: str) -> str:
        """An expression in a, b, c (see dbt/ir/lanes.py) over the arguments, once or for each lane."""
        names = ["a", "b", "c"][: len(op.args)]
        of, to = op.args[0].type, type_of(op).lane
        if not of.lanes:
            return expression(template, of, to, *self.args(op))
        return self.over_lanes(op, expression(template, of, to, *names))

    def over_lanes(self, op: Op, body: str) -> str:
        """`body`, in which a, b, c are lanes of the arguments, for every lane."""
        args = self.args(op)
        names = ", ".join(["a", "b", "c"][: len(args)])
        over = f"zip({', '.join(args)})" if len(args) > 1 else args[0]
        return f"tuple([{body} for {names} in {over}])"
