"""Loads and stores of one general register (DDI 0487, C4.1 'Loads and Stores')."""

from __future__ import annotations

from dbt.frontends.operands import PC_BASE

from .access import GENERAL, letter, mnemonic, transfer
from .data_register import EXTENDS, extended
from .lifter import Lifter
from .operands import XSP, Imm, X, a64

S9 = Imm("imm9", signed=True)


@a64("size:2 111 0 01 opc:2 imm12:12 Rn:5 Rt:5", static="size opc", where=GENERAL,
     asm=lambda size, opc: f"{mnemonic(size, opc)} {{Rt:{letter(size, opc)}}}, [{{Rn}}, {{imm}}]",
     imm=lambda size: Imm("imm12", shift=size))
@a64("size:2 111 0 00 opc:2 0 imm9:9 00 Rn:5 Rt:5", static="size opc", where=GENERAL,
     asm=lambda size, opc: f"{mnemonic(size, opc, 'ur')} {{Rt:{letter(size, opc)}}}, [{{Rn}}, {{imm}}]", imm=S9)
@a64("size:2 111 0 00 opc:2 0 imm9:9 10 Rn:5 Rt:5", static="size opc", where=GENERAL,
     asm=lambda size, opc: f"{mnemonic(size, opc, 'tr')} {{Rt:{letter(size, opc)}}}, [{{Rn}}, {{imm}}]", imm=S9)
def LDR(cpu: Lifter, size: int, opc: int, imm: Imm, Rn: XSP, Rt: X) -> None:
    """LDR, STR and their kin at a register plus an immediate: scaled, unscaled (LDUR), unprivileged (LDTR)."""
    transfer(cpu, size, opc, Rn.read() + imm.read(), Rt)


@a64("size:2 111 0 00 opc:2 0 imm9:9 01 Rn:5 Rt:5", static="size opc", where=GENERAL, imm=S9,
     asm=lambda size, opc: f"{mnemonic(size, opc)} {{Rt:{letter(size, opc)}}}, [{{Rn}}], {{imm}}")
def LDR_post(cpu: Lifter, size: int, opc: int, imm: Imm, Rn: XSP, Rt: X) -> None:
    """LDR, STR post-indexed. If Rt is Rn (CONSTRAINED UNPREDICTABLE) the address wins."""
    address = Rn.read()
    transfer(cpu, size, opc, address, Rt)
    Rn.write(64, address + imm.read())


@a64("size:2 111 0 00 opc:2 0 imm9:9 11 Rn:5 Rt:5", static="size opc", where=GENERAL, imm=S9,
     asm=lambda size, opc: f"{mnemonic(size, opc)} {{Rt:{letter(size, opc)}}}, [{{Rn}}, {{imm}}]!")
def LDR_pre(cpu: Lifter, size: int, opc: int, imm: Imm, Rn: XSP, Rt: X) -> None:
    """LDR, STR pre-indexed."""
    address = Rn.read() + imm.read()
    transfer(cpu, size, opc, address, Rt)
    Rn.write(64, address)


@a64("size:2 111 0 00 opc:2 1 Rm:5 option:3 S 10 Rn:5 Rt:5", static="size opc option S",
     where=f"({GENERAL}) and option & 2",
     asm=lambda size, opc, option, S: (
         f"{mnemonic(size, opc)} {{Rt:{letter(size, opc)}}}, "
         f"[{{Rn}}, {{Rm:{'wx'[option & 1]}}}, {EXTENDS[option]} #{S * size}]"))
def LDR_reg(cpu: Lifter, size: int, opc: int, option: int, S: int, Rm: X, Rn: XSP, Rt: X) -> None:
    """LDR, STR at a register plus an extended register."""
    offset = extended(Rm, option, 64)
    transfer(cpu, size, opc, Rn.read() + (offset << size if S and size else offset), Rt)


@a64("opc:2 011 0 00 imm19:19 Rt:5", static="opc", where="opc < 3",
     asm=lambda opc: f"ldr{('', '', 'sw')[opc]} {{Rt:{'wxx'[opc]}}}, {{label:x}}",
     label=Imm("imm19", signed=True, shift=2, pc=PC_BASE))
def LDR_lit(cpu: Lifter, opc: int, label: Imm, Rt: X) -> None:
    """LDR, LDRSW (literal)."""
    transfer(cpu, (2, 3, 2)[opc], (1, 1, 2)[opc], label.read(), Rt)


@a64("11 111 0 01 10 imm12:12 Rn:5 prfop:5", asm=lambda prfop: f"prfm {prefetch(prfop)}, [{{Rn}}, {{imm}}]",
     Rn=XSP("Rn"), imm=Imm("imm12", shift=3))
@a64("11 111 0 00 10 0 imm9:9 00 Rn:5 prfop:5", asm=lambda prfop: f"prfum {prefetch(prfop)}, [{{Rn}}, {{imm}}]",
     Rn=XSP("Rn"), imm=S9)
@a64("11 111 0 00 10 1 Rm:5 option:3 S 10 Rn:5 prfop:5", static="option", where="option & 2",
     asm=lambda option, S, prfop: (
         f"prfm {prefetch(prfop)}, [{{Rn}}, {{Rm:{'wx'[option & 1]}}}, {EXTENDS[option]} #{3 * S}]"),
     Rn=XSP("Rn"), Rm=X("Rm"))
@a64("11 011 0 00 imm19:19 prfop:5", asm=lambda prfop: f"prfm {prefetch(prfop)}, {{label:x}}",
     label=Imm("imm19", signed=True, shift=2, pc=PC_BASE))
def PRFM(cpu: Lifter) -> None:
    """PRFM, PRFUM: a hint."""


def prefetch(prfop: int) -> str:
    """The name of a prefetch operation."""
    kind, level, stream = prfop >> 3, prfop >> 1 & 3, prfop & 1
    if kind == 3 or level == 3:
        return f"#{prfop}"
    return f"{('pld', 'pli', 'pst')[kind]}l{level + 1}{('keep', 'strm')[stream]}"
