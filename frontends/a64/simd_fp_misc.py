"""Advanced SIMD (scalar) two-register miscellaneous, floating point. Arm ARM C4.1.96.21 and C4.1.96.8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.ir.types import F16, F32, F64, vector

from .operands import V
from .simd_common import FLOAT, FLOAT_OR_SD, as_int, float_shape, low_or_high, write_low_or_high
from .simd_operands import simd
from .simd_text import text

if TYPE_CHECKING:
    from .lifter import Lifter

ROUNDING: Final = ("even", "up", "down", "zero")  # by the bits o1:o2 of FRINT and FCVT, as in FPCR.RMode


@simd("0 Q U 01110 1 sz 10000 01111 10 Rn:5 Rd:5", static="Q U sz", where=FLOAT, asm=text("{U:fabs|fneg}", "Rd Rn"))
def FABS_v(cpu: Lifter, Q: int, U: int, sz: int, Rn: V, Rd: V) -> None:
    """FABS, FNEG (U)."""
    a = Rn.read(float_shape(Q, 0, sz))
    Rd.write(cpu.fneg(a) if U else cpu.fabs(a))


@simd("0 Q 1 01110 1 sz 10000 11111 10 Rn:5 Rd:5", static="Q sz", where=FLOAT, asm=text("fsqrt", "Rd Rn"))
def FSQRT_v(cpu: Lifter, Q: int, sz: int, Rn: V, Rd: V) -> None:
    Rd.write(cpu.fsqrt(Rn.read(float_shape(Q, 0, sz))))


def _zero_text(Q: int, U: int, s: int, sz: int, op: int) -> str:
    condition = (("gt", "eq", "lt"), ("ge", "le"))[U][op]
    return text(f"fcm{condition}", "Rd Rn")(Q, s, sz=sz)


@simd("0 Q U s 1110 1 sz 10000 011 op:2 10 Rn:5 Rd:5", static="Q U s sz op",
     where=f"({FLOAT_OR_SD}) and op < 2 + (not U)", asm=_zero_text)  # fmt: skip
def FCMGT_z(cpu: Lifter, Q: int, U: int, s: int, sz: int, op: int, Rn: V, Rd: V) -> None:
    """FCMGT, FCMGE, FCMEQ, FCMLE, FCMLT with zero."""
    t = float_shape(Q, s, sz)
    a, zero = Rn.read(t), cpu.const(t, 0)
    pred, x, y = {
        (0, 0): ("gt", a, zero), (1, 0): ("ge", a, zero), (0, 1): ("eq", a, zero),
        (1, 1): ("ge", zero, a), (0, 2): ("gt", zero, a),
    }[U, op]  # fmt: skip
    Rd.write(cpu.fcmp(pred, x, y, signaling=pred != "eq").sext(t.bits))


@simd(
    "0 Q 0 01110 o2 sz 10000 1100 o1 10 Rn:5 Rd:5",
    static="Q o2 sz o1",
    where=FLOAT,
    asm=text("frint{o1.o2:n|p|m|z}", "Rd Rn"),
)
def FRINTN_v(cpu: Lifter, Q: int, o2: int, sz: int, o1: int, Rn: V, Rd: V) -> None:
    """FRINTN, FRINTP (o2), FRINTM (o1), FRINTZ."""
    Rd.write(cpu.frint(Rn.read(float_shape(Q, 0, sz)), ROUNDING[2 * o1 + o2], exact=False))


@simd("0 Q 1 01110 0 sz 10000 11000 10 Rn:5 Rd:5", static="Q sz", where=FLOAT, asm=text("frinta", "Rd Rn"))
def FRINTA_v(cpu: Lifter, Q: int, sz: int, Rn: V, Rd: V) -> None:
    Rd.write(cpu.frint(Rn.read(float_shape(Q, 0, sz)), "away", exact=False))


@simd(
    "0 Q 1 01110 o2 sz 10000 11001 10 Rn:5 Rd:5", static="Q o2 sz", where=FLOAT, asm=text("{o2:frintx|frinti}", "Rd Rn")
)
def FRINTX_v(cpu: Lifter, Q: int, o2: int, sz: int, Rn: V, Rd: V) -> None:
    """FRINTX, which raises inexact, FRINTI (o2)."""
    Rd.write(cpu.frint(Rn.read(float_shape(Q, 0, sz)), "dynamic", exact=not o2))


@simd(
    "0 Q U s 1110 o2 sz 10000 1101 o1 10 Rn:5 Rd:5",
    static="Q U s o2 sz o1",
    where=FLOAT_OR_SD,
    asm=text("fcvt{o1.o2:n|p|m|z}{U:s|u}", "Rd Rn"),
)
def FCVTNS_v(cpu: Lifter, Q: int, U: int, s: int, o2: int, sz: int, o1: int, Rn: V, Rd: V) -> None:
    """FCVTN, FCVTP (o2), FCVTM (o1), FCVTZ to signed or unsigned."""
    t = float_shape(Q, s, sz)
    Rd.write(cpu.ftoi(Rn.read(t), as_int(t), signed=not U, rm=ROUNDING[2 * o1 + o2]))


@simd(
    "0 Q U s 1110 0 sz 10000 11100 10 Rn:5 Rd:5",
    static="Q U s sz",
    where=FLOAT_OR_SD,
    asm=text("fcvta{U:s|u}", "Rd Rn"),
)
def FCVTAS_v(cpu: Lifter, Q: int, U: int, s: int, sz: int, Rn: V, Rd: V) -> None:
    """FCVTAS, FCVTAU (U)."""
    t = float_shape(Q, s, sz)
    Rd.write(cpu.ftoi(Rn.read(t), as_int(t), signed=not U, rm="away"))


@simd(
    "0 Q U s 1110 0 sz 10000 11101 10 Rn:5 Rd:5", static="Q U s sz", where=FLOAT_OR_SD, asm=text("{U:s|u}cvtf", "Rd Rn")
)
def SCVTF_v(cpu: Lifter, Q: int, U: int, s: int, sz: int, Rn: V, Rd: V) -> None:
    """SCVTF, UCVTF (U)."""
    t = float_shape(Q, s, sz)
    Rd.write(cpu.itof(Rn.read(as_int(t)), t, signed=not U))


@simd("0 Q 0 01110 0 sz 10000 10111 10 Rn:5 Rd:5", static="Q sz", asm=text("fcvtl{2}", "Rd:W Rn", base=1))
def FCVTL_v(cpu: Lifter, Q: int, sz: int, Rn: V, Rd: V) -> None:
    """FCVTL, FCVTL2: H to S, S to D."""
    narrow, wide = (vector(F32, 2), vector(F64, 2)) if sz else (vector(F16, 4), vector(F32, 4))
    Rd.write(cpu.fconvert(low_or_high(Rn, narrow, Q), wide))


@simd("0 Q 0 01110 0 sz 10000 10110 10 Rn:5 Rd:5", static="Q sz", asm=text("fcvtn{2}", "Rd Rn:W", base=1))
def FCVTN_v(cpu: Lifter, Q: int, sz: int, Rn: V, Rd: V) -> None:
    """FCVTN, FCVTN2: S to H, D to S."""
    narrow, wide = (vector(F32, 2), vector(F64, 2)) if sz else (vector(F16, 4), vector(F32, 4))
    write_low_or_high(Rd, cpu.fconvert(Rn.read(wide), narrow), Q)
