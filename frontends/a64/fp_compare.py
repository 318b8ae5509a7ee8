"""Floating-point compare, conditional compare and conditional select (DDI 0487, C4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.ir.types import I64

from .data_register import CONDITION_NAMES
from .fp_common import SINGLE_DOUBLE, float_of, letter, scalar
from .operands import Imm, V

if TYPE_CHECKING:
    from .lifter import Lifter


@scalar("0 0 0 11110 ftype:2 1 Rm:5 00 1000 Rn:5 op 0 000", static="ftype op", where=SINGLE_DOUBLE,
        asm=lambda ftype, op: f"fcmp{'e' * op} {{Rn:{letter(ftype)}}}, {{Rm:{letter(ftype)}}}")
def FCMP(cpu: Lifter, ftype: int, op: int, Rm: V, Rn: V) -> None:
    """FCMP, FCMPE."""
    t = float_of(ftype)
    cpu.fcmp_flags(Rn.read(t), Rm.read(t), signaling=bool(op))


@scalar("0 0 0 11110 ftype:2 1 xxxxx 00 1000 Rn:5 op 1 000", static="ftype op", where=SINGLE_DOUBLE,
        asm=lambda ftype, op: f"fcmp{'e' * op} {{Rn:{letter(ftype)}}}, #0.0")
def FCMP_z(cpu: Lifter, ftype: int, op: int, Rn: V) -> None:
    """FCMP, FCMPE with zero."""
    t = float_of(ftype)
    cpu.fcmp_flags(Rn.read(t), cpu.const(t, 0), signaling=bool(op))


@scalar("0 0 0 11110 ftype:2 1 Rm:5 cond:4 01 Rn:5 op nzcv:4", static="ftype cond op", where=SINGLE_DOUBLE,
        asm=lambda ftype, cond, op: (
            f"fccmp{'e' * op} {{Rn:{letter(ftype)}}}, {{Rm:{letter(ftype)}}}, {{nzcv}}, {CONDITION_NAMES[cond]}"),
        nzcv=Imm("nzcv"))
def FCCMP(cpu: Lifter, ftype: int, cond: int, op: int, nzcv: Imm, Rm: V, Rn: V) -> None:
    """FCCMP, FCCMPE: where the condition does not hold nothing is compared, so that no flag of FPSR is set."""
    t, signaling = float_of(ftype), bool(op)
    a, b = Rn.read(t), Rm.read(t)
    condition = cpu.condition(cond)
    if condition is None:
        cpu.fcmp_flags(a, b, signaling=signaling)
        return
    zero = cpu.const(t, 0)
    x, y = condition.select(a, zero), condition.select(b, zero)
    not_less = cpu.fcmp("ge", x, y, signaling)
    not_greater = cpu.fcmp("ge", y, x, signaling)
    n = not_greater & ~not_less
    z = not_less & not_greater
    c = ~n
    v = ~(not_less | not_greater)
    word = cpu.const(I64, 0)
    for flag, bit in ((n, 31), (z, 30), (c, 29), (v, 28)):
        word = word | flag.zext(64) << bit
    cpu.set_nzcv(condition.select(word, nzcv.read() << 28))


@scalar("0 0 0 11110 ftype:2 1 Rm:5 cond:4 11 Rn:5 Rd:5", static="ftype cond", where=SINGLE_DOUBLE,
        asm=lambda ftype, cond: (
            f"fcsel {{Rd:{letter(ftype)}}}, {{Rn:{letter(ftype)}}}, {{Rm:{letter(ftype)}}}, {CONDITION_NAMES[cond]}"))
def FCSEL(cpu: Lifter, ftype: int, cond: int, Rm: V, Rn: V, Rd: V) -> None:
    """FCSEL."""
    t = float_of(ftype)
    condition = cpu.condition(cond)
    Rd.write(Rn.read(t) if condition is None else condition.select(Rn.read(t), Rm.read(t)))
