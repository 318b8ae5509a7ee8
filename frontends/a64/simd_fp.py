"""Advanced SIMD (scalar) three same, floating point. Arm ARM C4.1.96.25 and C4.1.96.11.

The IR's floating-point ops work lanewise, with Arm's rules for NaNs and the sticky flags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .operands import V
from .simd_common import FLOAT, FLOAT_OR_SD, float_shape, pairs
from .simd_operands import simd
from .simd_text import text

if TYPE_CHECKING:
    from dbt.ir.values import Value

    from .lifter import Lifter


@simd("0 Q 0 01110 S sz 1 Rm:5 11010 1 Rn:5 Rd:5", static="Q S sz", where=FLOAT, asm=text("{S:fadd|fsub}"))
def FADD_v(cpu: Lifter, Q: int, S: int, sz: int, Rm: V, Rn: V, Rd: V) -> None:
    """FADD, FSUB (S)."""
    t = float_shape(Q, 0, sz)
    a, b = Rn.read(t), Rm.read(t)
    Rd.write(cpu.fsub(a, b) if S else cpu.fadd(a, b))


@simd("0 Q 1 01110 0 sz 1 Rm:5 11011 1 Rn:5 Rd:5", static="Q sz", where=FLOAT, asm=text("fmul"))
def FMUL_v(cpu: Lifter, Q: int, sz: int, Rm: V, Rn: V, Rd: V) -> None:
    t = float_shape(Q, 0, sz)
    Rd.write(cpu.fmul(Rn.read(t), Rm.read(t)))


@simd("0 Q 1 01110 0 sz 1 Rm:5 11111 1 Rn:5 Rd:5", static="Q sz", where=FLOAT, asm=text("fdiv"))
def FDIV_v(cpu: Lifter, Q: int, sz: int, Rm: V, Rn: V, Rd: V) -> None:
    t = float_shape(Q, 0, sz)
    Rd.write(cpu.fdiv(Rn.read(t), Rm.read(t)))


@simd("0 Q 0 01110 S sz 1 Rm:5 11001 1 Rn:5 Rd:5", static="Q S sz", where=FLOAT, asm=text("{S:fmla|fmls}"))
def FMLA_v(cpu: Lifter, Q: int, S: int, sz: int, Rm: V, Rn: V, Rd: V) -> None:
    """FMLA, FMLS (S): fused."""
    t = float_shape(Q, 0, sz)
    a = Rn.read(t)
    Rd.write(cpu.fma(Rd.read(t), cpu.fneg(a) if S else a, Rm.read(t)))


@simd("0 Q 0 s 1110 0 sz 1 Rm:5 11011 1 Rn:5 Rd:5", static="Q s sz", where=FLOAT_OR_SD, asm=text("fmulx"))
def FMULX_v(cpu: Lifter, Q: int, s: int, sz: int, Rm: V, Rn: V, Rd: V) -> None:
    t = float_shape(Q, s, sz)
    Rd.write(cpu.fmulx(Rn.read(t), Rm.read(t)))


@simd("0 Q 1 s 1110 1 sz 1 Rm:5 11010 1 Rn:5 Rd:5", static="Q s sz", where=FLOAT_OR_SD, asm=text("fabd"))
def FABD_v(cpu: Lifter, Q: int, s: int, sz: int, Rm: V, Rn: V, Rd: V) -> None:
    t = float_shape(Q, s, sz)
    Rd.write(cpu.fabs(cpu.fsub(Rn.read(t), Rm.read(t))))


@simd("0 Q 0 s 1110 0 sz 1 Rm:5 11100 1 Rn:5 Rd:5", static="Q s sz", where=FLOAT_OR_SD, asm=text("fcmeq"))
def FCMEQ_v(cpu: Lifter, Q: int, s: int, sz: int, Rm: V, Rn: V, Rd: V) -> None:
    t = float_shape(Q, s, sz)
    Rd.write(cpu.fcmp("eq", Rn.read(t), Rm.read(t), signaling=False).sext(t.bits))


@simd(
    "0 Q 1 s 1110 E sz 1 Rm:5 1110 ac 1 Rn:5 Rd:5",
    static="Q s E sz ac",
    where=FLOAT_OR_SD,
    asm=text("f{ac:cm|ac}{E:ge|gt}"),
)
def FCMGE_v(cpu: Lifter, Q: int, s: int, E: int, sz: int, ac: int, Rm: V, Rn: V, Rd: V) -> None:
    """FCMGE, FCMGT (E), FACGE (ac), FACGT."""
    t = float_shape(Q, s, sz)
    a, b = Rn.read(t), Rm.read(t)
    if ac:
        a, b = cpu.fabs(a), cpu.fabs(b)
    Rd.write(cpu.fcmp("gt" if E else "ge", a, b, signaling=True).sext(t.bits))


def extreme(cpu: Lifter, a: Value, b: Value, S: int, op: int) -> Value:
    """The maximum, or minimum if S; op 1: NaN if either is; 0: numbers win (the NM variants)."""
    if op:
        return cpu.fmin(a, b) if S else cpu.fmax(a, b)
    return cpu.fminnm(a, b) if S else cpu.fmaxnm(a, b)


@simd(
    "0 Q 0 01110 S sz 1 Rm:5 11 op op2 0 1 Rn:5 Rd:5",
    static="Q S sz op op2",
    where=f"({FLOAT}) and op == op2",
    asm=text("f{S:max|min}{op:nm|}"),
)
def FMAX_v(cpu: Lifter, Q: int, S: int, sz: int, op: int, Rm: V, Rn: V, Rd: V) -> None:
    """FMAX, FMIN (S), FMAXNM (op = 0), FMINNM."""
    t = float_shape(Q, 0, sz)
    Rd.write(extreme(cpu, Rn.read(t), Rm.read(t), S, op))


@simd(
    "0 Q 1 01110 S sz 1 Rm:5 11 op op2 0 1 Rn:5 Rd:5",
    static="Q S sz op op2",
    where=f"({FLOAT}) and op == op2",
    asm=text("f{S:max|min}{op:nm|}p"),
)
def FMAXP_v(cpu: Lifter, Q: int, S: int, sz: int, op: int, Rm: V, Rn: V, Rd: V) -> None:
    """FMAXP, FMINP (S), FMAXNMP (op = 0), FMINNMP."""
    t = float_shape(Q, 0, sz)
    Rd.write(extreme(cpu, *pairs(Rn.read(t), Rm.read(t)), S, op))


@simd("0 Q 1 01110 0 sz 1 Rm:5 11010 1 Rn:5 Rd:5", static="Q sz", where=FLOAT, asm=text("faddp"))
def FADDP_v(cpu: Lifter, Q: int, sz: int, Rm: V, Rn: V, Rd: V) -> None:
    t = float_shape(Q, 0, sz)
    Rd.write(cpu.fadd(*pairs(Rn.read(t), Rm.read(t))))
