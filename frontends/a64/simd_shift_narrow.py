"""Advanced SIMD shift by immediate that halves or doubles the lanes' width. Arm ARM C4.1.96.15 and C4.1.96.6."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .operands import Imm, V
from .simd_common import OR_BHS, extend, lanes, low_or_high, resized, shape, write_low_or_high, write_saturated
from .simd_operands import simd
from .simd_shift_rows import left_shifts, right_shifts, shifted_right, spread
from .simd_text import text

if TYPE_CHECKING:
    from .lifter import Lifter


@right_shifts(
    "0 Q 0 011110 immh:immb 1000 R 1 Rn:5 Rd:5", static="Q R", sizes=3, asm=text("{R:|r}shrn{2}", "Rd Rn:W shown")
)
def SHRN_v(cpu: Lifter, Q: int, R: int, size: int, amount: Imm, Rn: V, Rd: V) -> None:
    """SHRN, RSHRN: the low half of each shifted lane. The amount is at most half the wide lane."""
    wide = resized(lanes(0, size), 16 << size)
    result = shifted_right(Rn.read(wide), amount, 1, rounding=bool(R))
    write_low_or_high(Rd, result.trunc(8 << size), Q)


@right_shifts(
    "0 Q U s 11110 immh:immb 1001 R 1 Rn:5 Rd:5",
    static="Q U s R",
    where=OR_BHS,
    sizes=3,
    asm=text("{U:s|u}q{R:|r}shrn{2}", "Rd Rn:W shown"),
)
def SQSHRN_v(cpu: Lifter, Q: int, U: int, s: int, R: int, size: int, amount: Imm, Rn: V, Rd: V) -> None:
    """SQSHRN, UQSHRN, SQRSHRN, UQRSHRN."""
    wide = resized(shape(0, s, size), 16 << size)
    result = shifted_right(Rn.read(wide), amount, U, rounding=bool(R))
    write_saturated(cpu, Rd, result, Q, from_signed=not U, to_signed=not U)


@right_shifts(
    "0 Q 1 s 11110 immh:immb 1000 R 1 Rn:5 Rd:5",
    static="Q s R",
    where=OR_BHS,
    sizes=3,
    asm=text("sq{R:|r}shrun{2}", "Rd Rn:W shown"),
)
def SQSHRUN_v(cpu: Lifter, Q: int, s: int, R: int, size: int, amount: Imm, Rn: V, Rd: V) -> None:
    """SQSHRUN, SQRSHRUN: signed to unsigned."""
    wide = resized(shape(0, s, size), 16 << size)
    result = shifted_right(Rn.read(wide), amount, 0, rounding=bool(R))
    write_saturated(cpu, Rd, result, Q, from_signed=True, to_signed=False)


@left_shifts(
    "0 Q U 011110 immh:immb 10100 1 Rn:5 Rd:5", static="Q U", sizes=3, asm=text("{U:s|u}shll{2}", "Rd:W Rn shown")
)
def SSHLL_v(cpu: Lifter, Q: int, U: int, size: int, amount: Imm, Rn: V, Rd: V) -> None:
    """SSHLL, USHLL (SXTL, UXTL)."""
    t = lanes(0, size)
    wide = extend(low_or_high(Rn, t, Q), 16 << size, U)
    Rd.write(wide << spread(amount, wide.type))


def _shll(Q: int, size: int) -> str:
    return text("shll{2}", "Rd:W Rn")(Q, 0, size) + f", #{8 << size}"


@simd("0 Q 1 01110 size:2 10000 10011 10 Rn:5 Rd:5", static="Q size", where="size < 3", asm=_shll)
def SHLL_v(cpu: Lifter, Q: int, size: int, Rn: V, Rd: V) -> None:
    """By the lane's width."""
    Rd.write(low_or_high(Rn, lanes(0, size), Q).zext(16 << size) << (8 << size))


@simd("0 Q 0 01110 size:2 10000 10010 10 Rn:5 Rd:5", static="Q size", where="size < 3", asm=text("xtn{2}", "Rd Rn:W"))
def XTN_v(cpu: Lifter, Q: int, size: int, Rn: V, Rd: V) -> None:
    wide = resized(lanes(0, size), 16 << size)
    write_low_or_high(Rd, Rn.read(wide).trunc(8 << size), Q)


@simd(
    "0 Q U s 1110 size:2 10000 10100 10 Rn:5 Rd:5",
    static="Q U s size",
    where=OR_BHS,
    asm=text("{U:s|u}qxtn{2}", "Rd Rn:W"),
)
def SQXTN_v(cpu: Lifter, Q: int, U: int, s: int, size: int, Rn: V, Rd: V) -> None:
    """SQXTN, UQXTN."""
    wide = resized(shape(0, s, size), 16 << size)
    write_saturated(cpu, Rd, Rn.read(wide), Q, from_signed=not U, to_signed=not U)


@simd("0 Q 1 s 1110 size:2 10000 10010 10 Rn:5 Rd:5", static="Q s size", where=OR_BHS, asm=text("sqxtun{2}", "Rd Rn:W"))
def SQXTUN_v(cpu: Lifter, Q: int, s: int, size: int, Rn: V, Rd: V) -> None:
    wide = resized(shape(0, s, size), 16 << size)
    write_saturated(cpu, Rd, Rn.read(wide), Q, from_signed=True, to_signed=False)
