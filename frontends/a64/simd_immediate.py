"""Advanced SIMD modified immediate. Arm ARM C4.1.96.23; AdvSIMDExpandImm becomes a table of 256 values each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.ir.types import I64, vector

from .operands import Imm, V
from .simd_operands import simd

if TYPE_CHECKING:
    from .lifter import Lifter


_ONES: Final = (1 << 64) - 1


def expanded(op: int, cmode: int, byte: int) -> int:
    """AdvSIMDExpandImm: 64 bits; inverted for MVNI and BIC."""
    kind = cmode >> 1
    if kind < 4:  # 32-bit lanes, shifted by bytes
        value = (byte << (8 * kind)) * 0x1_0000_0001
    elif kind < 6:  # 16-bit lanes
        value = (byte << (8 * (kind & 1))) * 0x0001_0001_0001_0001
    elif kind == 6:  # 32-bit lanes, shifting ones
        value = ((byte << 16 | 0xFFFF) if cmode & 1 else (byte << 8 | 0xFF)) * 0x1_0000_0001
    elif cmode == 14:  # bytes, or a byte for each bit
        return sum(0xFF << (8 * i) for i in range(8) if byte >> i & 1) if op else byte * 0x0101_0101_0101_0101
    else:
        return _double(byte) if op else _single(byte) * 0x1_0000_0001
    return value ^ _ONES if op else value


def _single(byte: int) -> int:
    return (byte >> 7) << 31 | (0x1F if byte & 64 else 0x20) << 25 | (byte & 63) << 19


def _double(byte: int) -> int:
    return (byte >> 7) << 63 | (0xFF if byte & 64 else 0x100) << 54 | (byte & 63) << 48


def immediate(op: int, cmode: int) -> Imm:
    """a:b:c:d:e:f:g:h expanded."""
    return Imm("abc defgh", table=[expanded(op, cmode, byte) for byte in range(256)])


@simd("0 Q op 0111100000 abc:3 cmode:4 01 defgh:5 Rd:5", static="Q op cmode", imm=immediate,
     where="(cmode > 11 or not cmode & 1) and not (cmode == 15 and op and not Q)")  # fmt: skip
def MOVI_v(cpu: Lifter, Q: int, imm: Imm, Rd: V) -> None:
    """MOVI, MVNI, FMOV (vector, immediate)."""
    value = imm.read(64)
    Rd.write(value.splat(2) if Q else value)


@simd("0 Q op 0111100000 abc:3 cmode:4 01 defgh:5 Rd:5", static="Q op cmode", imm=immediate,
     where="cmode < 12 and cmode & 1")  # fmt: skip
def ORR_i(cpu: Lifter, Q: int, op: int, imm: Imm, Rd: V) -> None:
    """ORR, BIC (op) with an immediate."""
    value = imm.read(64).splat(2) if Q else imm.read(64)
    old = Rd.read(vector(I64, 2) if Q else I64)
    Rd.write(old & value if op else old | value)
