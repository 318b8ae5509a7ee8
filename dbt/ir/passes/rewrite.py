"""What passes are made of: copying a template op by op, with values replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.ir.builder import Builder

if TYPE_CHECKING:
    from dbt.ir.values import AttrValue, Op, Template, Value


class Rewriter:
    """A copy in the making. `values` maps old values to new ones."""

    def __init__(self) -> None:
        self.builder = Builder()
        self.values: dict[Value, Value] = {}

    def copy(self, op: Op, **changed: AttrValue) -> Value | None:
        """Append `op` with its arguments replaced and some attributes changed."""
        attrs = {**op.attrs, **changed}
        new = self.builder.emit(op.name, *self.args(op), type=op.type, **attrs)
        if op.result is not None and new.result is not None:
            self.values[op.result] = new.result
        return new.result

    def args(self, op: Op) -> tuple[Value, ...]:
        """The arguments of an old op as new values."""
        return tuple(self.values[a] for a in op.args)

    def replace(self, op: Op, value: Value) -> None:
        """Stand `value` in for the result of an old op."""
        if op.result is not None:
            self.values[op.result] = value

    def template(self, name: str) -> Template:
        """The copy."""
        return self.builder.template(name)
