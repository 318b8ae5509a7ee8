"""Advanced SIMD across lanes and scalar pairwise, floating point. Arm ARM C4.1.96.20 and C4.1.96.9."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.ir.types import F32, vector

from .operands import V
from .simd_common import float_shape
from .simd_fp import extreme
from .simd_operands import simd
from .simd_text import chosen, text

if TYPE_CHECKING:
    from .lifter import Lifter

PAIR = (" {Rd:s}, {Rn:2s}", " {Rd:d}, {Rn:2d}")  # by sz


@simd(
    "0 1 1 01110 S 0 11000 011 op op2 10 Rn:5 Rd:5",
    static="S op op2",
    where="op == op2",
    asm=text("f{S:max|min}{op:nm|}v", "Rd:E Rn", lane=2),
)
def FMAXV_v(cpu: Lifter, S: int, op: int, Rn: V, Rd: V) -> None:
    """FMAXV, FMINV (S), FMAXNMV (op = 0), FMINNMV: of four S lanes, by halves (Reduce() in the manual)."""
    value = Rn.read(vector(F32, 4))
    result = extreme(cpu, value.lane(0), value.lane(1), S, op)
    other = extreme(cpu, value.lane(2), value.lane(3), S, op)
    Rd.write(extreme(cpu, result, other, S, op))


@simd(
    "01 1 11110 S sz 11000 011 op op2 10 Rn:5 Rd:5",
    static="S sz op op2",
    where="op == op2",
    asm=lambda S, sz, op: chosen("f{S:max|min}{op:nm|}p", {"S": S, "op": op}) + PAIR[sz],
)
def FMAXP_s(cpu: Lifter, S: int, sz: int, op: int, Rn: V, Rd: V) -> None:
    """FMAXP, FMINP (S), FMAXNMP (op = 0), FMINNMP of a pair."""
    t = float_shape(0, 1, sz)
    Rd.write(extreme(cpu, Rn.read(t), Rn.read(t, t.bits // 8), S, op))


@simd("01 1 11110 0 sz 11000 01101 10 Rn:5 Rd:5", static="sz", asm=lambda sz: "faddp" + PAIR[sz])
def FADDP_s(cpu: Lifter, sz: int, Rn: V, Rd: V) -> None:
    """The sum of a pair."""
    t = float_shape(0, 1, sz)
    Rd.write(cpu.fadd(Rn.read(t), Rn.read(t, t.bits // 8)))
