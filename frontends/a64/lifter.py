"""What A64 semantics have beside the IR builder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.frontends import lifter

from dbt.ir.ops import CONDITIONS

if TYPE_CHECKING:
    from dbt.ir.builder import Value


def datasize(sf: int) -> int:
    """32 or 64, by the sf bit."""
    return 64 if sf else 32


class Lifter(lifter.Lifter):
    """Builds templates of A64 instructions."""

    def add_with_flags(self, a: Value, b: Value, *, subtract: int, flags: int) -> Value:
        """The sum or difference; sets NZCV if wanted."""
        result = a - b if subtract else a + b
        if flags:
            self.flags("sub" if subtract else "add", a, b, result)
        return result

    def logic(self, opc: int, a: Value, b: Value) -> Value:
        """AND, ORR, EOR, or ANDS, which sets N and Z of the result and clears C and V."""
        if opc == 1:
            return a | b
        if opc == 2:
            return a ^ b
        result = a & b
        if opc == 3:
            self.flags("logic", result, result, result)
        return result

    def condition(self, cond: int) -> Value | None:
        """The condition with the manual's number; None: always."""
        return None if cond >= 14 else self.cond(CONDITIONS[cond])



