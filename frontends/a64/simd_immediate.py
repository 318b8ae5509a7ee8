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


def _text(name: str, Q: int, cmode: int) -> str:
    """MOVI, MVNI, ORR and BIC of shifted bytes."""
    halves = 8 <= cmode < 12
    letter = f"{4 << Q}h" if halves else f"{2 << Q}s"
    if cmode < 12:
        return f"{name} {{Rd:{letter}}}, {{byte}}, lsl #{8 * (cmode >> 1 & (1 if halves else 3))}"
    return f"{name} {{Rd:{letter}}}, {{byte}}, msl #{8 << (cmode & 1)}"


def movi_text(Q: int, op: int, cmode: int) -> str:
    """MOVI, MVNI."""
    return f"movi {{Rd:{8 << Q}b}}, {{byte}}" if cmode == 14 else _text("mvni" if op else "movi", Q, cmode)


def orr_text(Q: int, op: int, cmode: int) -> str:
    """ORR, BIC."""
    return _text("bic" if op else "orr", Q, cmode)


BYTE = Imm("abc defgh")


def immediate(op: int, cmode: int) -> Imm:
    """a:b:c:d:e:f:g:h expanded."""
    return Imm("abc defgh", table=[expanded(op, cmode, byte) for byte in range(256)])


@simd("0 Q op 0111100000 abc:3 cmode:4 01 defgh:5 Rd:5", static="Q op cmode", imm=immediate, byte=BYTE, asm=movi_text,
      where="cmode in (0, 2, 4, 6, 8, 10, 12, 13) or cmode == 14 and not op")  # fmt: skip
@simd("0 Q 1 0111100000 abc:3 1110 01 defgh:5 Rd:5", static="Q", imm=immediate(1, 14),
      asm=lambda Q: f"movi {{Rd:{'2d' if Q else 'd'}}}, {{imm}}")  # fmt: skip
@simd("0 Q op 0111100000 abc:3 1111 01 defgh:5 Rd:5", static="Q op", where="Q or not op",
      imm=lambda op: immediate(op, 15))  # fmt: skip
def MOVI_v(cpu: Lifter, Q: int, imm: Imm, Rd: V) -> None:
    """MOVI, MVNI; FMOV (vector, immediate), whose text would need floating-point numbers."""
    value = imm.read(64)
    Rd.write(value.splat(2) if Q else value)


@simd("0 Q op 0111100000 abc:3 cmode:4 01 defgh:5 Rd:5", static="Q op cmode", imm=immediate, byte=BYTE, asm=orr_text,
      where="cmode < 12 and cmode & 1")  # fmt: skip
def ORR_i(cpu: Lifter, Q: int, op: int, imm: Imm, Rd: V) -> None:
    """ORR, BIC (op) with an immediate."""
    value = imm.read(64).splat(2) if Q else imm.read(64)
    old = Rd.read(vector(I64, 2) if Q else I64)
    Rd.write(old & value if op else old | value)
