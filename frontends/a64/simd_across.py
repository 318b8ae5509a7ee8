"""Advanced SIMD across lanes and scalar pairwise, integers. Arm ARM C4.1.96.20 and C4.1.96.9."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.ir.types import I64, vector

from .operands import V
from .simd_common import extend, lanes
from .simd_operands import simd
from .simd_text import text

if TYPE_CHECKING:
    from .lifter import Lifter

ACROSS = "size < 2 or size == 2 and Q"  # 8B 16B 4H 8H 4S


@simd(
    "0 Q U 01110 size:2 11000 00011 10 Rn:5 Rd:5", static="Q U size", where=ACROSS, asm=text("{U:s|u}addlv", "Rd:L Rn")
)
def ADDLV_v(cpu: Lifter, Q: int, U: int, size: int, Rn: V, Rd: V) -> None:
    """SADDLV, UADDLV: the sum has twice the lanes' width."""
    Rd.write(extend(Rn.read(lanes(Q, size)), 16 << size, U).reduce("add"))


@simd("0 Q 0 01110 size:2 11000 11011 10 Rn:5 Rd:5", static="Q size", where=ACROSS, asm=text("addv", "Rd:E Rn"))
def ADDV_v(cpu: Lifter, Q: int, size: int, Rn: V, Rd: V) -> None:
    Rd.write(Rn.read(lanes(Q, size)).reduce("add"))


@simd(
    "0 Q U 01110 size:2 11000 01010 10 Rn:5 Rd:5", static="Q U size", where=ACROSS, asm=text("{U:s|u}maxv", "Rd:E Rn")
)
def MAXV_v(cpu: Lifter, Q: int, U: int, size: int, Rn: V, Rd: V) -> None:
    """SMAXV, UMAXV."""
    Rd.write(Rn.read(lanes(Q, size)).reduce("umax" if U else "smax"))


@simd(
    "0 Q U 01110 size:2 11000 11010 10 Rn:5 Rd:5", static="Q U size", where=ACROSS, asm=text("{U:s|u}minv", "Rd:E Rn")
)
def MINV_v(cpu: Lifter, Q: int, U: int, size: int, Rn: V, Rd: V) -> None:
    """SMINV, UMINV."""
    Rd.write(Rn.read(lanes(Q, size)).reduce("umin" if U else "smin"))


@simd("01 0 11110 11 11000 11011 10 Rn:5 Rd:5", asm=text("addp", "Rd:E Rn", lane=3))
def ADDP_d(cpu: Lifter, Rn: V, Rd: V) -> None:
    """The scalar pair of D lanes."""
    Rd.write(Rn.read(vector(I64, 2)).reduce("add"))
