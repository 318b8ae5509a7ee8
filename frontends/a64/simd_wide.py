"""Advanced SIMD (scalar) three different: results or operands of twice the width. Arm ARM C4.1.96.24 and C4.1.96.12."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.ir.types import I64

from .operands import V
from .simd_arithmetic import difference
from .simd_common import extend, lanes, low_or_high, resized, saturated, shape, write_low_or_high
from .simd_operands import simd
from .simd_text import text

if TYPE_CHECKING:
    from dbt.ir.values import Value

    from .lifter import Lifter


@simd(
    "0 Q U 01110 size:2 1 Rm:5 00 S 0 00 Rn:5 Rd:5",
    static="Q U size S",
    where="size < 3",
    asm=text("{U:s|u}{S:add|sub}l{2}", "Rd:W Rn Rm"),
)
def ADDL_v(cpu: Lifter, Q: int, U: int, size: int, S: int, Rm: V, Rn: V, Rd: V) -> None:
    """SADDL, UADDL, SSUBL, USUBL."""
    t = lanes(0, size)
    a = extend(low_or_high(Rn, t, Q), 16 << size, U)
    b = extend(low_or_high(Rm, t, Q), 16 << size, U)
    Rd.write(a - b if S else a + b)


@simd(
    "0 Q U 01110 size:2 1 Rm:5 00 S 1 00 Rn:5 Rd:5",
    static="Q U size S",
    where="size < 3",
    asm=text("{U:s|u}{S:add|sub}w{2}", "Rd:W Rn:W Rm"),
)
def ADDW_v(cpu: Lifter, Q: int, U: int, size: int, S: int, Rm: V, Rn: V, Rd: V) -> None:
    """SADDW, UADDW, SSUBW, USUBW."""
    t = lanes(0, size)
    a = Rn.read(resized(t, 16 << size))
    b = extend(low_or_high(Rm, t, Q), 16 << size, U)
    Rd.write(a - b if S else a + b)


@simd(
    "0 Q R 01110 size:2 1 Rm:5 01 S 0 00 Rn:5 Rd:5",
    static="Q R size S",
    where="size < 3",
    asm=text("{R:|r}{S:add|sub}hn{2}", "Rd Rn:W Rm:W"),
)
def ADDHN_v(cpu: Lifter, Q: int, R: int, size: int, S: int, Rm: V, Rn: V, Rd: V) -> None:
    """ADDHN, SUBHN, RADDHN, RSUBHN: the high half of each sum or difference."""
    bits = 8 << size
    wide = resized(lanes(0, size), 2 * bits)
    a, b = Rn.read(wide), Rm.read(wide)
    total = a - b if S else a + b
    if R:
        total = total + (1 << (bits - 1))
    write_low_or_high(Rd, total.lshr(bits).trunc(bits), Q)


@simd(
    "0 Q U 01110 size:2 1 Rm:5 01 D 1 00 Rn:5 Rd:5",
    static="Q U size D",
    where="size < 3",
    asm=text("{U:s|u}{D:abal|abdl}{2}", "Rd:W Rn Rm"),
)
def ABAL_v(cpu: Lifter, Q: int, U: int, size: int, D: int, Rm: V, Rn: V, Rd: V) -> None:
    """SABAL, UABAL, SABDL (D), UABDL (D)."""
    t = lanes(0, size)
    result = difference(low_or_high(Rn, t, Q), low_or_high(Rm, t, Q), U).zext(16 << size)
    Rd.write(result if D else Rd.read(result.type) + result)


def product(a: Value, b: Value, U: int) -> Value:
    """The whole product in lanes of twice the width."""
    bits = 2 * a.type.bits
    return extend(a, bits, U) * extend(b, bits, U)


@simd(
    "0 Q U 01110 size:2 1 Rm:5 10 S 0 00 Rn:5 Rd:5",
    static="Q U size S",
    where="size < 3",
    asm=text("{U:s|u}{S:mlal|mlsl}{2}", "Rd:W Rn Rm"),
)
def MLAL_v(cpu: Lifter, Q: int, U: int, size: int, S: int, Rm: V, Rn: V, Rd: V) -> None:
    """SMLAL, UMLAL, SMLSL, UMLSL."""
    t = lanes(0, size)
    result = product(low_or_high(Rn, t, Q), low_or_high(Rm, t, Q), U)
    old = Rd.read(result.type)
    Rd.write(old - result if S else old + result)


@simd(
    "0 Q U 01110 size:2 1 Rm:5 1100 00 Rn:5 Rd:5",
    static="Q U size",
    where="size < 3",
    asm=text("{U:s|u}mull{2}", "Rd:W Rn Rm"),
)
def MULL_v(cpu: Lifter, Q: int, U: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    """SMULL, UMULL."""
    t = lanes(0, size)
    Rd.write(product(low_or_high(Rn, t, Q), low_or_high(Rm, t, Q), U))


def doubled(cpu: Lifter, Rd: V, total: Value, accumulate: int) -> None:
    """Writes 2 total saturated (accumulate 0), Rd + that (1), or Rd - that (-1), saturated again."""
    double = total.saddsat(total)
    lost = double.ne(total + total)
    if accumulate == 0:
        Rd.write(double)
        saturated(cpu, lost)
        return
    old = Rd.read(total.type)
    result = old.saddsat(double) if accumulate > 0 else old.ssubsat(double)
    exact = old + double if accumulate > 0 else old - double
    Rd.write(result)
    saturated(cpu, lost, result.ne(exact))


@simd(
    "0 Q 0 s 1110 size:2 1 Rm:5 10 S 1 00 Rn:5 Rd:5",
    static="Q s size S",
    where="size in (1, 2) and (Q or not s)",
    asm=text("{S:sqdmlal|sqdmlsl}{2}", "Rd:W Rn Rm"),
)
def SQDMLAL_v(cpu: Lifter, Q: int, s: int, size: int, S: int, Rm: V, Rn: V, Rd: V) -> None:
    """SQDMLAL, SQDMLSL."""
    t = shape(0, s, size)
    total = product(low_or_high(Rn, t, Q), low_or_high(Rm, t, Q), 0)
    doubled(cpu, Rd, total, -1 if S else 1)


@simd(
    "0 Q 0 s 1110 size:2 1 Rm:5 1101 00 Rn:5 Rd:5",
    static="Q s size",
    where="size in (1, 2) and (Q or not s)",
    asm=text("sqdmull{2}", "Rd:W Rn Rm"),
)
def SQDMULL_v(cpu: Lifter, Q: int, s: int, size: int, Rm: V, Rn: V, Rd: V) -> None:
    t = shape(0, s, size)
    doubled(cpu, Rd, product(low_or_high(Rn, t, Q), low_or_high(Rm, t, Q), 0), 0)


@simd("0 Q 0 01110 00 1 Rm:5 1110 00 Rn:5 Rd:5", static="Q", asm=text("pmull{2}", "Rd:W Rn Rm"))
def PMULL_v(cpu: Lifter, Q: int, Rm: V, Rn: V, Rd: V) -> None:
    """Polynomials of bytes; the product of two has 15 bits."""
    t = lanes(0, 0)
    a = low_or_high(Rn, t, Q).zext(16)
    b = low_or_high(Rm, t, Q).zext(16)
    result = a & -(b & 1)
    for bit in range(1, 8):
        result = result ^ ((a << bit) & -(b.lshr(bit) & 1))
    Rd.write(result)


@simd(
    "0 Q 0 01110 11 1 Rm:5 1110 00 Rn:5 Rd:5", static="Q", feature="pmull", asm=text("pmull{2}", "Rd:W Rn Rm", lane=3)
)
def PMULL_d(cpu: Lifter, Q: int, Rm: V, Rn: V, Rd: V) -> None:
    """Polynomials of 64 bits."""
    offset = 8 if Q else 0
    Rd.write(Rn.read(I64, offset).clmul(Rm.read(I64, offset)))
