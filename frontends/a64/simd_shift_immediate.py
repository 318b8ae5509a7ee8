"""Advanced SIMD (scalar) shift by immediate, lanes of one width. Arm ARM C4.1.96.15 and C4.1.96.6."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .operands import Imm, V
from .simd_common import OR_BHSD, OR_D, saturated, shape
from .simd_shift_register import saturating_left
from .simd_shift_rows import left_shifts, right_shifts, shifted_right, spread
from .simd_text import text

if TYPE_CHECKING:
    from .lifter import Lifter


@right_shifts(
    "0 Q U s 11110 immh:immb 00000 1 Rn:5 Rd:5", static="Q U s", where=OR_D, asm=text("{U:s|u}shr", "Rd Rn shown")
)
def SSHR_v(cpu: Lifter, Q: int, U: int, s: int, size: int, amount: Imm, Rn: V, Rd: V) -> None:
    """SSHR, USHR."""
    t = shape(Q, s, size)
    Rd.write(shifted_right(Rn.read(t), amount, U))


@right_shifts(
    "0 Q U s 11110 immh:immb 00010 1 Rn:5 Rd:5", static="Q U s", where=OR_D, asm=text("{U:s|u}sra", "Rd Rn shown")
)
def SSRA_v(cpu: Lifter, Q: int, U: int, s: int, size: int, amount: Imm, Rn: V, Rd: V) -> None:
    """SSRA, USRA: shifted and accumulated."""
    t = shape(Q, s, size)
    Rd.write(Rd.read(t) + shifted_right(Rn.read(t), amount, U))


@right_shifts(
    "0 Q U s 11110 immh:immb 00100 1 Rn:5 Rd:5", static="Q U s", where=OR_D, asm=text("{U:s|u}rshr", "Rd Rn shown")
)
def SRSHR_v(cpu: Lifter, Q: int, U: int, s: int, size: int, amount: Imm, Rn: V, Rd: V) -> None:
    """SRSHR, URSHR: rounded."""
    t = shape(Q, s, size)
    Rd.write(shifted_right(Rn.read(t), amount, U, rounding=True))


@right_shifts(
    "0 Q U s 11110 immh:immb 00110 1 Rn:5 Rd:5", static="Q U s", where=OR_D, asm=text("{U:s|u}rsra", "Rd Rn shown")
)
def SRSRA_v(cpu: Lifter, Q: int, U: int, s: int, size: int, amount: Imm, Rn: V, Rd: V) -> None:
    """SRSRA, URSRA: rounded and accumulated."""
    t = shape(Q, s, size)
    Rd.write(Rd.read(t) + shifted_right(Rn.read(t), amount, U, rounding=True))


@right_shifts("0 Q 1 s 11110 immh:immb 01000 1 Rn:5 Rd:5", static="Q s", where=OR_D, asm=text("sri", "Rd Rn shown"))
def SRI_v(cpu: Lifter, Q: int, s: int, size: int, amount: Imm, Rn: V, Rd: V) -> None:
    """Shift right and insert: the top bits of Rd stay."""
    t = shape(Q, s, size)
    ones = cpu.const(t, -1)
    Rd.write(shifted_right(Rn.read(t), amount, 1) | (Rd.read(t) & ~shifted_right(ones, amount, 1)))


@left_shifts("0 Q 0 s 11110 immh:immb 01010 1 Rn:5 Rd:5", static="Q s", where=OR_D, asm=text("shl", "Rd Rn shown"))
def SHL_i(cpu: Lifter, Q: int, s: int, size: int, amount: Imm, Rn: V, Rd: V) -> None:
    t = shape(Q, s, size)
    Rd.write(Rn.read(t) << spread(amount, t))


@left_shifts("0 Q 1 s 11110 immh:immb 01010 1 Rn:5 Rd:5", static="Q s", where=OR_D, asm=text("sli", "Rd Rn shown"))
def SLI_v(cpu: Lifter, Q: int, s: int, size: int, amount: Imm, Rn: V, Rd: V) -> None:
    """Shift left and insert: the low bits of Rd stay."""
    t = shape(Q, s, size)
    by = spread(amount, t)
    Rd.write((Rn.read(t) << by) | (Rd.read(t) & ~(cpu.const(t, -1) << by)))


@left_shifts(
    "0 Q U s 11110 immh:immb 01110 1 Rn:5 Rd:5", static="Q U s", where=OR_BHSD, asm=text("{U:s|u}qshl", "Rd Rn shown")
)
def SQSHL_i(cpu: Lifter, Q: int, U: int, s: int, size: int, amount: Imm, Rn: V, Rd: V) -> None:
    """SQSHL, UQSHL (immediate)."""
    t = shape(Q, s, size)
    result, lost = saturating_left(Rn.read(t), spread(amount, t), U)
    Rd.write(result)
    saturated(cpu, lost)


@left_shifts(
    "0 Q 1 s 11110 immh:immb 01100 1 Rn:5 Rd:5", static="Q s", where=OR_BHSD, asm=text("sqshlu", "Rd Rn shown")
)
def SQSHLU_v(cpu: Lifter, Q: int, s: int, size: int, amount: Imm, Rn: V, Rd: V) -> None:
    """Signed to unsigned: negative lanes become 0."""
    t = shape(Q, s, size)
    a = Rn.read(t)
    result, lost = saturating_left(a, spread(amount, t), 1)
    negative = a.slt(0)
    Rd.write(negative.select(0, result))
    saturated(cpu, lost | negative)
