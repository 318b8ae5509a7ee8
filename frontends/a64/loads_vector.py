"""Loads and stores of one SIMD&FP register as a whole (DDI 0487, C4.1 'Loads and Stores')."""

from __future__ import annotations

from dbt.frontends.operands import PC_BASE

from .access import VECTOR, VECTOR_LETTERS, transfer_vector, vector_size
from .data_register import EXTENDS, extended
from .lifter import Lifter
from .loads import S9
from .operands import XSP, Imm, V, X, a64


def _name(size: int, opc: int, kind: str = "r") -> str:
    return f"{('st', 'ld')[opc & 1]}{kind} {{Rt:{VECTOR_LETTERS[vector_size(size, opc)]}}}"


@a64("size:2 111 1 01 opc:2 imm12:12 Rn:5 Rt:5", static="size opc", where=VECTOR, feature="fp",
     asm=lambda size, opc: f"{_name(size, opc)}, [{{Rn}}, {{imm}}]",
     imm=lambda size, opc: Imm("imm12", shift=vector_size(size, opc)))
@a64("size:2 111 1 00 opc:2 0 imm9:9 00 Rn:5 Rt:5", static="size opc", where=VECTOR, feature="fp",
     asm=lambda size, opc: f"{_name(size, opc, 'ur')}, [{{Rn}}, {{imm}}]", imm=S9)
def LDR_v(cpu: Lifter, size: int, opc: int, imm: Imm, Rn: XSP, Rt: V) -> None:
    """LDR, STR, LDUR, STUR (immediate, SIMD&FP)."""
    transfer_vector(cpu, vector_size(size, opc), opc & 1, Rn.read() + imm.read(), Rt)


@a64("size:2 111 1 00 opc:2 0 imm9:9 01 Rn:5 Rt:5", static="size opc", where=VECTOR, feature="fp", imm=S9,
     asm=lambda size, opc: f"{_name(size, opc)}, [{{Rn}}], {{imm}}")
def LDR_v_post(cpu: Lifter, size: int, opc: int, imm: Imm, Rn: XSP, Rt: V) -> None:
    """LDR, STR (SIMD&FP) post-indexed."""
    address = Rn.read()
    transfer_vector(cpu, vector_size(size, opc), opc & 1, address, Rt)
    Rn.write(64, address + imm.read())


@a64("size:2 111 1 00 opc:2 0 imm9:9 11 Rn:5 Rt:5", static="size opc", where=VECTOR, feature="fp", imm=S9,
     asm=lambda size, opc: f"{_name(size, opc)}, [{{Rn}}, {{imm}}]!")
def LDR_v_pre(cpu: Lifter, size: int, opc: int, imm: Imm, Rn: XSP, Rt: V) -> None:
    """LDR, STR (SIMD&FP) pre-indexed."""
    address = Rn.read() + imm.read()
    transfer_vector(cpu, vector_size(size, opc), opc & 1, address, Rt)
    Rn.write(64, address)


@a64("size:2 111 1 00 opc:2 1 Rm:5 option:3 S 10 Rn:5 Rt:5", static="size opc option S", feature="fp",
     where=f"({VECTOR}) and option & 2",
     asm=lambda size, opc, option, S: (
         f"{_name(size, opc)}, [{{Rn}}, {{Rm:{'wx'[option & 1]}}}, "
         f"{EXTENDS[option]} #{S * vector_size(size, opc)}]"))
def LDR_v_reg(cpu: Lifter, size: int, opc: int, option: int, S: int, Rm: X, Rn: XSP, Rt: V) -> None:
    """LDR, STR (register, SIMD&FP)."""
    log2 = vector_size(size, opc)
    offset = extended(Rm, option, 64)
    transfer_vector(cpu, log2, opc & 1, Rn.read() + (offset << log2 if S and log2 else offset), Rt)


@a64("opc:2 011 1 00 imm19:19 Rt:5", static="opc", where="opc < 3", feature="fp",
     asm=lambda opc: f"ldr {{Rt:{'sdq'[opc]}}}, {{label:x}}", label=Imm("imm19", signed=True, shift=2, pc=PC_BASE))
def LDR_v_lit(cpu: Lifter, opc: int, label: Imm, Rt: V) -> None:
    """LDR (literal, SIMD&FP)."""
    transfer_vector(cpu, 2 + opc, 1, label.read(), Rt)
