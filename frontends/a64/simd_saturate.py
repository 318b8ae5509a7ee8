"""Advanced SIMD three same and two-register misc.: saturating arithmetic, which sets FPSR.QC. Arm ARM C4.1.96.25."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .operands import V
from .simd_common import HS_OR_HS, OR_BHSD, saturated, shape
from .simd_operands import simd
from .simd_text import text

if TYPE_CHECKING:
    from dbt.ir.values import Value

    from .lifter import Lifter


@simd("0 Q U s 1110 size:2 1 Rm:5 00001 1 Rn:5 Rd:5", static="Q U s size", where=OR_BHSD, asm=text("{U:s|u}qadd"))
def QADD_v(cpu: Lifter, Q: int, U: int, s: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    """SQADD, UQADD."""
    t = shape(Q, s, size)
    a, b = Rn.read(t), Rm.read(t)
    result = a.uaddsat(b) if U else a.saddsat(b)
    Rd.write(result)
    saturated(cpu, result.ne(a + b))


@simd("0 Q U s 1110 size:2 1 Rm:5 00101 1 Rn:5 Rd:5", static="Q U s size", where=OR_BHSD, asm=text("{U:s|u}qsub"))
def QSUB_v(cpu: Lifter, Q: int, U: int, s: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    """SQSUB, UQSUB."""
    t = shape(Q, s, size)
    a, b = Rn.read(t), Rm.read(t)
    result = a.usubsat(b) if U else a.ssubsat(b)
    Rd.write(result)
    saturated(cpu, result.ne(a - b))


@simd("0 Q 0 s 1110 size:2 10000 00011 10 Rn:5 Rd:5", static="Q s size", where=OR_BHSD, asm=text("suqadd", "Rd Rn"))
def SUQADD_v(cpu: Lifter, Q: int, s: int, size: int, Rn: V, Rd: V) -> None:
    """Signed Rd plus unsigned Rn: with the sign inverted, Rd is unsigned from 0."""
    t = shape(Q, s, size)
    a, b = Rd.read(t), Rn.read(t)
    top = 1 << (t.bits - 1)
    result = (a ^ top).uaddsat(b) ^ top
    Rd.write(result)
    saturated(cpu, result.ne(a + b))


@simd("0 Q 1 s 1110 size:2 10000 00011 10 Rn:5 Rd:5", static="Q s size", where=OR_BHSD, asm=text("usqadd", "Rd Rn"))
def USQADD_v(cpu: Lifter, Q: int, s: int, size: int, Rn: V, Rd: V) -> None:
    """Unsigned Rd plus signed Rn."""
    t = shape(Q, s, size)
    a, b = Rd.read(t), Rn.read(t)
    result = b.slt(0).select(a.usubsat(-b), a.uaddsat(b))
    Rd.write(result)
    saturated(cpu, result.ne(a + b))


@simd("0 Q 0 s 1110 size:2 10000 00111 10 Rn:5 Rd:5", static="Q s size", where=OR_BHSD, asm=text("sqabs", "Rd Rn"))
def SQABS_v(cpu: Lifter, Q: int, s: int, size: int, Rn: V, Rd: V) -> None:
    t = shape(Q, s, size)
    a = Rn.read(t)
    negated = cpu.const(t, 0).ssubsat(a)
    Rd.write(a.smax(negated))
    saturated(cpu, negated.ne(-a))


@simd("0 Q 1 s 1110 size:2 10000 00111 10 Rn:5 Rd:5", static="Q s size", where=OR_BHSD, asm=text("sqneg", "Rd Rn"))
def SQNEG_v(cpu: Lifter, Q: int, s: int, size: int, Rn: V, Rd: V) -> None:
    t = shape(Q, s, size)
    a = Rn.read(t)
    negated = cpu.const(t, 0).ssubsat(a)
    Rd.write(negated)
    saturated(cpu, negated.ne(-a))


def double_high(a: Value, b: Value, rounding: int, accumulator: Value | None = None, sign: int = 1) -> Value:
    """The high half of [accumulator +-] 2 a b in lanes of twice the width, one bit more than the result's lanes."""
    bits = a.type.bits
    total = a.sext(2 * bits) * b.sext(2 * bits)
    if accumulator is not None:
        shifted = accumulator.sext(2 * bits) << (bits - 1)
        total = shifted + total if sign > 0 else shifted - total
    if rounding:
        total = total + (1 << (bits - 2))
    return total.ashr(bits - 1)


def write_narrowed(cpu: Lifter, Rd: V, wide: Value) -> None:
    """Writes lanes of half the width, saturated."""
    narrow = wide.sat_narrow(wide.type.bits // 2, from_signed=True, to_signed=True)
    Rd.write(narrow)
    saturated(cpu, narrow.sext(wide.type.bits).ne(wide))


@simd(
    "0 Q U s 1110 size:2 1 Rm:5 10110 1 Rn:5 Rd:5",
    static="Q U s size",
    where=HS_OR_HS,
    asm=text("{U:sqdmulh|sqrdmulh}"),
)
def SQDMULH_v(cpu: Lifter, Q: int, U: int, s: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    """SQDMULH, SQRDMULH (U)."""
    t = shape(Q, s, size)
    write_narrowed(cpu, Rd, double_high(Rn.read(t), Rm.read(t), U))


@simd(
    "0 Q 1 s 1110 size:2 0 Rm:5 1000 S 1 Rn:5 Rd:5",
    static="Q s size S",
    where=HS_OR_HS,
    feature="asimdrdm",
    asm=text("{S:sqrdmlah|sqrdmlsh}"),
)
def SQRDMLAH_v(cpu: Lifter, Q: int, s: int, size: int, S: int, Rm: V, Rn: V, Rd: V) -> None:
    """SQRDMLAH, SQRDMLSH (S)."""
    t = shape(Q, s, size)
    write_narrowed(cpu, Rd, double_high(Rn.read(t), Rm.read(t), 1, Rd.read(t), -1 if S else 1))
