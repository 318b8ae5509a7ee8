"""Advanced SIMD dot product of bytes, vector and by element. Arm ARM C4.1.96.17 and C4.1.96.16, FEAT_DotProd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.ir.types import I8, I32, vector

from .operands import V
from .simd_common import extend, lanes
from .simd_operands import VLane, simd
from .simd_text import text

if TYPE_CHECKING:
    from dbt.ir.values import Value

    from .lifter import Lifter


def accumulate(Rd: V, a: Value, b: Value, U: int) -> None:
    """Adds to each S lane of Rd the four products of its bytes."""
    t = vector(I32, a.type.lanes // 4)
    total = Rd.read(t)
    for i in range(4):
        pick = tuple(range(i, a.type.lanes, 4))
        total = total + extend(a.shuffle(a, pick), 32, U) * extend(b.shuffle(b, pick), 32, U)
    Rd.write(total)


@simd("0 Q U 01110 10 0 Rm:5 1 0010 1 Rn:5 Rd:5", static="Q U", feature="asimddp", asm=text("{U:s|u}dot", "Rd:F Rn Rm"))
def DOT_v(cpu: Lifter, Q: int, U: int, Rm: V, Rn: V, Rd: V) -> None:
    """SDOT, UDOT."""
    t = lanes(Q, 0)
    accumulate(Rd, Rn.read(t), Rm.read(t), U)


@simd(
    "0 Q U 01111 10 L M Rm:4 1110 H 0 Rn:5 Rd:5",
    static="Q U",
    feature="asimddp",
    Em=VLane("H L M Rm", bits=32),
    asm=text("{U:s|u}dot", "Rd:F Rn Em:4b"),
)
def DOT_e(cpu: Lifter, Q: int, U: int, Em: VLane, Rn: V, Rd: V) -> None:
    """SDOT, UDOT (by element): four bytes of Rm with every four of Rn."""
    t = lanes(Q, 0)
    four = Em.read(I32).splat(t.lanes // 4).bitcast(vector(I8, t.lanes))
    accumulate(Rd, Rn.read(t), four, U)
