"""Advanced SIMD (scalar) x indexed element, floating point. Arm ARM C4.1.96.16 and C4.1.96.13."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .operands import V
from .simd_common import broadcast, float_shape
from .simd_operands import VLane, simd
from .simd_text import text

if TYPE_CHECKING:
    from .lifter import Lifter

S_LANE = VLane("H L M Rm", bits=32)
D_LANE = VLane("H M Rm", bits=64)


@simd(
    "0 Q 0 s 1111 10 L M Rm:4 0 S 01 H 0 Rn:5 Rd:5",
    static="Q s S",
    where="Q or not s",
    sz=0,
    Em=S_LANE,
    asm=text("{S:fmla|fmls}", "Rd Rn Em"),
)
@simd(
    "0 Q 0 s 1111 11 0 M Rm:4 0 S 01 H 0 Rn:5 Rd:5",
    static="Q s S",
    where="Q",
    sz=1,
    Em=D_LANE,
    asm=text("{S:fmla|fmls}", "Rd Rn Em"),
)
def FMLA_e(cpu: Lifter, Q: int, s: int, sz: int, S: int, Em: VLane, Rn: V, Rd: V) -> None:
    """FMLA, FMLS (S)."""
    t = float_shape(Q, s, sz)
    a = Rn.read(t)
    Rd.write(cpu.fma(Rd.read(t), cpu.fneg(a) if S else a, broadcast(Em.read(t.lane), t)))


@simd(
    "0 Q X s 1111 10 L M Rm:4 1001 H 0 Rn:5 Rd:5",
    static="Q X s",
    where="Q or not s",
    sz=0,
    Em=S_LANE,
    asm=text("{X:fmul|fmulx}", "Rd Rn Em"),
)
@simd(
    "0 Q X s 1111 11 0 M Rm:4 1001 H 0 Rn:5 Rd:5",
    static="Q X s",
    where="Q",
    sz=1,
    Em=D_LANE,
    asm=text("{X:fmul|fmulx}", "Rd Rn Em"),
)
def FMUL_e(cpu: Lifter, Q: int, X: int, s: int, sz: int, Em: VLane, Rn: V, Rd: V) -> None:
    """FMUL, FMULX (X)."""
    t = float_shape(Q, s, sz)
    a, b = Rn.read(t), broadcast(Em.read(t.lane), t)
    Rd.write(cpu.fmulx(a, b) if X else cpu.fmul(a, b))
