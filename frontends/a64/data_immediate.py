"""Data processing with an immediate (DDI 0487, C4.1.92)."""

from __future__ import annotations

from typing import Final

from dbt.frontends.operands import PAGE_BASE, PC_BASE

from .lifter import Lifter, datasize
from .operands import XSP, General, Imm, X, a64

LOGIC: Final = ("and", "orr", "eor", "ands")


@a64("0 immlo:2 10000 immhi:19 Rd:5", asm="adr {Rd}, {imm:x}", imm=Imm("immhi immlo", signed=True, pc=PC_BASE))
@a64("1 immlo:2 10000 immhi:19 Rd:5", asm="adrp {Rd}, {imm:x}",
     imm=Imm("immhi immlo", signed=True, shift=12, pc=PAGE_BASE))
def ADR(cpu: Lifter, imm: Imm, Rd: X) -> None:
    """ADR, ADRP (C6.2.11, C6.2.12)."""
    Rd.write(64, imm.read())


@a64("sf op S 100010 sh imm12:12 Rn:5 Rd:5", static="sf op S",
     asm=lambda op, S, sh: f"{('add', 'sub')[op]}{'s' * S} {{Rd}}, {{Rn}}, {{imm}}",
     imm=Imm("sh imm12", table=lambda v: (v & 0xFFF) << 12 * (v >> 12)), Rd=lambda S: X("Rd") if S else XSP("Rd"))
def ADD_imm(cpu: Lifter, sf: int, op: int, S: int, imm: Imm, Rn: XSP, Rd: General) -> None:
    """ADD, ADDS, SUB, SUBS (immediate) (C6.2.5)."""
    n = datasize(sf)
    Rd.write(n, cpu.add_with_flags(Rn.read(n), imm.read(n), subtract=op, flags=S))
