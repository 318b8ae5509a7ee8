"""Conversions between floating-point formats, rounding to integral, and conversions with integers (DDI 0487, C4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.ir.types import int_type

from .fp_common import ROUNDING, SINGLE_DOUBLE, float_of, letter, scalar
from .lifter import datasize
from .operands import V, X

if TYPE_CHECKING:
    from .lifter import Lifter

FRINT: Final = {0: "even", 1: "up", 2: "down", 3: "zero", 4: "away", 6: "dynamic", 7: "dynamic"}
LETTERS: Final = "npmzaaxi"  # of FRINT by its rmode; 5 is unallocated


@scalar("0 0 0 11110 ftype:2 1 0001 opc:2 10000 Rn:5 Rd:5", static="ftype opc",
        where="ftype != 2 and opc != 2 and ftype != opc",
        asm=lambda ftype, opc: f"fcvt {{Rd:{letter(opc)}}}, {{Rn:{letter(ftype)}}}")
def FCVT(cpu: Lifter, ftype: int, opc: int, Rn: V, Rd: V) -> None:
    """FCVT."""
    Rd.write(cpu.fconvert(Rn.read(float_of(ftype)), float_of(opc)))


@scalar("0 0 0 11110 ftype:2 1 001 rmode:3 10000 Rn:5 Rd:5", static="ftype rmode",
        where=f"{SINGLE_DOUBLE} and rmode != 5",
        asm=lambda ftype, rmode: f"frint{LETTERS[rmode]} {{Rd:{letter(ftype)}}}, {{Rn:{letter(ftype)}}}")
def FRINTN(cpu: Lifter, ftype: int, rmode: int, Rn: V, Rd: V) -> None:
    """FRINTN, FRINTP, FRINTM, FRINTZ, FRINTA, FRINTX, FRINTI; only FRINTX reports that its result is inexact."""
    Rd.write(cpu.frint(Rn.read(float_of(ftype)), FRINT[rmode], exact=rmode == 6))


@scalar("sf 0 0 11110 ftype:2 1 rmode:2 00 U 000000 Rn:5 Rd:5", static="sf ftype rmode U", where=SINGLE_DOUBLE, away=0,
        asm=lambda sf, ftype, rmode, U: f"fcvt{LETTERS[rmode]}{'su'[U]} {{Rd:{'wx'[sf]}}}, {{Rn:{letter(ftype)}}}")
@scalar("sf 0 0 11110 ftype:2 1 00 10 U 000000 Rn:5 Rd:5", static="sf ftype U", where=SINGLE_DOUBLE, away=1, rmode=0,
        asm=lambda sf, ftype, U: f"fcvta{'su'[U]} {{Rd:{'wx'[sf]}}}, {{Rn:{letter(ftype)}}}")
def FCVTNS(cpu: Lifter, sf: int, ftype: int, rmode: int, U: int, away: int, Rn: V, Rd: X) -> None:
    """FCVTN, FCVTP, FCVTM, FCVTZ and FCVTA to signed or unsigned."""
    n = datasize(sf)
    rm = "away" if away else ROUNDING[rmode]
    Rd.write(n, cpu.ftoi(Rn.read(float_of(ftype)), int_type(n), signed=not U, rm=rm))


@scalar("sf 0 0 11110 ftype:2 1 00 01 U 000000 Rn:5 Rd:5", static="sf ftype U", where=SINGLE_DOUBLE,
        asm=lambda sf, ftype, U: f"{'su'[U]}cvtf {{Rd:{letter(ftype)}}}, {{Rn:{'wx'[sf]}}}")
def SCVTF(cpu: Lifter, sf: int, ftype: int, U: int, Rn: X, Rd: V) -> None:
    """SCVTF, UCVTF."""
    Rd.write(cpu.itof(Rn.read(datasize(sf)), float_of(ftype), signed=not U))
