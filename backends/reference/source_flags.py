"""Flags as Python source: F is the four words n, z, c, v of layout.Env.flags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .source import MASK64, Writer

if TYPE_CHECKING:
    from dbt.ir.types import Type
    from dbt.ir.values import Op

_CONDITIONS: Final = {
    "eq": "F[1] == 0", "ne": "F[1] != 0", "cs": "F[2] != 0", "cc": "F[2] == 0",
    "mi": "F[0] >> 63", "pl": "F[0] >> 63 == 0", "vs": "F[3] >> 63", "vc": "F[3] >> 63 == 0",
    "hi": "F[2] != 0 and F[1] != 0", "ls": "F[2] == 0 or F[1] == 0",
    "ge": "(F[0] ^ F[3]) >> 63 == 0", "lt": "(F[0] ^ F[3]) >> 63",
    "gt": "F[1] != 0 and (F[0] ^ F[3]) >> 63 == 0", "le": "F[1] == 0 or (F[0] ^ F[3]) >> 63 != 0",
}  # fmt: skip


class FlagWriter(Writer):
    """Flag words and conditions."""

    def op_flags(self, op: Op) -> str:
        """The four words."""
        self.lines += self._flag_words(op, self.args(op), op.args[0].type)
        return ""

    def op_flags_if(self, op: Op) -> str:
        """The four words, or a literal."""
        met, *operands, literal = self.args(op)
        self.lines.append(f"if {met}:")
        self.lines += ["    " + line for line in self._flag_words(op, operands, op.args[1].type)]
        return f"else: set_nzcv(({literal} & 15) << 28)"

    def _flag_words(self, op: Op, operands: list[str], type_: Type) -> list[str]:
        a, b, result, *carry = operands
        kind, bits = op.attrs["kind"], type_.bits
        sign, shift = hex(1 << bits - 1), 64 - bits
        carries = {
            "add": f"{result} < {a}",
            "adc": f"{result} < {a} or ({carry and carry[0]} and {result} == {a})",
            "sub": f"{a} >= {b}",
            "sbc": f"{a} > {b} or ({carry and carry[0]} and {a} == {b})",
            "logic": "0",
        }
        differ = f"({a} ^ {b})" if kind in ("sub", "sbc") else f"~({a} ^ {b})"
        overflow = "0" if kind == "logic" else f"({differ} & ({a} ^ {result}) & {sign}) << {shift}"
        return [
            f"F[0] = (({result} ^ {sign}) - {sign}) & {MASK64}",
            f"F[1] = {result}",
            f"F[2] = 1 if {carries[str(kind)]} else 0",
            f"F[3] = {overflow}",
        ]

    def op_cond(self, op: Op) -> str:
        """A condition."""
        return _CONDITIONS[str(op.attrs["cc"])]

    def op_carry(self, _op: Op) -> str:
        """C."""
        return "F[2]"

    def op_nzcv(self, _op: Op) -> str:
        """All four."""
        return "(F[0] >> 63) << 31 | (F[1] == 0) << 30 | F[2] << 29 | (F[3] >> 63) << 28"

    def op_set_nzcv(self, op: Op) -> str:
        """All four."""
        return f"set_nzcv({self.args(op)[0]})"
