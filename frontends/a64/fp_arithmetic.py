"""Floating-point data processing with one, two and three sources (DDI 0487, C4.1, floating-point data-processing)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .fp_common import SINGLE_DOUBLE, float_of, letter, scalar
from .operands import V

if TYPE_CHECKING:
    from .lifter import Lifter

ONE: Final = ("fmov", "fabs", "fneg", "fsqrt")
TWO: Final = ("fmul", "fdiv", "fadd", "fsub", "fmax", "fmin", "fmaxnm", "fminnm", "fnmul")
THREE: Final = ("fmadd", "fmsub", "fnmadd", "fnmsub")


def _text(name: str, ftype: int, *operands: str) -> str:
    return f"{name} " + ", ".join(f"{{{operand}:{letter(ftype)}}}" for operand in operands)


@scalar("0 0 0 11110 ftype:2 1 0000 opcode:2 10000 Rn:5 Rd:5", static="ftype opcode", where=SINGLE_DOUBLE,
        asm=lambda ftype, opcode: _text(ONE[opcode], ftype, "Rd", "Rn"))
def FMOV_r(cpu: Lifter, ftype: int, opcode: int, Rn: V, Rd: V) -> None:
    """FMOV (register), FABS, FNEG, FSQRT."""
    a = Rn.read(float_of(ftype))
    Rd.write((lambda x: x, cpu.fabs, cpu.fneg, cpu.fsqrt)[opcode](a))


@scalar("0 0 0 11110 ftype:2 1 Rm:5 opcode:4 10 Rn:5 Rd:5", static="ftype opcode",
        where=f"{SINGLE_DOUBLE} and opcode < 9",
        asm=lambda ftype, opcode: _text(TWO[opcode], ftype, "Rd", "Rn", "Rm"))
def FADD_s(cpu: Lifter, ftype: int, opcode: int, Rm: V, Rn: V, Rd: V) -> None:
    """FMUL, FDIV, FADD, FSUB, FMAX, FMIN, FMAXNM, FMINNM, FNMUL."""
    a, b = Rn.read(float_of(ftype)), Rm.read(float_of(ftype))
    compute = (
        cpu.fmul, cpu.fdiv, cpu.fadd, cpu.fsub, cpu.fmax, cpu.fmin, cpu.fmaxnm, cpu.fminnm,
        lambda x, y: cpu.fneg(cpu.fmul(x, y)),
    )[opcode]  # fmt: skip
    Rd.write(compute(a, b))


@scalar("0 0 0 11111 ftype:2 o1 Rm:5 o0 Ra:5 Rn:5 Rd:5", static="ftype o1 o0", where=SINGLE_DOUBLE,
        asm=lambda ftype, o1, o0: _text(THREE[2 * o1 + o0], ftype, "Rd", "Rn", "Rm", "Ra"))
def FMADD(cpu: Lifter, ftype: int, o1: int, o0: int, Rm: V, Ra: V, Rn: V, Rd: V) -> None:
    """FMADD, FMSUB, FNMADD, FNMSUB: operands are negated, the sum is rounded once."""
    a, n, m = (register.read(float_of(ftype)) for register in (Ra, Rn, Rm))
    if o1:
        a = cpu.fneg(a)
    if o1 != o0:
        n = cpu.fneg(n)
    Rd.write(cpu.fma(a, n, m))
