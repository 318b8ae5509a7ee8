"""Advanced SIMD permute, extract and table look-up. Arm ARM C4.1.96.18, C4.1.96.14 and C4.1.96.19."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.ir.types import I8, I64, I128, vector

from .operands import Imm, V
from .simd_common import VECTOR, lanes
from .simd_operands import simd
from .simd_text import VList, text

if TYPE_CHECKING:
    from .lifter import Lifter


@simd("0 Q 0 01110 size:2 0 Rm:5 0 op 01 10 Rn:5 Rd:5", static="Q size op", where=VECTOR, asm=text("{op:uzp1|uzp2}"))
def UZP_v(cpu: Lifter, Q: int, size: int, op: int, Rm: V, Rn: V, Rd: V) -> None:
    """UZP1, UZP2: the even or odd lanes of both."""
    t = lanes(Q, size)
    Rd.write(Rn.read(t).shuffle(Rm.read(t), tuple(range(op, 2 * t.lanes, 2))))


@simd("0 Q 0 01110 size:2 0 Rm:5 0 op 10 10 Rn:5 Rd:5", static="Q size op", where=VECTOR, asm=text("{op:trn1|trn2}"))
def TRN_v(cpu: Lifter, Q: int, size: int, op: int, Rm: V, Rn: V, Rd: V) -> None:
    """TRN1, TRN2: even or odd lanes of both, in turn."""
    t = lanes(Q, size)
    order = (i + op - i % 2 + (t.lanes if i % 2 else 0) for i in range(t.lanes))
    Rd.write(Rn.read(t).shuffle(Rm.read(t), tuple(order)))


@simd("0 Q 0 01110 size:2 0 Rm:5 0 op 11 10 Rn:5 Rd:5", static="Q size op", where=VECTOR, asm=text("{op:zip1|zip2}"))
def ZIP_v(cpu: Lifter, Q: int, size: int, op: int, Rm: V, Rn: V, Rd: V) -> None:
    """ZIP1, ZIP2: the lower or upper halves of both, interleaved."""
    t = lanes(Q, size)
    first = op * t.lanes // 2
    order = (first + i // 2 + (t.lanes if i % 2 else 0) for i in range(t.lanes))
    Rd.write(Rn.read(t).shuffle(Rm.read(t), tuple(order)))


@simd(
    "0 0 101110 000 Rm:5 0 0 imm3:3 0 Rn:5 Rd:5", Q=0, position=Imm("imm3", shift=3), asm=text("ext", "Rd Rn Rm imm3")
)
@simd("0 1 101110 000 Rm:5 0 imm4:4 0 Rn:5 Rd:5", Q=1, position=Imm("imm4", shift=3), asm=text("ext", "Rd Rn Rm imm4"))
def EXT_v(cpu: Lifter, Q: int, position: Imm, Rm: V, Rn: V, Rd: V) -> None:
    """The bytes of Rm:Rn from a position on."""
    t = I128 if Q else I64
    by = position.read(64).zext(t.bits)
    Rd.write(Rm.read(t).fshr(Rn.read(t), by))


def table_registers(len: int) -> VList:  # noqa: A002 -- the manual's name
    """The tables, for text."""
    return VList("Rn", len + 1)


@simd(
    "0 Q 001110 000 Rm:5 0 len:2 op 00 Rn:5 Rd:5",
    static="Q len op",
    asm=text("{op:tbl|tbx}", "Rd list:16b Rm"),
    list=table_registers,
)
def TBL_v(cpu: Lifter, Q: int, len: int, op: int, Rm: V, Rn: V, Rd: V) -> None:  # noqa: A002 -- the manual's name
    """TBL, TBX (op): TBX leaves bytes alone whose index is out of range."""
    t = vector(I8, 8 << Q)
    table = vector(I8, 16)
    index = Rm.read(t)
    tables = [Rn.next(i).read(table) for i in range(len + 1)]
    result = index.tbl(*tables)
    if op:
        result = index.ult(16 * (len + 1)).select(result, Rd.read(t))
    Rd.write(result)
