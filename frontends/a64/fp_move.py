"""FMOV between general and floating-point registers, and of an immediate (DDI 0487, C4.1)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from dbt.ir.types import I64, int_type

from .fp_common import SINGLE_DOUBLE, letter, scalar
from .lifter import datasize
from .operands import Imm, V, X

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .lifter import Lifter


def expand(imm8: int, bits: int) -> int:
    """VFPExpandImm: the number as bits of f32 or f64."""
    exponent_bits = {32: 8, 64: 11}[bits]
    sign, high, rest = imm8 >> 7, imm8 >> 6 & 1, imm8 & 0x3F
    exponent = (high ^ 1) << (exponent_bits - 3) | ((1 << (exponent_bits - 3)) - 1) * high
    fraction_bits = bits - exponent_bits - 1
    return sign << (bits - 1) | (exponent << 6 | rest) << (fraction_bits - 4)


class FloatImm(Imm):
    """imm8 as the high 16 bits of the number, signed, so that it fits the 32 bits of an immediate in code."""

    __slots__ = ("number_bits",)

    def __init__(self, names: str, bits: int) -> None:
        high = [expand(imm8, bits) >> (bits - 16) for imm8 in range(256)]
        super().__init__(names, table=[value - (value >> 15 << 16) for value in high])
        self.number_bits = bits

    def text(self, value: int, style: str, statics: Mapping[str, int]) -> str:
        """`#0.50000000`."""
        del style, statics
        raw = (value & 0xFFFF) << (self.number_bits - 16)
        code = {32: ("<I", "<f"), 64: ("<Q", "<d")}[self.number_bits]
        return f"#{struct.unpack(code[1], struct.pack(code[0], raw))[0]:.8f}"


@scalar("sf 0 0 11110 0 type 1 00 110 000000 Rn:5 Rd:5", static="sf type", where="sf == type",
        asm=lambda sf: f"fmov {{Rd:{'wx'[sf]}}}, {{Rn:{'sd'[sf]}}}")
def FMOV_to_general(cpu: Lifter, sf: int, Rn: V, Rd: X) -> None:
    """FMOV Wd, Sn and Xd, Dn."""
    n = datasize(sf)
    del cpu
    Rd.write(n, Rn.read(int_type(n)))


@scalar("sf 0 0 11110 0 type 1 00 111 000000 Rn:5 Rd:5", static="sf type", where="sf == type",
        asm=lambda sf: f"fmov {{Rd:{'sd'[sf]}}}, {{Rn:{'wx'[sf]}}}")
def FMOV_from_general(cpu: Lifter, sf: int, Rn: X, Rd: V) -> None:
    """FMOV Sd, Wn and Dd, Xn."""
    del cpu
    Rd.write(Rn.read(datasize(sf)))


@scalar("1 0 0 11110 10 1 01 110 000000 Rn:5 Rd:5", asm="fmov {Rd:x}, {Rn}.d[1]")
def FMOV_high_to_general(cpu: Lifter, Rn: V, Rd: X) -> None:
    """FMOV Xd, Vn.D[1]."""
    del cpu
    Rd.write(64, Rn.read(I64, 8))


@scalar("1 0 0 11110 10 1 01 111 000000 Rn:5 Rd:5", asm="fmov {Rd}.d[1], {Rn:x}")
def FMOV_high_from_general(cpu: Lifter, Rn: X, Rd: V) -> None:
    """FMOV Vd.D[1], Xn."""
    del cpu
    Rd.write_part(Rn.read(64), 8)


@scalar("0 0 0 11110 ftype:2 1 imm8:8 100 00000 Rd:5", static="ftype", where=SINGLE_DOUBLE,
        asm=lambda ftype: f"fmov {{Rd:{letter(ftype)}}}, {{imm}}",
        imm=lambda ftype: FloatImm("imm8", 64 if ftype else 32))
def FMOV_imm(cpu: Lifter, ftype: int, imm: Imm, Rd: V) -> None:
    """FMOV (scalar, immediate)."""
    del cpu
    bits = 64 if ftype else 32
    Rd.write(imm.read(bits) << (bits - 16))
