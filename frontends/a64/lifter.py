"""What A64 semantics have beside the IR builder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.frontends import lifter

if TYPE_CHECKING:
    from dbt.ir.builder import Value


def datasize(sf: int) -> int:
    """32 or 64, by the sf bit."""
    return 64 if sf else 32


class Lifter(lifter.Lifter):
    """Builds templates of A64 instructions."""

    def add_with_flags(self, a: Value, b: Value, *, subtract: int, flags: int) -> Value:
        """a + b or a - b; sets NZCV if wanted (AddWithCarry, DDI 0487 J1.1)."""
        result = a - b if subtract else a + b
        if flags:
            self.flags("sub" if subtract else "add", a, b, result)
        return result
