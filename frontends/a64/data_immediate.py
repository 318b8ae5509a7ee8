"""Data processing with an immediate (DDI 0487, C4.1 'Data Processing -- Immediate')."""

from __future__ import annotations

from functools import partial
from typing import Final

from dbt.frontends.operands import PAGE_BASE, PC_BASE

from .bitmask import bitmask, field_mask, sign_extended
from .lifter import Lifter, datasize
from .operands import XSP, General, Imm, X, a64

LOGIC: Final = ("and", "orr", "eor", "ands")
# For both widths: N:immr:imms to the mask. For 32 bits sign-extended, so that it fits 32-bit fields of host code.
BITMASK: Final = tuple(
    tuple(sign_extended(bitmask(v >> 12, v >> 6 & 63, v & 63), 32 << sf) for v in range(8192)) for sf in (0, 1)
)


@a64("0 immlo:2 10000 immhi:19 Rd:5", asm="adr {Rd}, {imm:x}", imm=Imm("immhi immlo", signed=True, pc=PC_BASE))
@a64("1 immlo:2 10000 immhi:19 Rd:5", asm="adrp {Rd}, {imm:x}",
     imm=Imm("immhi immlo", signed=True, shift=12, pc=PAGE_BASE))
def ADR(cpu: Lifter, imm: Imm, Rd: X) -> None:
    """ADR, ADRP."""
    Rd.write(64, imm.read())


@a64("sf op S 100010 sh imm12:12 Rn:5 Rd:5", static="sf op S",
     asm=lambda op, S, sh: f"{('add', 'sub')[op]}{'s' * S} {{Rd}}, {{Rn}}, #{{imm12}}{', lsl #12' * sh}",
     imm=Imm("sh imm12", table=lambda v: (v & 0xFFF) << 12 * (v >> 12)),
     Rd=lambda S: X("Rd") if S else XSP("Rd"))
def ADD_imm(cpu: Lifter, sf: int, op: int, S: int, imm: Imm, Rn: XSP, Rd: General) -> None:
    """ADD, ADDS, SUB, SUBS (immediate)."""
    n = datasize(sf)
    Rd.write(n, cpu.add_with_flags(Rn.read(n), imm.read(n), subtract=op, flags=S))


@a64.undefined("sf opc:2 100100 0 xxxxxx 11111x xxxxx xxxxx", static="sf opc")
@a64.undefined("sf opc:2 100100 0 xxxxxx 111101 xxxxx xxxxx", static="sf opc")
@a64.undefined("sf opc:2 100100 0 xxxxxx 111011 xxxxx xxxxx", static="sf opc")
@a64.undefined("sf opc:2 100100 0 xxxxxx 110111 xxxxx xxxxx", static="sf opc")
@a64.undefined("sf opc:2 100100 0 xxxxxx 101111 xxxxx xxxxx", static="sf opc")
@a64.undefined("sf opc:2 100100 0 xxxxxx 011111 xxxxx xxxxx", static="sf opc")
@a64.undefined("1 opc:2 100100 1 xxxxxx 111111 xxxxx xxxxx", static="opc")
@a64("sf opc:2 100100 N immr:6 imms:6 Rn:5 Rd:5", static="sf opc N", where="N <= sf",
     asm=lambda opc: f"{LOGIC[opc]} {{Rd}}, {{Rn}}, {{imm}}",
     imm=lambda sf: Imm("N immr imms", table=BITMASK[sf]), Rd=lambda opc: X("Rd") if opc == 3 else XSP("Rd"))
def AND_imm(cpu: Lifter, sf: int, opc: int, imm: Imm, Rn: X, Rd: General) -> None:
    """AND, ORR, EOR, ANDS (immediate)."""
    n = datasize(sf)
    Rd.write(n, cpu.logic(opc, Rn.read(n), imm.read(n)))


@a64("sf opc:2 100101 hw:2 imm16:16 Rd:5", static="sf opc hw", where="opc in (0, 2) and hw <= 1 + 2 * sf",
     asm=lambda opc, hw: f"{('movn', '', 'movz')[opc]} {{Rd}}, {{imm16}}, {16 * hw}",
     imm=lambda hw: Imm("imm16", shift=16 * hw))
def MOVZ(cpu: Lifter, sf: int, opc: int, imm: Imm, Rd: X) -> None:
    """MOVN, MOVZ."""
    Rd.write(64, imm.read() if opc else (~imm.read(datasize(sf))).zext(64))


@a64("sf 11 100101 hw:2 imm16:16 Rd:5", static="sf hw", where="hw <= 1 + 2 * sf",
     asm=lambda hw: f"movk {{Rd}}, {{imm16}}, {16 * hw}",
     imm=lambda sf, hw: Imm("imm16", shift=16 * hw, signed=not sf and hw == 1))
def MOVK(cpu: Lifter, sf: int, hw: int, imm: Imm, Rd: X) -> None:
    """MOVK."""
    n = datasize(sf)
    Rd.write(n, Rd.read(n) & ~(0xFFFF << 16 * hw) | imm.read(n))


def shift_left(bits: int, v: int) -> int:
    """SBFM and UBFM shift left by this, then right by `shift_right`; v is immr:imms."""
    width = bits.bit_length() - 1
    return bits - 1 - (v & ((1 << width) - 1))


def shift_right(bits: int, v: int) -> int:
    """See shift_left."""
    width = bits.bit_length() - 1
    return ((v >> width) - (v & ((1 << width) - 1)) - 1) % bits


@a64("0 opc:2 100110 0 0 immr:5 0 imms:5 Rn:5 Rd:5", static="opc", where="opc in (0, 2)", sf=0,
     asm=lambda opc: f"{'su'[opc // 2]}bfm {{Rd}}, {{Rn}}, #{{immr}}, #{{imms}}",
     left=Imm("immr imms", table=partial(shift_left, 32)), right=Imm("immr imms", table=partial(shift_right, 32)))
@a64("1 opc:2 100110 1 immr:6 imms:6 Rn:5 Rd:5", static="opc", where="opc in (0, 2)", sf=1,
     asm=lambda opc: f"{'su'[opc // 2]}bfm {{Rd}}, {{Rn}}, #{{immr}}, #{{imms}}",
     left=Imm("immr imms", table=partial(shift_left, 64)), right=Imm("immr imms", table=partial(shift_right, 64)))
def UBFM(cpu: Lifter, sf: int, opc: int, left: Imm, right: Imm, Rn: X, Rd: X) -> None:
    """SBFM, UBFM: the field is shifted up against the top, then down to where it belongs."""
    n = datasize(sf)
    value = Rn.read(n) << left.read(n)
    Rd.write(n, value.lshr(right.read(n)) if opc else value.ashr(right.read(n)))


@a64("0 opc:2 100110 0 0 immr:5 011111 Rn:5 Rd:5", static="opc", where="opc in (0, 2)", sf=0, shift=Imm("immr"),
     asm=lambda opc: f"{'su'[opc // 2]}bfm {{Rd}}, {{Rn}}, {{shift}}, #31")
@a64("1 opc:2 100110 1 immr:6 111111 Rn:5 Rd:5", static="opc", where="opc in (0, 2)", sf=1, shift=Imm("immr"),
     asm=lambda opc: f"{'su'[opc // 2]}bfm {{Rd}}, {{Rn}}, {{shift}}, #63")
def LSR_imm(cpu: Lifter, sf: int, opc: int, shift: Imm, Rn: X, Rd: X) -> None:
    """ASR, LSR (immediate): SBFM and UBFM up to the top bit."""
    n = datasize(sf)
    value, amount = Rn.read(n), shift.read(n)
    Rd.write(n, value.lshr(amount) if opc else value.ashr(amount))


@a64("0 10 100110 0 0111 r:2 0111 s:2 Rn:5 Rd:5", static="r s", where="s == r - 1", sf=0,
     asm=lambda r, s: f"ubfm {{Rd}}, {{Rn}}, #{28 + r}, #{28 + s}")
@a64("1 10 100110 1 1111 r:2 1111 s:2 Rn:5 Rd:5", static="r s", where="s == r - 1", sf=1,
     asm=lambda r, s: f"ubfm {{Rd}}, {{Rn}}, #{60 + r}, #{60 + s}")
def LSL_imm(cpu: Lifter, sf: int, r: int, Rn: X, Rd: X) -> None:
    """LSL by 1, 2 or 3, which indexes arrays: UBFM without its second shift."""
    n = datasize(sf)
    Rd.write(n, Rn.read(n) << 4 - r)


@a64("sf opc:2 100110 N 000000 imms:6 Rn:5 Rd:5", static="sf opc N imms",
     where="opc in (0, 2) and N == sf and imms in (7, 15, 31) and imms < 31 + sf",
     asm=lambda opc: f"{'su'[opc // 2]}bfm {{Rd}}, {{Rn}}, #0, #{{imms}}")
def UXTB(cpu: Lifter, sf: int, opc: int, imms: int, Rn: X, Rd: X) -> None:
    """SXTB, SXTH, SXTW, UXTB, UXTH: SBFM and UBFM of whole bytes from bit 0."""
    n = datasize(sf)
    value = Rn.read(imms + 1)
    Rd.write(n, value.zext(n) if opc else value.sext(n))


@a64("0 01 100110 0 0 immr:5 0 imms:5 Rn:5 Rd:5", sf=0, asm="bfm {Rd}, {Rn}, {rotate}, #{imms}",
     rotate=Imm("immr"), mask=Imm("immr imms", table=lambda v: sign_extended(field_mask(32, v >> 5, v & 31), 32)))
@a64("1 01 100110 1 immr:6 imms:6 Rn:5 Rd:5", sf=1, asm="bfm {Rd}, {Rn}, {rotate}, #{imms}",
     rotate=Imm("immr"), mask=Imm("immr imms", table=lambda v: field_mask(64, v >> 6, v & 63)))
def BFM(cpu: Lifter, sf: int, rotate: Imm, mask: Imm, Rn: X, Rd: X) -> None:
    """BFM: the bits of `mask` come from the rotated source."""
    n = datasize(sf)
    old = Rd.read(n)
    Rd.write(n, (Rn.read(n).rotr(rotate.read(n)) ^ old) & mask.read(n) ^ old)


@a64("0 00 100111 0 0 Rm:5 0 imms:5 Rn:5 Rd:5", sf=0, asm="extr {Rd}, {Rn}, {Rm}, {lsb}", lsb=Imm("imms"))
@a64("1 00 100111 1 0 Rm:5 imms:6 Rn:5 Rd:5", sf=1, asm="extr {Rd}, {Rn}, {Rm}, {lsb}", lsb=Imm("imms"))
def EXTR(cpu: Lifter, sf: int, lsb: Imm, Rm: X, Rn: X, Rd: X) -> None:
    """EXTR."""
    n = datasize(sf)
    Rd.write(n, Rn.read(n).fshr(Rm.read(n), lsb.read(n)))
