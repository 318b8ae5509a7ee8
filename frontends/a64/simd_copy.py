"""Advanced SIMD (scalar) copy. Arm ARM C4.1.96.22 and C4.1.96.10.

imm5 holds the lane's width as its lowest bit set, and above it the index, which becomes part of the register token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.ir.types import int_type

from .operands import V, X
from .simd_common import broadcast, shape
from .simd_operands import VLane, simd
from .simd_text import text

if TYPE_CHECKING:
    from .lifter import Lifter


def source(i: str, size: int) -> VLane:
    """Vn.Ts[index]."""
    return VLane(f"{i} Rn", bits=8 << size)


@simd(
    "0 Q 0 s 1110000 i:4 1     0 0000 1 Rn:5 Rd:5",
    static="Q s",
    where="Q or not s",
    size=0,
    En=source("i", 0),
    asm=text("dup", "Rd En"),
)
@simd(
    "0 Q 0 s 1110000 i:3 10    0 0000 1 Rn:5 Rd:5",
    static="Q s",
    where="Q or not s",
    size=1,
    En=source("i", 1),
    asm=text("dup", "Rd En"),
)
@simd(
    "0 Q 0 s 1110000 i:2 100   0 0000 1 Rn:5 Rd:5",
    static="Q s",
    where="Q or not s",
    size=2,
    En=source("i", 2),
    asm=text("dup", "Rd En"),
)
@simd(
    "0 Q 0 s 1110000 i:1 1000  0 0000 1 Rn:5 Rd:5",
    static="Q s",
    where="Q",
    size=3,
    En=source("i", 3),
    asm=text("dup", "Rd En"),
)
def DUP_e(cpu: Lifter, Q: int, s: int, size: int, En: VLane, Rd: V) -> None:
    """DUP (element), and its scalar form, which is MOV."""
    t = shape(Q, s, size)
    Rd.write(broadcast(En.read(t.lane), t))


@simd("0 Q 0 01110000 xxxx1 0 0001 1 Rn:5 Rd:5", static="Q", size=0, asm=text("dup", "Rd Rn:w"))
@simd("0 Q 0 01110000 xxx10 0 0001 1 Rn:5 Rd:5", static="Q", size=1, asm=text("dup", "Rd Rn:w"))
@simd("0 Q 0 01110000 xx100 0 0001 1 Rn:5 Rd:5", static="Q", size=2, asm=text("dup", "Rd Rn:w"))
@simd("0 1 0 01110000 x1000 0 0001 1 Rn:5 Rd:5", Q=1, size=3, asm=text("dup", "Rd Rn:x"))
def DUP_r(cpu: Lifter, Q: int, size: int, Rn: X, Rd: V) -> None:
    """DUP (general)."""
    t = shape(Q, 0, size)
    Rd.write(broadcast(Rn.read(64), t))


@simd("0 1 0 01110000 i:4 1    0 0011 1 Rn:5 Rd:5", size=0, Ed=VLane("i Rd", bits=8), asm="ins {Ed}, {Rn:w}")
@simd("0 1 0 01110000 i:3 10   0 0011 1 Rn:5 Rd:5", size=1, Ed=VLane("i Rd", bits=16), asm="ins {Ed}, {Rn:w}")
@simd("0 1 0 01110000 i:2 100  0 0011 1 Rn:5 Rd:5", size=2, Ed=VLane("i Rd", bits=32), asm="ins {Ed}, {Rn:w}")
@simd("0 1 0 01110000 i:1 1000 0 0011 1 Rn:5 Rd:5", size=3, Ed=VLane("i Rd", bits=64), asm="ins {Ed}, {Rn:x}")
def INS_r(cpu: Lifter, size: int, Rn: X, Ed: VLane) -> None:
    """INS (general): one lane, the others stay."""
    Ed.write(Rn.read(64).trunc(8 << size))


@simd(
    "0 1 1 01110000 i:4 1    0 j:4     1 Rn:5 Rd:5",
    size=0,
    En=source("j", 0),
    Ed=VLane("i Rd", bits=8),
    asm="ins {Ed}, {En}",
)
@simd(
    "0 1 1 01110000 i:3 10   0 j:3 x   1 Rn:5 Rd:5",
    size=1,
    En=source("j", 1),
    Ed=VLane("i Rd", bits=16),
    asm="ins {Ed}, {En}",
)
@simd(
    "0 1 1 01110000 i:2 100  0 j:2 xx  1 Rn:5 Rd:5",
    size=2,
    En=source("j", 2),
    Ed=VLane("i Rd", bits=32),
    asm="ins {Ed}, {En}",
)
@simd(
    "0 1 1 01110000 i:1 1000 0 j:1 xxx 1 Rn:5 Rd:5",
    size=3,
    En=source("j", 3),
    Ed=VLane("i Rd", bits=64),
    asm="ins {Ed}, {En}",
)
def INS_e(cpu: Lifter, size: int, En: VLane, Ed: VLane) -> None:
    """INS (element)."""
    Ed.write(En.read(int_type(8 << size)))


@simd(
    "0 Q 0 01110000 i:4 1   0 0101 1 Rn:5 Rd:5",
    static="Q",
    size=0,
    En=source("i", 0),
    asm=lambda Q: f"smov {{Rd:{'wx'[Q]}}}, {{En}}",
)
@simd(
    "0 Q 0 01110000 i:3 10  0 0101 1 Rn:5 Rd:5",
    static="Q",
    size=1,
    En=source("i", 1),
    asm=lambda Q: f"smov {{Rd:{'wx'[Q]}}}, {{En}}",
)
@simd(
    "0 1 0 01110000 i:2 100 0 0101 1 Rn:5 Rd:5",
    Q=1,
    size=2,
    En=source("i", 2),
    asm=lambda Q: f"smov {{Rd:{'wx'[Q]}}}, {{En}}",
)
def SMOV_v(cpu: Lifter, Q: int, size: int, En: VLane, Rd: X) -> None:
    """A lane sign-extended to W (Q = 0) or X."""
    bits = 64 if Q else 32
    Rd.write(bits, En.read(int_type(8 << size)).sext(bits))


@simd("0 0 0 01110000 i:4 1    0 0111 1 Rn:5 Rd:5", size=0, En=source("i", 0), asm="umov {Rd:w}, {En}")
@simd("0 0 0 01110000 i:3 10   0 0111 1 Rn:5 Rd:5", size=1, En=source("i", 1), asm="umov {Rd:w}, {En}")
@simd("0 0 0 01110000 i:2 100  0 0111 1 Rn:5 Rd:5", size=2, En=source("i", 2), asm="umov {Rd:w}, {En}")
@simd("0 1 0 01110000 i:1 1000 0 0111 1 Rn:5 Rd:5", size=3, En=source("i", 3), asm="umov {Rd:x}, {En}")
def UMOV_v(cpu: Lifter, size: int, En: VLane, Rd: X) -> None:
    Rd.write(64, En.read(int_type(8 << size)).zext(64))
