"""Data processing with one, two and three sources (DDI 0487, C4.1 'Data Processing -- Register')."""

from __future__ import annotations

from typing import Final

from dbt.ir.types import I64

from .data_register import shifted
from .lifter import Lifter, datasize
from .operands import X, a64

BYTES_OF_HALVES: Final = 0x00FF_00FF_00FF_00FF


@a64("sf 1 0 11010110 00000 000000 Rn:5 Rd:5", static="sf", asm="rbit {Rd}, {Rn}")
def RBIT(cpu: Lifter, sf: int, Rn: X, Rd: X) -> None:
    """RBIT."""
    n = datasize(sf)
    Rd.write(n, Rn.read(n).bitreverse())


@a64("sf 1 0 11010110 00000 0000 opc:2 Rn:5 Rd:5", static="sf opc", where="1 <= opc <= 2 + sf",
     asm=lambda sf, opc: f"{('', 'rev16', 'rev32' if sf else 'rev', 'rev')[opc]} {{Rd}}, {{Rn}}")
def REV(cpu: Lifter, sf: int, opc: int, Rn: X, Rd: X) -> None:
    """REV16, REV32, REV: bytes reversed in groups of 1 << opc."""
    n = datasize(sf)
    value = Rn.read(n)
    if opc == 1:
        Rd.write(n, (value & BYTES_OF_HALVES) << 8 | value.lshr(8) & BYTES_OF_HALVES)
    else:
        swapped = value.bswap()
        Rd.write(n, swapped.rotr(32) if sf and opc == 2 else swapped)


@a64("sf 1 0 11010110 00000 00010 op Rn:5 Rd:5", static="sf op", asm=lambda op: f"cl{'zs'[op]} {{Rd}}, {{Rn}}")
def CLZ(cpu: Lifter, sf: int, op: int, Rn: X, Rd: X) -> None:
    """CLZ, CLS."""
    n = datasize(sf)
    value = Rn.read(n)
    Rd.write(n, (value ^ value.ashr(1)).clz() - 1 if op else value.clz())


@a64("sf 0 0 11010110 Rm:5 00001 s Rn:5 Rd:5", static="sf s", asm=lambda s: f"{'us'[s]}div {{Rd}}, {{Rn}}, {{Rm}}")
def UDIV(cpu: Lifter, sf: int, s: int, Rm: X, Rn: X, Rd: X) -> None:
    """UDIV, SDIV."""
    n = datasize(sf)
    a, b = Rn.read(n), Rm.read(n)
    Rd.write(n, a.sdiv(b) if s else a.udiv(b))


@a64("sf 0 0 11010110 Rm:5 0010 op2:2 Rn:5 Rd:5", static="sf op2",
     asm=lambda op2: f"{('lsl', 'lsr', 'asr', 'ror')[op2]} {{Rd}}, {{Rn}}, {{Rm}}")
def LSLV(cpu: Lifter, sf: int, op2: int, Rm: X, Rn: X, Rd: X) -> None:
    """LSLV, LSRV, ASRV, RORV: the amount is taken modulo the width."""
    n = datasize(sf)
    Rd.write(n, shifted(Rn.read(n), op2, Rm.read(n)))


@a64("sf 0 0 11010110 Rm:5 010 C sz:2 Rn:5 Rd:5", static="sf C sz", where="sf == (sz == 3)", feature="crc32",
     asm=lambda C, sz: f"crc32{'c' * C}{'bhwx'[sz]} {{Rd:w}}, {{Rn:w}}, {{Rm}}")
def CRC32(cpu: Lifter, C: int, sz: int, Rm: X, Rn: X, Rd: X) -> None:
    """CRC32B to CRC32X, CRC32CB to CRC32CX."""
    value = Rm.read(8 << sz).zext(64)
    name = "crc32c" if C else "crc32"
    result = cpu.helper(name, Rn.read(32).zext(64), value, cpu.const(I64, 1 << sz), result=I64, effects="pure")
    assert result is not None
    Rd.write(64, result)


@a64("sf 00 11011 000 Rm:5 o0 Ra:5 Rn:5 Rd:5", static="sf o0",
     asm=lambda o0: f"m{('add', 'sub')[o0]} {{Rd}}, {{Rn}}, {{Rm}}, {{Ra}}")
def MADD(cpu: Lifter, sf: int, o0: int, Rm: X, Ra: X, Rn: X, Rd: X) -> None:
    """MADD, MSUB."""
    n = datasize(sf)
    product = Rn.read(n) * Rm.read(n)
    Rd.write(n, Ra.read(n) - product if o0 else Ra.read(n) + product)


@a64("sf 00 11011 000 Rm:5 0 11111 Rn:5 Rd:5", static="sf",
     asm=lambda sf: f"madd {{Rd}}, {{Rn}}, {{Rm}}, {'wx'[sf]}zr")
def MUL(cpu: Lifter, sf: int, Rm: X, Rn: X, Rd: X) -> None:
    """MUL: MADD to the zero register."""
    n = datasize(sf)
    Rd.write(n, Rn.read(n) * Rm.read(n))


@a64("1 00 11011 U 01 Rm:5 o0 Ra:5 Rn:5 Rd:5", static="U o0",
     asm=lambda U, o0: f"{'su'[U]}m{('add', 'sub')[o0]}l {{Rd}}, {{Rn:w}}, {{Rm:w}}, {{Ra}}")
def SMADDL(cpu: Lifter, U: int, o0: int, Rm: X, Ra: X, Rn: X, Rd: X) -> None:
    """SMADDL, SMSUBL, UMADDL, UMSUBL."""
    a, b = Rn.read(32), Rm.read(32)
    product = a.zext(64) * b.zext(64) if U else a.sext(64) * b.sext(64)
    Rd.write(64, Ra.read() - product if o0 else Ra.read() + product)


@a64("1 00 11011 U 01 Rm:5 0 11111 Rn:5 Rd:5", static="U",
     asm=lambda U: f"{'su'[U]}maddl {{Rd}}, {{Rn:w}}, {{Rm:w}}, xzr")
def SMULL(cpu: Lifter, U: int, Rm: X, Rn: X, Rd: X) -> None:
    """SMULL, UMULL: SMADDL and UMADDL to the zero register."""
    a, b = Rn.read(32), Rm.read(32)
    Rd.write(64, a.zext(64) * b.zext(64) if U else a.sext(64) * b.sext(64))


@a64("1 00 11011 U 10 Rm:5 0 xxxxx Rn:5 Rd:5", static="U", asm=lambda U: f"{'su'[U]}mulh {{Rd}}, {{Rn}}, {{Rm}}")
def SMULH(cpu: Lifter, U: int, Rm: X, Rn: X, Rd: X) -> None:
    """SMULH, UMULH."""
    a, b = Rn.read(), Rm.read()
    Rd.write(64, a.umulh(b) if U else a.smulh(b))
