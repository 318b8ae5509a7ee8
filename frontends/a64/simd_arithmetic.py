"""Advanced SIMD three same: integer arithmetic, comparisons, minimum and maximum, pairwise. Arm ARM C4.1.96.25."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .operands import V
from .simd_common import OR_D, VECTOR, VECTOR_BHS, lanes, mask_lanes, pairs, shape
from .simd_operands import simd
from .simd_text import text

if TYPE_CHECKING:
    from dbt.ir.values import Value

    from .lifter import Lifter


@simd("0 Q 0 s 1110 size:2 1 Rm:5 10000 1 Rn:5 Rd:5", static="Q s size", where=OR_D, asm=text("add"))
def ADD_v(cpu: Lifter, Q: int, s: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    t = shape(Q, s, size)
    Rd.write(Rn.read(t) + Rm.read(t))


@simd("0 Q 1 s 1110 size:2 1 Rm:5 10000 1 Rn:5 Rd:5", static="Q s size", where=OR_D, asm=text("sub"))
def SUB_v(cpu: Lifter, Q: int, s: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    t = shape(Q, s, size)
    Rd.write(Rn.read(t) - Rm.read(t))


@simd("0 Q 0 01110 size:2 1 Rm:5 10011 1 Rn:5 Rd:5", static="Q size", where=VECTOR_BHS, asm=text("mul"))
def MUL_v(cpu: Lifter, Q: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    t = lanes(Q, size)
    Rd.write(Rn.read(t) * Rm.read(t))


@simd("0 Q U 01110 size:2 1 Rm:5 10010 1 Rn:5 Rd:5", static="Q U size", where=VECTOR_BHS, asm=text("{U:mla|mls}"))
def MLA_v(cpu: Lifter, Q: int, U: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    """MLA, MLS (U)."""
    t = lanes(Q, size)
    product = Rn.read(t) * Rm.read(t)
    Rd.write(Rd.read(t) - product if U else Rd.read(t) + product)


@simd("0 Q 1 01110 00 1 Rm:5 10011 1 Rn:5 Rd:5", static="Q", asm=text("pmul"))
def PMUL_v(cpu: Lifter, Q: int, Rm: V, Rn: V, Rd: V) -> None:
    t = lanes(Q, 0)
    Rd.write(Rn.read(t).pmul(Rm.read(t)))


@simd("0 Q U s 1110 size:2 1 Rm:5 00110 1 Rn:5 Rd:5", static="Q U s size", where=OR_D, asm=text("{U:cmgt|cmhi}"))
def CMGT_v(cpu: Lifter, Q: int, U: int, s: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    """CMGT, CMHI (U)."""
    t = shape(Q, s, size)
    a, b = Rn.read(t), Rm.read(t)
    Rd.write(mask_lanes(a.ugt(b) if U else a.sgt(b), t))


@simd("0 Q U s 1110 size:2 1 Rm:5 00111 1 Rn:5 Rd:5", static="Q U s size", where=OR_D, asm=text("{U:cmge|cmhs}"))
def CMGE_v(cpu: Lifter, Q: int, U: int, s: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    """CMGE, CMHS (U)."""
    t = shape(Q, s, size)
    a, b = Rn.read(t), Rm.read(t)
    Rd.write(mask_lanes(a.uge(b) if U else a.sge(b), t))


@simd("0 Q 1 s 1110 size:2 1 Rm:5 10001 1 Rn:5 Rd:5", static="Q s size", where=OR_D, asm=text("cmeq"))
def CMEQ_v(cpu: Lifter, Q: int, s: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    t = shape(Q, s, size)
    Rd.write(mask_lanes(Rn.read(t).eq(Rm.read(t)), t))


@simd("0 Q 0 s 1110 size:2 1 Rm:5 10001 1 Rn:5 Rd:5", static="Q s size", where=OR_D, asm=text("cmtst"))
def CMTST_v(cpu: Lifter, Q: int, s: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    t = shape(Q, s, size)
    Rd.write(mask_lanes((Rn.read(t) & Rm.read(t)).ne(0), t))


@simd("0 Q U 01110 size:2 1 Rm:5 01100 1 Rn:5 Rd:5", static="Q U size", where=VECTOR_BHS, asm=text("{U:s|u}max"))
def MAX_v(cpu: Lifter, Q: int, U: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    """SMAX, UMAX."""
    t = lanes(Q, size)
    a, b = Rn.read(t), Rm.read(t)
    Rd.write(a.umax(b) if U else a.smax(b))


@simd("0 Q U 01110 size:2 1 Rm:5 01101 1 Rn:5 Rd:5", static="Q U size", where=VECTOR_BHS, asm=text("{U:s|u}min"))
def MIN_v(cpu: Lifter, Q: int, U: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    """SMIN, UMIN."""
    t = lanes(Q, size)
    a, b = Rn.read(t), Rm.read(t)
    Rd.write(a.umin(b) if U else a.smin(b))


@simd("0 Q U 01110 size:2 1 Rm:5 10100 1 Rn:5 Rd:5", static="Q U size", where=VECTOR_BHS, asm=text("{U:s|u}maxp"))
def MAXP_v(cpu: Lifter, Q: int, U: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    """SMAXP, UMAXP."""
    t = lanes(Q, size)
    a, b = pairs(Rn.read(t), Rm.read(t))
    Rd.write(a.umax(b) if U else a.smax(b))


@simd("0 Q U 01110 size:2 1 Rm:5 10101 1 Rn:5 Rd:5", static="Q U size", where=VECTOR_BHS, asm=text("{U:s|u}minp"))
def MINP_v(cpu: Lifter, Q: int, U: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    """SMINP, UMINP."""
    t = lanes(Q, size)
    a, b = pairs(Rn.read(t), Rm.read(t))
    Rd.write(a.umin(b) if U else a.smin(b))


@simd("0 Q 0 01110 size:2 1 Rm:5 10111 1 Rn:5 Rd:5", static="Q size", where=VECTOR, asm=text("addp"))
def ADDP_v(cpu: Lifter, Q: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    t = lanes(Q, size)
    a, b = pairs(Rn.read(t), Rm.read(t))
    Rd.write(a + b)


def difference(a: Value, b: Value, U: int) -> Value:
    """The absolute difference; it fits the lane as an unsigned number."""
    return a.umax(b) - a.umin(b) if U else a.smax(b) - a.smin(b)


@simd("0 Q U 01110 size:2 1 Rm:5 01110 1 Rn:5 Rd:5", static="Q U size", where=VECTOR_BHS, asm=text("{U:s|u}abd"))
def ABD_v(cpu: Lifter, Q: int, U: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    """SABD, UABD."""
    t = lanes(Q, size)
    Rd.write(difference(Rn.read(t), Rm.read(t), U))


@simd("0 Q U 01110 size:2 1 Rm:5 01111 1 Rn:5 Rd:5", static="Q U size", where=VECTOR_BHS, asm=text("{U:s|u}aba"))
def ABA_v(cpu: Lifter, Q: int, U: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    """SABA, UABA."""
    t = lanes(Q, size)
    Rd.write(Rd.read(t) + difference(Rn.read(t), Rm.read(t), U))


# Halving: a + b = 2 (a & b) + (a ^ b) = 2 (a | b) - (a ^ b), a - b = (a ^ b) - 2 (~a & b): no wider lanes needed.


@simd("0 Q U 01110 size:2 1 Rm:5 00000 1 Rn:5 Rd:5", static="Q U size", where=VECTOR_BHS, asm=text("{U:s|u}hadd"))
def HADD_v(cpu: Lifter, Q: int, U: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    """SHADD, UHADD."""
    t = lanes(Q, size)
    a, b = Rn.read(t), Rm.read(t)
    x = a ^ b
    Rd.write((a & b) + (x.lshr(1) if U else x.ashr(1)))


@simd("0 Q U 01110 size:2 1 Rm:5 00010 1 Rn:5 Rd:5", static="Q U size", where=VECTOR_BHS, asm=text("{U:s|u}rhadd"))
def RHADD_v(cpu: Lifter, Q: int, U: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    """SRHADD, URHADD."""
    t = lanes(Q, size)
    a, b = Rn.read(t), Rm.read(t)
    x = a ^ b
    Rd.write((a | b) - (x.lshr(1) if U else x.ashr(1)))


@simd("0 Q U 01110 size:2 1 Rm:5 00100 1 Rn:5 Rd:5", static="Q U size", where=VECTOR_BHS, asm=text("{U:s|u}hsub"))
def HSUB_v(cpu: Lifter, Q: int, U: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    """SHSUB, UHSUB."""
    t = lanes(Q, size)
    a, b = Rn.read(t), Rm.read(t)
    x = a ^ b
    Rd.write((x.lshr(1) if U else x.ashr(1)) - (~a & b))
