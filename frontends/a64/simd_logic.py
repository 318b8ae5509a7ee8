"""Advanced SIMD three same: the logical instructions, which know no lanes. Arm ARM C4.1.96.25."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.ir.types import I64, I128

from .operands import V
from .simd_operands import simd
from .simd_text import text

if TYPE_CHECKING:
    from .lifter import Lifter


@simd("0 Q 0 01110 opc:2 1 Rm:5 00011 1 Rn:5 Rd:5", static="Q opc", asm=text("{opc:and|bic|orr|orn}"))
def AND_v(cpu: Lifter, Q: int, opc: int, Rm: V, Rn: V, Rd: V) -> None:
    """AND, BIC, ORR, ORN."""
    t = I128 if Q else I64
    a, b = Rn.read(t), Rm.read(t)
    if opc & 1:
        b = ~b
    Rd.write(a | b if opc & 2 else a & b)


@simd("0 Q 1 01110 00 1 Rm:5 00011 1 Rn:5 Rd:5", static="Q", asm=text("eor"))
def EOR_v(cpu: Lifter, Q: int, Rm: V, Rn: V, Rd: V) -> None:
    t = I128 if Q else I64
    Rd.write(Rn.read(t) ^ Rm.read(t))


@simd("0 Q 1 01110 opc:2 1 Rm:5 00011 1 Rn:5 Rd:5", static="Q opc", where="opc", asm=text("{opc:|bsl|bit|bif}"))
def BSL_v(cpu: Lifter, Q: int, opc: int, Rm: V, Rn: V, Rd: V) -> None:
    """BSL, BIT, BIF: bits of one register where a third one is set, else of another."""
    t = I128 if Q else I64
    d, n, m = Rd.read(t), Rn.read(t), Rm.read(t)
    ones, zeros, chooser = {1: (n, m, d), 2: (n, d, m), 3: (d, n, m)}[opc]
    Rd.write(zeros ^ ((ones ^ zeros) & chooser))
