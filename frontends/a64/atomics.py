"""Atomic memory operations (DDI 0487, C4.1 'Atomic memory operations', FEAT_LSE).

Acquire and release make no forms of their own: all order both ways, which costs nothing on x86.
"""

from __future__ import annotations

from typing import Final

from .access import SUFFIXES, letter
from .lifter import Lifter
from .operands import XSP, X, a64

NAMES: Final = ("add", "clr", "eor", "set", "smax", "smin", "umax", "umin")
OPS: Final = ("add", "and", "xor", "or", "smax", "smin", "umax", "umin")


def _asm(name: str, size: int, A: int, R: int) -> str:
    return f"{name}{'a' * A}{'l' * R}{SUFFIXES[size]} {{Rs:{letter(size, 0)}}}, {{Rt:{letter(size, 0)}}}, [{{Rn}}]"


@a64("size:2 111 0 00 A R 1 Rs:5 0 opc:3 00 Rn:5 Rt:5", static="size opc", feature="atomics",
     asm=lambda size, opc, A, R: _asm(f"ld{NAMES[opc]}", size, A, R))
def LDADD(cpu: Lifter, size: int, opc: int, Rs: X, Rn: XSP, Rt: X) -> None:
    """LDADD, LDCLR, LDEOR, LDSET, LDSMAX, LDSMIN, LDUMAX, LDUMIN, and the same as STADD and so on."""
    address = Rn.read()
    value = Rs.read(8 << size)
    cpu.align_check(address, 1 << size)
    Rt.write(64, cpu.rmw(OPS[opc], address, ~value if opc == 1 else value, "acq_rel"))


@a64("size:2 111 0 00 A R 1 Rs:5 1 000 00 Rn:5 Rt:5", static="size", feature="atomics",
     asm=lambda size, A, R: _asm("swp", size, A, R))
def SWP(cpu: Lifter, size: int, Rs: X, Rn: XSP, Rt: X) -> None:
    """SWP."""
    address = Rn.read()
    cpu.align_check(address, 1 << size)
    Rt.write(64, cpu.rmw("xchg", address, Rs.read(8 << size), "acq_rel"))
