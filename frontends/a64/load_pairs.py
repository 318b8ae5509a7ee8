"""Loads and stores of register pairs (DDI 0487, C4.1 'Loads and Stores').

CONSTRAINED UNPREDICTABLE, as QEMU does it: of two equal destinations the first register's value stays (general) or the
second's (SIMD&FP); a base that is also a destination holds the address in the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.ir.types import int_type

from .access import vector_type
from .lifter import Lifter
from .operands import XSP, Imm, V, X, a64

if TYPE_CHECKING:
    from dbt.ir.builder import Value

POST, OFFSET, PRE = 1, 2, 3  # the field `mode`; 0: offset, non-temporal


def _address(mode: int) -> str:
    return "[{Rn}], {imm}" if mode == POST else "[{Rn}, {imm}]" + "!" * (mode == PRE)


def _addresses(mode: int, Rn: XSP, imm: Imm) -> tuple[Value, Value | None]:
    """Where to access, and what to write back."""
    base = Rn.read()
    if mode == POST:
        return base, base + imm.read()
    address = base + imm.read()
    return address, address if mode == PRE else None


@a64("opc:2 101 0 0 mode:2 L imm7:7 Rt2:5 Rn:5 Rt:5", static="opc mode L",
     where="opc in (0, 2) or (opc == 1 and L == 1 and mode)",
     asm=lambda opc, mode, L: (
         f"{('st', 'ld')[L]}{'p' if mode else 'np'}{'sw' * (opc == 1)} {{Rt:{'wxx'[opc]}}}, {{Rt2:{'wxx'[opc]}}}, "
         f"{_address(mode)}"),
     imm=lambda opc: Imm("imm7", signed=True, shift=3 if opc == 2 else 2))
def LDP(cpu: Lifter, opc: int, mode: int, L: int, imm: Imm, Rt2: X, Rn: XSP, Rt: X) -> None:
    """LDP, STP, LDPSW, LDNP, STNP."""
    bits = 64 if opc == 2 else 32
    address, back = _addresses(mode, Rn, imm)
    if L:
        first = cpu.load(int_type(bits), address)
        second = cpu.load(int_type(bits), address + bits // 8)
        Rt2.write(64, second.sext(64) if opc == 1 else second)
        Rt.write(64, first.sext(64) if opc == 1 else first)
    else:
        first, second = Rt.read(bits), Rt2.read(bits)
        cpu.store(address, first)
        cpu.store(address + bits // 8, second)
    if back is not None:
        Rn.write(64, back)


@a64("opc:2 101 1 0 mode:2 L imm7:7 Rt2:5 Rn:5 Rt:5", static="opc mode L", where="opc < 3", feature="fp",
     asm=lambda opc, mode, L: (
         f"{('st', 'ld')[L]}{'p' if mode else 'np'} {{Rt:{'sdq'[opc]}}}, {{Rt2:{'sdq'[opc]}}}, {_address(mode)}"),
     imm=lambda opc: Imm("imm7", signed=True, shift=2 + opc))
def LDP_v(cpu: Lifter, opc: int, mode: int, L: int, imm: Imm, Rt2: V, Rn: XSP, Rt: V) -> None:
    """LDP, STP, LDNP, STNP (SIMD&FP)."""
    size = 4 << opc
    address, back = _addresses(mode, Rn, imm)
    if L:
        type_ = vector_type(2 + opc)
        first = cpu.load(type_, address)
        second = cpu.load(type_, address + size)
        Rt.write(first)
        Rt2.write(second)
    else:
        type_ = int_type(8 * size) if opc < 2 else vector_type(4)
        first, second = Rt.read(type_), Rt2.read(type_)
        cpu.store(address, first)
        cpu.store(address + size, second)
    if back is not None:
        Rn.write(64, back)
