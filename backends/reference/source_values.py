"""Integer and vector ops as Python source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.ir.lanes import EXPRESSIONS, NARROWINGS
from dbt.ir.types import I1

from .source import Writer, type_of

if TYPE_CHECKING:
    from dbt.ir.values import Op


class ValueWriter(Writer):
    """Ops beyond the table of lanes."""

    def op_select(self, op: Op) -> str:
        """Lanewise for a mask, whole for an i1."""
        if op.args[0].type is not I1:
            return self.lanewise(op, EXPRESSIONS["select"])
        condition, yes, no = self.args(op)
        return f"{yes} if {condition} else {no}"

    def op_sat_narrow(self, op: Op) -> str:
        """Clamp."""
        return self.lanewise(op, NARROWINGS[op.attrs["from_signed"] is True, op.attrs["to_signed"] is True])

    def op_bitcast(self, op: Op) -> str:
        """Through one number, unless only the name of the type changes."""
        to, (value,), source = type_of(op), self.args(op), op.args[0].type
        if (source.bits, source.lanes) == (to.bits, to.lanes):
            return value
        whole = f"join({value}, {source.bits})" if source.lanes else value
        return f"split({whole}, {to.bits}, {to.lanes})" if to.lanes else whole

    # vectors
    def op_lane(self, op: Op) -> str:
        """One lane."""
        return f"{self.args(op)[0]}[{op.attrs['index']}]"

    def op_with_lane(self, op: Op) -> str:
        """Replace a lane."""
        (vector, value), index = self.args(op), op.attrs["index"]
        return f"{vector}[:{index}] + ({value},) + {vector}[{index} + 1:]"

    def op_splat(self, op: Op) -> str:
        """Repeat."""
        return f"({self.args(op)[0]},) * {type_of(op).lanes}"

    def op_shuffle(self, op: Op) -> str:
        """Pick."""
        a, b = self.args(op)
        self.lines.append(f"i = {a} + {b}")
        return f"tuple([i[k] for k in {op.attrs['mask']}])"

    def op_reduce(self, op: Op) -> str:
        """Combine."""
        mask = hex((1 << op.args[0].type.bits) - 1)
        return f"combine({str(op.attrs['op'])!r}, {self.args(op)[0]}, {mask})"

    def op_tbl(self, op: Op) -> str:
        """Look up."""
        indices, *tables = self.args(op)
        return f"look_up({indices}, {' + '.join(tables)})"
