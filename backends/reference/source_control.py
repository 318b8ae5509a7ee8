"""Control and exits as Python source: what a function returns is the next PC, -1 after an exit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.engine.layout import EXIT_ALIGNMENT

from .source import Writer, type_of

if TYPE_CHECKING:
    from dbt.ir.values import Op


class ControlWriter(Writer):
    """Ends of templates, exits, helpers."""

    def op_align_check(self, op: Op) -> str:
        """Exit if misaligned."""
        (address,), size = self.args(op), op.attrs["size"]
        return f"if {address} % {size}: return leave({EXIT_ALIGNMENT}, pc, {address})"

    def op_goto(self, _op: Op) -> str:
        """Branch."""
        return "return imm2"

    def op_goto_if(self, op: Op) -> str:
        """Conditional branch."""
        return f"if {self.args(op)[0]}: return imm2"

    def op_goto_indirect(self, op: Op) -> str:
        """Indirect branch."""
        return f"return {self.args(op)[0]}"

    def op_repeat_if(self, op: Op) -> str:
        """Once more."""
        return f"if {self.args(op)[0]}: return pc"

    def _leave(self, op: Op, values: list[str]) -> str:
        pc = "pc" if op.attrs["pc"] == "this" else "npc"
        return f"return leave({', '.join([str(op.attrs['reason']), pc, *values])})"

    def op_exit(self, op: Op) -> str:
        """Leave."""
        return self._leave(op, self.args(op))

    def op_exit_if(self, op: Op) -> str:
        """Leave on a condition."""
        condition, *values = self.args(op)
        return f"if {condition}: {self._leave(op, values)}"

    def op_number(self, op: Op) -> str:
        """Of an insertion: its code runs in a namespace with `numbers`."""
        return f"numbers[{op.attrs['index']}]"

    def op_event(self, op: Op) -> str:
        """To the tool at once."""
        condition, value = self.args(op)
        return f"if {condition}: event({value})"

    def op_helper(self, op: Op) -> str:
        """Call."""
        call = f"call_helper({', '.join([repr(str(op.attrs['name'])), *self.args(op)])})"
        return f"{call} & {hex((1 << type_of(op).bits) - 1)}" if op.type else call
