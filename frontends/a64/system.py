"""System instructions and registers (DDI 0487, C4.1 'Branches, Exception Generating and System instructions').

Only what user programs may use. Registers that are not listed are UNDEFINED.
"""

from __future__ import annotations

from typing import Final

from dbt.engine.layout import EXIT_ICACHE, EXIT_UNIMPLEMENTED
from dbt.ir.builder import Place
from dbt.ir.types import I64, vector

from . import state
from .lifter import Lifter
from .operands import X, a64

FPCR_MODES: Final = 3 << 22 | 1 << 25  # RMode and DN: what may be set
FPCR_UNIMPLEMENTED: Final = 1 << 24 | 1 << 26  # FZ and AHP; all other bits are RES0: their features are absent
FPSR_BITS: Final = 0xF800_009F  # AArch32's NZCV, QC, IDC, IXC, UFC, OFC, DZC, IOC
CTR: Final = 0x8444_C004  # lines of 64 bytes, instruction caches PIPT
DCZID: Final = 4  # DC ZVA zeroes 1 << 4 words
COUNTER_HZ: Final = 1_000_000_000  # helper_cntvct counts nanoseconds
BARRIERS: Final = ("full", "load", "store", "full")
BARRIER_NAMES: Final = (
    "#0", "oshld", "oshst", "osh", "#4", "nshld", "nshst", "nsh",
    "#8", "ishld", "ishst", "ish", "#12", "ld", "st", "sy",
)  # fmt: skip


@a64("1101010100 0 00 011 0010 CRm:4 op2:3 11111", asm=lambda CRm, op2: f"hint #{8 * CRm + op2}")
def HINT(cpu: Lifter) -> None:
    """NOP, YIELD, WFE, WFI, SEV, SEVL, BTI, pointer authentication of the hint space, and hints yet to come."""


@a64("1101010100 0 00 011 0011 CRm:4 010 11111", asm=lambda CRm: "clrex" if CRm == 15 else "clrex #{CRm}")
def CLREX(cpu: Lifter) -> None:
    """CLREX."""
    cpu.clear_exclusive()


@a64("1101010100 0 00 011 0011 domain:2 types:2 10 op 11111", static="types op",
     asm=lambda op, domain, types: f"{('dsb', 'dmb')[op]} {BARRIER_NAMES[4 * domain + types]}")
def DMB(cpu: Lifter, types: int) -> None:
    """DSB, DMB, SSBB, PSSBB."""
    cpu.fence(BARRIERS[types])


@a64("1101010100 0 00 011 0011 CRm:4 110 11111", asm=lambda CRm: "isb" if CRm == 15 else "isb #{CRm}")
@a64("1101010100 0 00 011 0011 0000 111 11111", asm="sb", feature="sb")
def ISB(cpu: Lifter) -> None:
    """ISB, SB: translated code is renewed by IC IVAU already."""
    cpu.fence("full")


@a64("1101010100 0 00 000 0100 0000 000 11111", asm="cfinv", feature="flagm")
def CFINV(cpu: Lifter) -> None:
    """CFINV: the carry inverted."""
    cpu.set_nzcv(cpu.nzcv() ^ 1 << 29)


@a64("1101010100 0 00 000 0100 0000 001 11111", asm="xaflag", feature="flagm2")
def XAFLAG(cpu: Lifter) -> None:
    """XAFLAG: flags of a comparison in the other format to Arm's."""
    flags = cpu.nzcv()
    z, c = flags.lshr(30) & 1, flags.lshr(29) & 1
    negative = (c | z) ^ 1
    cpu.set_nzcv(negative << 31 | (z & c) << 30 | (c | z) << 29 | (z & (c ^ 1)) << 28)


@a64("1101010100 0 00 000 0100 0000 010 11111", asm="axflag", feature="flagm2")
def AXFLAG(cpu: Lifter) -> None:
    """AXFLAG: flags of Arm's comparison to the other format."""
    flags = cpu.nzcv()
    z, c, v = flags.lshr(30) & 1, flags.lshr(29) & 1, flags.lshr(28) & 1
    cpu.set_nzcv((z | v) << 30 | (c & (v ^ 1)) << 29)


@a64("1101010100 0 01 011 0111 0100 001 Rt:5", asm="dc zva, {Rt}")
def DC_ZVA(cpu: Lifter, Rt: X) -> None:
    """DC ZVA: zeroes a line."""
    address = Rt.read() & -(4 << DCZID)
    zero = cpu.const(vector(I64, 2), 0)
    for offset in range(0, 4 << DCZID, 16):
        cpu.store(address + offset if offset else address, zero)


@a64("1101010100 0 01 011 0111 1010 001 Rt:5", asm="dc cvac, {Rt}", Rt=X("Rt"))
@a64("1101010100 0 01 011 0111 1011 001 Rt:5", asm="dc cvau, {Rt}", Rt=X("Rt"))
@a64("1101010100 0 01 011 0111 1110 001 Rt:5", asm="dc civac, {Rt}", Rt=X("Rt"))
def DC(cpu: Lifter) -> None:
    """DC CVAC, CVAU, CIVAC: data caches are coherent."""


@a64("1101010100 0 01 011 0111 0101 001 Rt:5", asm="ic ivau, {Rt}")
def IC_IVAU(cpu: Lifter, Rt: X) -> None:
    """IC IVAU: translations of that line are thrown away."""
    cpu.exit(EXIT_ICACHE, Rt.read(), pc="next")


@a64("1101010100 1 11 011 0100 0010 000 Rt:5", asm="mrs {Rt}, nzcv")
def MRS_NZCV(cpu: Lifter, Rt: X) -> None:
    """MRS NZCV."""
    Rt.write(64, cpu.nzcv())


@a64("1101010100 0 11 011 0100 0010 000 Rt:5", asm="msr nzcv, {Rt}")
def MSR_NZCV(cpu: Lifter, Rt: X) -> None:
    """MSR NZCV."""
    cpu.set_nzcv(Rt.read())


@a64("1101010100 1 11 011 0100 0100 000 Rt:5", asm="mrs {Rt}, fpcr")
def MRS_FPCR(cpu: Lifter, Rt: X) -> None:
    """MRS FPCR."""
    Rt.write(64, cpu.fpcr())


@a64("1101010100 0 11 011 0100 0100 000 Rt:5", asm="msr fpcr, {Rt}")
def MSR_FPCR(cpu: Lifter, Rt: X) -> None:
    """MSR FPCR."""
    value = Rt.read()
    cpu.exit_if((value & FPCR_UNIMPLEMENTED).ne(0), EXIT_UNIMPLEMENTED, value)
    cpu.set_fpcr(value & FPCR_MODES)


@a64("1101010100 1 11 011 0100 0100 001 Rt:5", asm="mrs {Rt}, fpsr")
def MRS_FPSR(cpu: Lifter, Rt: X) -> None:
    """MRS FPSR."""
    Rt.write(64, cpu.fpsr())


@a64("1101010100 0 11 011 0100 0100 001 Rt:5", asm="msr fpsr, {Rt}")
def MSR_FPSR(cpu: Lifter, Rt: X) -> None:
    """MSR FPSR."""
    cpu.set_fpsr(Rt.read() & FPSR_BITS)


@a64("1101010100 1 11 011 1101 0000 010 Rt:5", asm="mrs {Rt}, tpidr_el0", offset=state.TPIDR_EL0)
@a64("1101010100 1 11 011 1101 0000 011 Rt:5", asm="mrs {Rt}, tpidrro_el0", offset=state.TPIDRRO_EL0)
def MRS_TPIDR(cpu: Lifter, offset: int, Rt: X) -> None:
    """MRS TPIDR_EL0, TPIDRRO_EL0."""
    Rt.write(64, cpu.get(I64, Place(None, offset)))


@a64("1101010100 0 11 011 1101 0000 010 Rt:5", asm="msr tpidr_el0, {Rt}")
def MSR_TPIDR(cpu: Lifter, Rt: X) -> None:
    """MSR TPIDR_EL0."""
    cpu.put(Place(None, state.TPIDR_EL0), Rt.read())


@a64("1101010100 1 11 011 0000 0000 001 Rt:5", asm="mrs {Rt}, ctr_el0", value=CTR)
@a64("1101010100 1 11 011 0000 0000 111 Rt:5", asm="mrs {Rt}, dczid_el0", value=DCZID)
@a64("1101010100 1 11 011 1110 0000 000 Rt:5", asm="mrs {Rt}, cntfrq_el0", value=COUNTER_HZ)
def MRS_CONSTANT(cpu: Lifter, value: int, Rt: X) -> None:
    """MRS CTR_EL0, DCZID_EL0, CNTFRQ_EL0."""
    Rt.write(64, cpu.const(I64, value))


@a64("1101010100 1 11 011 1110 0000 010 Rt:5", asm="mrs {Rt}, cntvct_el0")
def MRS_CNTVCT(cpu: Lifter, Rt: X) -> None:
    """MRS CNTVCT_EL0."""
    count = cpu.helper("cntvct", result=I64, effects="reads")
    assert count is not None
    Rt.write(64, count)
