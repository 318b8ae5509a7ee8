"""Branches and exception generation (DDI 0487, C4.1 'Branches, Exception Generating and System instructions').

HLT, HVC, SMC and DCPSn are UNDEFINED for user programs, as is UDF: no rows.
"""

from __future__ import annotations

from dbt.engine.layout import EXIT_BREAKPOINT, EXIT_SYSCALL
from dbt.ir.builder import Place

from . import state
from .data_register import CONDITION_NAMES
from .lifter import Lifter, datasize
from .operands import Imm, Rel, X, a64


@a64("op 00101 imm26:26", static="op", asm=lambda op: f"{('b', 'bl')[op]} {{target}}", target=Rel("imm26"))
def B(cpu: Lifter, op: int, target: Rel) -> None:
    """B, BL."""
    if op:
        cpu.put(Place(None, state.LR), cpu.npc())
    cpu.goto()


@a64("0101010 0 imm19:19 0 cond:4", static="cond", asm=lambda cond: f"b.{CONDITION_NAMES[cond]} {{target}}",
     target=Rel("imm19"))
def B_cond(cpu: Lifter, cond: int, target: Rel) -> None:
    """B.cond."""
    condition = cpu.condition(cond)
    if condition is None:
        cpu.goto()
    else:
        cpu.goto_if(condition)


@a64("sf 011010 op imm19:19 Rt:5", static="sf op", asm=lambda op: f"cb{'n' * op}z {{Rt}}, {{target}}",
     target=Rel("imm19"))
def CBZ(cpu: Lifter, sf: int, op: int, target: Rel, Rt: X) -> None:
    """CBZ, CBNZ."""
    value = Rt.read(datasize(sf))
    cpu.goto_if(value.ne(0) if op else value.eq(0))


@a64("b5 011011 op b40:5 imm14:14 Rt:5", static="op",
     asm=lambda b5, op: f"tb{'n' * op}z {{Rt:{'wx'[b5]}}}, {{bit}}, {{target}}",
     bit=Imm("b5 b40"), target=Rel("imm14"))
def TBZ(cpu: Lifter, op: int, bit: Imm, target: Rel, Rt: X) -> None:
    """TBZ, TBNZ."""
    value = Rt.read().lshr(bit.read()) & 1
    cpu.goto_if(value.ne(0) if op else value.eq(0))


@a64("1101011 0 0 opc:2 11111 000000 Rn:5 00000", static="opc", where="opc < 3",
     asm=lambda opc: f"{('br', 'blr', 'ret')[opc]} {{Rn}}")
def BR(cpu: Lifter, opc: int, Rn: X) -> None:
    """BR, BLR, RET."""
    target = Rn.read()
    if opc == 1:
        cpu.put(Place(None, state.LR), cpu.npc())
    cpu.goto_indirect(target, ("jump", "call", "return")[opc])


@a64("11010100 000 imm16:16 000 01", asm="svc {imm16}")
def SVC(cpu: Lifter) -> None:
    """SVC: Linux does not look at the immediate."""
    cpu.exit(EXIT_SYSCALL, pc="next")


@a64("11010100 001 imm16:16 000 00", asm="brk {imm16}")
def BRK(cpu: Lifter, imm16: Imm) -> None:
    """BRK."""
    cpu.exit(EXIT_BREAKPOINT, imm16.read())
