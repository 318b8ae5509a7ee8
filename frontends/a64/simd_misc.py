"""Advanced SIMD (scalar) two-register miscellaneous: integer lanes. Arm ARM C4.1.96.21 and C4.1.96.8.

The saturating ones stand in simd_saturate.py, the narrowing ones in simd_shift_narrow.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .operands import V
from .simd_common import OR_D, lanes, mask_lanes, resized, shape
from .simd_operands import simd
from .simd_text import text

if TYPE_CHECKING:
    from dbt.ir.values import Value

    from .lifter import Lifter


def reversed_in(value: Value, container: int) -> Value:
    """Lanes in reverse order within containers of that many bits."""
    per = container // value.type.bits
    order = tuple(i ^ (per - 1) for i in range(value.type.lanes))
    return value.shuffle(value, order)


@simd("0 Q 0 01110 size:2 10000 00000 10 Rn:5 Rd:5", static="Q size", where="size < 3", asm=text("rev64", "Rd Rn"))
def REV64_v(cpu: Lifter, Q: int, size: int, Rn: V, Rd: V) -> None:
    Rd.write(reversed_in(Rn.read(lanes(Q, size)), 64))


@simd("0 Q 1 01110 size:2 10000 00000 10 Rn:5 Rd:5", static="Q size", where="size < 2", asm=text("rev32", "Rd Rn"))
def REV32_v(cpu: Lifter, Q: int, size: int, Rn: V, Rd: V) -> None:
    Rd.write(reversed_in(Rn.read(lanes(Q, size)), 32))


@simd("0 Q 0 01110 00 10000 00001 10 Rn:5 Rd:5", static="Q", asm=text("rev16", "Rd Rn"))
def REV16_v(cpu: Lifter, Q: int, Rn: V, Rd: V) -> None:
    Rd.write(reversed_in(Rn.read(lanes(Q, 0)), 16))


@simd(
    "0 Q U 01110 size:2 10000 00010 10 Rn:5 Rd:5",
    static="Q U size",
    where="size < 3",
    asm=text("{U:s|u}addlp", "Rd:P Rn"),
)
def ADDLP_v(cpu: Lifter, Q: int, U: int, size: int, Rn: V, Rd: V) -> None:
    """SADDLP, UADDLP: neighbours added into lanes of twice the width."""
    Rd.write(neighbours(Rn.read(lanes(Q, size)), U))


@simd(
    "0 Q U 01110 size:2 10000 00110 10 Rn:5 Rd:5",
    static="Q U size",
    where="size < 3",
    asm=text("{U:s|u}adalp", "Rd:P Rn"),
)
def ADALP_v(cpu: Lifter, Q: int, U: int, size: int, Rn: V, Rd: V) -> None:
    """SADALP, UADALP: and accumulated."""
    total = neighbours(Rn.read(lanes(Q, size)), U)
    Rd.write(Rd.read(total.type) + total)


def neighbours(value: Value, U: int) -> Value:
    """Sums of neighbouring lanes: the lanes of a container are its low half and its high half."""
    bits = value.type.bits
    wide = value.bitcast(resized(value.type, 2 * bits).with_lanes(value.type.lanes // 2 or 1))
    if U:
        return (wide & ((1 << bits) - 1)) + wide.lshr(bits)
    return (wide << bits).ashr(bits) + wide.ashr(bits)


@simd("0 Q 0 01110 size:2 10000 00100 10 Rn:5 Rd:5", static="Q size", where="size < 3", asm=text("cls", "Rd Rn"))
def CLS_v(cpu: Lifter, Q: int, size: int, Rn: V, Rd: V) -> None:
    """Bits below the sign bit that equal it."""
    a = Rn.read(lanes(Q, size))
    Rd.write((a ^ a.ashr(1)).clz() - 1)


@simd("0 Q 1 01110 size:2 10000 00100 10 Rn:5 Rd:5", static="Q size", where="size < 3", asm=text("clz", "Rd Rn"))
def CLZ_v(cpu: Lifter, Q: int, size: int, Rn: V, Rd: V) -> None:
    Rd.write(Rn.read(lanes(Q, size)).clz())


@simd("0 Q 0 01110 00 10000 00101 10 Rn:5 Rd:5", static="Q", asm=text("cnt", "Rd Rn"))
def CNT_v(cpu: Lifter, Q: int, Rn: V, Rd: V) -> None:
    Rd.write(Rn.read(lanes(Q, 0)).popcount())


@simd("0 Q 1 01110 00 10000 00101 10 Rn:5 Rd:5", static="Q", asm=text("not", "Rd Rn"))
def NOT_v(cpu: Lifter, Q: int, Rn: V, Rd: V) -> None:
    Rd.write(~Rn.read(lanes(Q, 0)))


@simd("0 Q 1 01110 01 10000 00101 10 Rn:5 Rd:5", static="Q", asm=text("rbit", "Rd Rn"))
def RBIT_v(cpu: Lifter, Q: int, Rn: V, Rd: V) -> None:
    Rd.write(Rn.read(lanes(Q, 0)).bitreverse())


@simd(
    "0 Q U s 1110 size:2 10000 01000 10 Rn:5 Rd:5", static="Q U s size", where=OR_D, asm=text("{U:cmgt|cmge}", "Rd Rn")
)
def CMGT_z(cpu: Lifter, Q: int, U: int, s: int, size: int, Rn: V, Rd: V) -> None:
    """CMGT, CMGE (U) with zero."""
    t = shape(Q, s, size)
    a = Rn.read(t)
    Rd.write(mask_lanes(a.sge(0) if U else a.sgt(0), t))


@simd(
    "0 Q U s 1110 size:2 10000 01001 10 Rn:5 Rd:5", static="Q U s size", where=OR_D, asm=text("{U:cmeq|cmle}", "Rd Rn")
)
def CMEQ_z(cpu: Lifter, Q: int, U: int, s: int, size: int, Rn: V, Rd: V) -> None:
    """CMEQ, CMLE (U) with zero."""
    t = shape(Q, s, size)
    a = Rn.read(t)
    Rd.write(mask_lanes(a.sle(0) if U else a.eq(0), t))


@simd("0 Q 0 s 1110 size:2 10000 01010 10 Rn:5 Rd:5", static="Q s size", where=OR_D, asm=text("cmlt", "Rd Rn"))
def CMLT_z(cpu: Lifter, Q: int, s: int, size: int, Rn: V, Rd: V) -> None:
    t = shape(Q, s, size)
    Rd.write(mask_lanes(Rn.read(t).slt(0), t))


@simd("0 Q U s 1110 size:2 10000 01011 10 Rn:5 Rd:5", static="Q U s size", where=OR_D, asm=text("{U:abs|neg}", "Rd Rn"))
def ABS_v(cpu: Lifter, Q: int, U: int, s: int, size: int, Rn: V, Rd: V) -> None:
    """ABS, NEG (U)."""
    a = Rn.read(shape(Q, s, size))
    Rd.write(-a if U else a.abs())
