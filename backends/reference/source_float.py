"""Floating point as Python source: calls of softfloat through state.State."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .source import Writer, type_of

if TYPE_CHECKING:
    from dbt.ir.values import Op

FLOAT: Final = {
    "fadd": "add", "fsub": "sub", "fmul": "mul", "fmulx": "mulx", "fdiv": "div", "fsqrt": "sqrt", "fma": "fma",
    "fmin": "minimum", "fmax": "maximum", "fminnm": "minimum_number", "fmaxnm": "maximum_number",
}  # fmt: skip


class FloatWriter(Writer):
    """Lanewise calls."""

    def _each(self, op: Op, call: str) -> str:
        """`call` with {a}, {b}, {c} as the arguments of a lane."""
        if op.args[0].type.lanes:
            return self.over_lanes(op, call.format(a="a", b="b", c="c"))
        return call.format(**dict(zip("abc", self.args(op), strict=False)))

    def float(self, op: Op) -> str:
        """Arithmetic."""
        names = ", ".join(["{a}", "{b}", "{c}"][: len(op.args)])
        rm = op.attrs.get("rm", "dynamic")
        return self._each(op, f"fp({FLOAT[op.name]!r}, {rm!r}, {op.args[0].type.bits}, {names})")

    def op_fcmp(self, op: Op) -> str:
        """A comparison."""
        pred, signaling = op.attrs["pred"], op.attrs["signaling"]
        return self._each(op, f"fp_compare({pred!r}, {op.args[0].type.bits}, {{a}}, {{b}}, signaling={signaling})")

    def op_fcmp_flags(self, op: Op) -> str:
        """A comparison to flags."""
        a, b = self.args(op)
        return f"fp_compare_flags({op.args[0].type.bits}, {a}, {b}, signaling={op.attrs['signaling']})"

    def op_fconvert(self, op: Op) -> str:
        """To another precision."""
        rm = op.attrs["rm"]
        return self._each(op, f"fp_call('convert', {op.args[0].type.bits}, {type_of(op).bits}, {{a}}, rm={rm!r})")

    def op_ftoi(self, op: Op) -> str:
        """To integer."""
        return self._each(op, self._fixed(op, "to_int"))

    def op_itof(self, op: Op) -> str:
        """From integer."""
        return self._each(op, self._fixed(op, "from_int"))

    def _fixed(self, op: Op, name: str) -> str:
        attrs = op.attrs
        options = f"signed={attrs['signed']}, rm={attrs['rm']!r}, fraction_bits={attrs['fbits']}"
        return f"fp_call({name!r}, {op.args[0].type.bits}, {type_of(op).bits}, {{a}}, {options})"

    def op_frint(self, op: Op) -> str:
        """To an integral value."""
        rm, exact = op.attrs["rm"], op.attrs["exact"]
        return self._each(op, f"fp_call('round_int', {op.args[0].type.bits}, {{a}}, rm={rm!r}, exact={exact})")

    def op_fpcr(self, _op: Op) -> str:
        """Control."""
        return "get_fpcr()"

    def op_fpsr(self, _op: Op) -> str:
        """Status."""
        return "get_fpsr()"

    def op_set_fpcr(self, op: Op) -> str:
        """Control."""
        return f"set_fpcr({self.args(op)[0]})"

    def op_set_fpsr(self, op: Op) -> str:
        """Status."""
        return f"set_fpsr({self.args(op)[0]})"

    def op_set_qc(self, op: Op) -> str:
        """Saturated."""
        return f"set_qc({self.args(op)[0]})"
