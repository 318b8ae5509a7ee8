"""Exclusives, acquire and release, compare and swap (DDI 0487, C4.1 'Loads and Stores').

All of these check alignment, as an implementation without FEAT_LSE2 does. Compare and swap always orders both ways:
hosts with weaker atomics than that are not served yet, and on x86 there are none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.ir.types import I64, int_type

from .access import GENERAL, SUFFIXES, letter, mnemonic
from .lifter import Lifter
from .operands import XSP, Imm, X, XPair, a64

if TYPE_CHECKING:
    from dbt.ir.builder import Value


def _rt(size: int) -> str:
    return f"{{Rt:{letter(size, 0)}}}"


@a64("size:2 001000 0 1 0 xxxxx o0 xxxxx Rn:5 Rt:5", static="size o0",
     asm=lambda size, o0: f"ld{'a' * o0}xr{SUFFIXES[size]} {_rt(size)}, [{{Rn}}]")
def LDXR(cpu: Lifter, size: int, o0: int, Rn: XSP, Rt: X) -> None:
    """LDXR, LDAXR."""
    address = Rn.read()
    cpu.align_check(address, 1 << size)
    Rt.write(64, cpu.load_exclusive(int_type(8 << size), address, "acquire" if o0 else "relaxed"))


@a64("size:2 001000 0 0 0 Rs:5 o0 xxxxx Rn:5 Rt:5", static="size o0",
     asm=lambda size, o0: f"st{'l' * o0}xr{SUFFIXES[size]} {{Rs:w}}, {_rt(size)}, [{{Rn}}]")
def STXR(cpu: Lifter, size: int, o0: int, Rs: X, Rn: XSP, Rt: X) -> None:
    """STXR, STLXR."""
    address = Rn.read()
    cpu.align_check(address, 1 << size)
    status = cpu.store_exclusive(address, Rt.read(8 << size), "release" if o0 else "relaxed")
    Rs.write(32, status)


@a64("1 sz 001000 0 1 1 xxxxx o0 Rt2:5 Rn:5 Rt:5", static="sz o0",
     asm=lambda sz, o0: f"ld{'a' * o0}xp {{Rt:{'wx'[sz]}}}, {{Rt2:{'wx'[sz]}}}, [{{Rn}}]")
def LDXP(cpu: Lifter, sz: int, o0: int, Rt2: X, Rn: XSP, Rt: X) -> None:
    """LDXP, LDAXP."""
    bits = 32 << sz
    address = Rn.read()
    cpu.align_check(address, bits // 4)
    both = cpu.load_exclusive(int_type(2 * bits), address, "acquire" if o0 else "relaxed")
    Rt.write(64, both.trunc(bits))
    Rt2.write(64, both.lshr(bits).trunc(bits))


@a64("1 sz 001000 0 0 1 Rs:5 o0 Rt2:5 Rn:5 Rt:5", static="sz o0",
     asm=lambda sz, o0: f"st{'l' * o0}xp {{Rs:w}}, {{Rt:{'wx'[sz]}}}, {{Rt2:{'wx'[sz]}}}, [{{Rn}}]")
def STXP(cpu: Lifter, sz: int, o0: int, Rs: X, Rt2: X, Rn: XSP, Rt: X) -> None:
    """STXP, STLXP."""
    bits = 32 << sz
    address = Rn.read()
    cpu.align_check(address, bits // 4)
    status = cpu.store_exclusive(address, joined(Rt.read(bits), Rt2.read(bits)), "release" if o0 else "relaxed")
    Rs.write(32, status)


@a64("size:2 001000 1 1 0 xxxxx o0 xxxxx Rn:5 Rt:5", static="size o0",
     asm=lambda size, o0: f"ld{('la', 'a')[o0]}r{SUFFIXES[size]} {_rt(size)}, [{{Rn}}]")
@a64("size:2 111 0 00 1 0 1 11111 1 100 00 Rn:5 Rt:5", static="size", feature="lrcpc",
     asm=lambda size: f"ldapr{SUFFIXES[size]} {_rt(size)}, [{{Rn}}]")
def LDAR(cpu: Lifter, size: int, Rn: XSP, Rt: X) -> None:
    """LDAR, LDLAR, LDAPR."""
    address = Rn.read()
    cpu.align_check(address, 1 << size)
    Rt.write(64, cpu.load(int_type(8 << size), address, "acquire"))


@a64("size:2 001000 1 0 0 xxxxx o0 xxxxx Rn:5 Rt:5", static="size o0",
     asm=lambda size, o0: f"st{('ll', 'l')[o0]}r{SUFFIXES[size]} {_rt(size)}, [{{Rn}}]")
def STLR(cpu: Lifter, size: int, Rn: XSP, Rt: X) -> None:
    """STLR, STLLR. A fence after the store: no later load may pass it (x86 would let one)."""
    address = Rn.read()
    cpu.align_check(address, 1 << size)
    cpu.store(address, Rt.read(8 << size), "release")
    cpu.fence("full")


@a64("size:2 011001 opc:2 0 imm9:9 00 Rn:5 Rt:5", static="size opc", where=GENERAL,
     feature="ilrcpc", imm=Imm("imm9", signed=True),
     asm=lambda size, opc: (
         f"{mnemonic(size, opc, 'apur' if opc else 'lur')} {{Rt:{letter(size, opc)}}}, [{{Rn}}, {{imm}}]"))
def LDAPUR(cpu: Lifter, size: int, opc: int, imm: Imm, Rn: XSP, Rt: X) -> None:
    """LDAPUR, LDAPURS., STLUR."""
    address = Rn.read() + imm.read()
    cpu.align_check(address, 1 << size)
    if opc == 0:
        cpu.store(address, Rt.read(8 << size), "release")
        return
    value = cpu.load(int_type(8 << size), address, "acquire")
    if opc == 1:
        Rt.write(64, value)
    else:
        bits = 64 if opc == 2 else 32
        Rt.write(bits, value.sext(bits))


@a64("size:2 001000 1 L 1 Rs:5 o0 11111 Rn:5 Rt:5", static="size", feature="atomics",
     asm=lambda size, L, o0: (
         f"cas{'a' * L}{'l' * o0}{SUFFIXES[size]} {{Rs:{letter(size, 0)}}}, {_rt(size)}, [{{Rn}}]"))
def CAS(cpu: Lifter, size: int, Rs: X, Rn: XSP, Rt: X) -> None:
    """CAS, CASA, CASL, CASAL."""
    bits = 8 << size
    address = Rn.read()
    cpu.align_check(address, 1 << size)
    Rs.write(64, cpu.cas(address, Rs.read(bits), Rt.read(bits), "acq_rel"))


@a64("0 sz 001000 0 L 1 Rs:4 0 o0 11111 Rn:5 Rt:4 0", static="sz", feature="atomics",
     asm=lambda sz, L, o0: (
         f"casp{'a' * L}{'l' * o0} {{Rs:{'wx'[sz]}}}, {{Rt:{'wx'[sz]}}}, [{{Rn}}]"))
def CASP(cpu: Lifter, sz: int, Rs: XPair, Rn: XSP, Rt: XPair) -> None:
    """CASP, CASPA, CASPL, CASPAL: pairs start at even registers."""
    bits = 32 << sz
    address = Rn.read()
    cpu.align_check(address, bits // 4)
    both = cpu.cas(address, joined(*Rs.read_pair(bits)), joined(*Rt.read_pair(bits)), "acq_rel")
    Rs.write_pair(both.trunc(bits), both.lshr(bits).trunc(bits))


def joined(low: Value, high: Value) -> Value:
    """The two halves as one integer; the first register is at the lower address."""
    if low.type is I64:
        return low.zext(128) | high.zext(128) << 64
    return low.zext(64) | high.zext(64) << 32
