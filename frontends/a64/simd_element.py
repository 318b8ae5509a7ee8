"""Advanced SIMD (scalar) x indexed element: integer multiplies by one lane of Rm. Arm ARM C4.1.96.16 and C4.1.96.13.

With H lanes Rm is one of v0 to v15 and the index is H:L:M; with S lanes it is H:L. The index becomes part of the
register token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .operands import V
from .simd_common import broadcast, lanes, low_or_high, shape
from .simd_operands import VLane, simd
from .simd_saturate import double_high, write_narrowed
from .simd_text import text
from .simd_wide import doubled, product

if TYPE_CHECKING:
    from .lifter import Lifter

H_LANE = VLane("H L M Rm", bits=16, registers=16)
S_LANE = VLane("H L M Rm", bits=32)


def element(size: int) -> VLane:
    """The operand Rm.Ts[index]."""
    return H_LANE if size == 1 else S_LANE


BOTH = "size in (1, 2)"
BOTH_OR_SCALAR = "size in (1, 2) and (Q or not s)"


@simd(
    "0 Q 0 01111 size:2 L M Rm:4 1000 H 0 Rn:5 Rd:5",
    static="Q size",
    where=BOTH,
    Em=element,
    asm=text("mul", "Rd Rn Em"),
)
def MUL_e(cpu: Lifter, Q: int, size: int, Em: VLane, Rn: V, Rd: V) -> None:
    t = lanes(Q, size)
    Rd.write(Rn.read(t) * broadcast(Em.read(t.lane), t))


@simd(
    "0 Q 1 01111 size:2 L M Rm:4 0 S 00 H 0 Rn:5 Rd:5",
    static="Q size S",
    where=BOTH,
    Em=element,
    asm=text("{S:mla|mls}", "Rd Rn Em"),
)
def MLA_e(cpu: Lifter, Q: int, size: int, S: int, Em: VLane, Rn: V, Rd: V) -> None:
    """MLA, MLS (S)."""
    t = lanes(Q, size)
    result = Rn.read(t) * broadcast(Em.read(t.lane), t)
    Rd.write(Rd.read(t) - result if S else Rd.read(t) + result)


@simd(
    "0 Q U 01111 size:2 L M Rm:4 0 S 10 H 0 Rn:5 Rd:5",
    static="Q U size S",
    where=BOTH,
    Em=element,
    asm=text("{U:s|u}{S:mlal|mlsl}{2}", "Rd:W Rn Em"),
)
def MLAL_e(cpu: Lifter, Q: int, U: int, size: int, S: int, Em: VLane, Rn: V, Rd: V) -> None:
    """SMLAL, UMLAL, SMLSL, UMLSL."""
    t = lanes(0, size)
    result = product(low_or_high(Rn, t, Q), broadcast(Em.read(t.lane), t), U)
    old = Rd.read(result.type)
    Rd.write(old - result if S else old + result)


@simd(
    "0 Q U 01111 size:2 L M Rm:4 1010 H 0 Rn:5 Rd:5",
    static="Q U size",
    where=BOTH,
    Em=element,
    asm=text("{U:s|u}mull{2}", "Rd:W Rn Em"),
)
def MULL_e(cpu: Lifter, Q: int, U: int, size: int, Em: VLane, Rn: V, Rd: V) -> None:
    """SMULL, UMULL."""
    t = lanes(0, size)
    Rd.write(product(low_or_high(Rn, t, Q), broadcast(Em.read(t.lane), t), U))


@simd(
    "0 Q 0 s 1111 size:2 L M Rm:4 0 S 11 H 0 Rn:5 Rd:5",
    static="Q s size S",
    where=BOTH_OR_SCALAR,
    Em=element,
    asm=text("{S:sqdmlal|sqdmlsl}{2}", "Rd:W Rn Em"),
)
def SQDMLAL_e(cpu: Lifter, Q: int, s: int, size: int, S: int, Em: VLane, Rn: V, Rd: V) -> None:
    """SQDMLAL, SQDMLSL."""
    t = shape(0, s, size)
    total = product(low_or_high(Rn, t, Q), broadcast(Em.read(t.lane), t), 0)
    doubled(cpu, Rd, total, -1 if S else 1)


@simd(
    "0 Q 0 s 1111 size:2 L M Rm:4 1011 H 0 Rn:5 Rd:5",
    static="Q s size",
    where=BOTH_OR_SCALAR,
    Em=element,
    asm=text("sqdmull{2}", "Rd:W Rn Em"),
)
def SQDMULL_e(cpu: Lifter, Q: int, s: int, size: int, Em: VLane, Rn: V, Rd: V) -> None:
    t = shape(0, s, size)
    doubled(cpu, Rd, product(low_or_high(Rn, t, Q), broadcast(Em.read(t.lane), t), 0), 0)


@simd(
    "0 Q 0 s 1111 size:2 L M Rm:4 110 R H 0 Rn:5 Rd:5",
    static="Q s size R",
    where=BOTH_OR_SCALAR,
    Em=element,
    asm=text("{R:sqdmulh|sqrdmulh}", "Rd Rn Em"),
)
def SQDMULH_e(cpu: Lifter, Q: int, s: int, size: int, R: int, Em: VLane, Rn: V, Rd: V) -> None:
    """SQDMULH, SQRDMULH (R)."""
    t = shape(Q, s, size)
    write_narrowed(cpu, Rd, double_high(Rn.read(t), broadcast(Em.read(t.lane), t), R))


@simd("0 Q 1 s 1111 size:2 L M Rm:4 11 S 1 H 0 Rn:5 Rd:5", static="Q s size S", where=BOTH_OR_SCALAR, Em=element,
     feature="asimdrdm", asm=text("{S:sqrdmlah|sqrdmlsh}", "Rd Rn Em"))  # fmt: skip
def SQRDMLAH_e(cpu: Lifter, Q: int, s: int, size: int, S: int, Em: VLane, Rn: V, Rd: V) -> None:
    """SQRDMLAH, SQRDMLSH (S)."""
    t = shape(Q, s, size)
    wide = double_high(Rn.read(t), broadcast(Em.read(t.lane), t), 1, Rd.read(t), -1 if S else 1)
    write_narrowed(cpu, Rd, wide)
