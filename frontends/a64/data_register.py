"""Data processing on registers: logic, sums, conditional selection (DDI 0487, C4.1 'Data Processing -- Register')."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.ir.ops import CONDITIONS

from .lifter import Lifter, datasize
from .operands import XSP, General, Imm, X, a64

if TYPE_CHECKING:
    from dbt.ir.builder import Value

LOGIC: Final = (("and", "bic"), ("orr", "orn"), ("eor", "eon"), ("ands", "bics"))
SHIFTS: Final = ("lsl", "lsr", "asr", "ror")
EXTENDS: Final = ("uxtb", "uxth", "uxtw", "uxtx", "sxtb", "sxth", "sxtw", "sxtx")
CONDITION_NAMES: Final = (
    "eq", "ne", "hs", "lo", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le", "al", "nv",
)  # fmt: skip


def shifted(value: Value, shift: int, amount: Value) -> Value:
    """LSL, LSR, ASR or ROR."""
    if shift == 0:
        return value << amount
    return (value.lshr, value.ashr, value.rotr)[shift - 1](amount)


def extended(register: X, option: int, bits: int) -> Value:
    """The low byte, half, word or doubleword, zero- or sign-extended (ExtendReg, without its shift)."""
    value = register.read(min(bits, 8 << (option & 3)))
    return value.sext(bits) if option & 4 else value.zext(bits)


@a64("sf opc:2 01010 00 N Rm:5 000000 Rn:5 Rd:5", static="sf opc N",
     asm=lambda opc, N: f"{LOGIC[opc][N]} {{Rd}}, {{Rn}}, {{Rm}}")
def AND_reg(cpu: Lifter, sf: int, opc: int, N: int, Rm: X, Rn: X, Rd: X) -> None:
    """AND, BIC, ORR, ORN, EOR, EON, ANDS, BICS (register, not shifted)."""
    n = datasize(sf)
    b = Rm.read(n)
    Rd.write(n, cpu.logic(opc, Rn.read(n), ~b if N else b))


@a64("sf 01 01010 00 N Rm:5 000000 11111 Rd:5", static="sf N",
     asm=lambda sf, N: f"{LOGIC[1][N]} {{Rd}}, {'wx'[sf]}zr, {{Rm}}")
def MOV_reg(cpu: Lifter, sf: int, N: int, Rm: X, Rd: X) -> None:
    """MOV, MVN (register): ORR and ORN with the zero register."""
    n = datasize(sf)
    Rd.write(n, ~Rm.read(n) if N else Rm.read(n))


@a64("0 opc:2 01010 shift:2 N Rm:5 0 imm6:5 Rn:5 Rd:5", static="opc shift N", sf=0, amount=Imm("imm6"),
     asm=lambda opc, N, shift: f"{LOGIC[opc][N]} {{Rd}}, {{Rn}}, {{Rm}}, {SHIFTS[shift]} {{amount}}")
@a64("1 opc:2 01010 shift:2 N Rm:5 imm6:6 Rn:5 Rd:5", static="opc shift N", sf=1, amount=Imm("imm6"),
     asm=lambda opc, N, shift: f"{LOGIC[opc][N]} {{Rd}}, {{Rn}}, {{Rm}}, {SHIFTS[shift]} {{amount}}")
def AND_shift(cpu: Lifter, sf: int, opc: int, shift: int, N: int, amount: Imm, Rm: X, Rn: X, Rd: X) -> None:
    """AND, BIC, ORR, ORN, EOR, EON, ANDS, BICS (shifted register)."""
    n = datasize(sf)
    b = shifted(Rm.read(n), shift, amount.read(n))
    Rd.write(n, cpu.logic(opc, Rn.read(n), ~b if N else b))


@a64("sf op S 01011 00 0 Rm:5 000000 Rn:5 Rd:5", static="sf op S",
     asm=lambda op, S: f"{('add', 'sub')[op]}{'s' * S} {{Rd}}, {{Rn}}, {{Rm}}")
def ADD_reg(cpu: Lifter, sf: int, op: int, S: int, Rm: X, Rn: X, Rd: X) -> None:
    """ADD, ADDS, SUB, SUBS (register, not shifted)."""
    n = datasize(sf)
    Rd.write(n, cpu.add_with_flags(Rn.read(n), Rm.read(n), subtract=op, flags=S))


@a64("0 op S 01011 shift:2 0 Rm:5 0 imm6:5 Rn:5 Rd:5", static="op S shift", where="shift < 3", sf=0,
     amount=Imm("imm6"),
     asm=lambda op, S, shift: f"{('add', 'sub')[op]}{'s' * S} {{Rd}}, {{Rn}}, {{Rm}}, {SHIFTS[shift]} {{amount}}")
@a64("1 op S 01011 shift:2 0 Rm:5 imm6:6 Rn:5 Rd:5", static="op S shift", where="shift < 3", sf=1,
     amount=Imm("imm6"),
     asm=lambda op, S, shift: f"{('add', 'sub')[op]}{'s' * S} {{Rd}}, {{Rn}}, {{Rm}}, {SHIFTS[shift]} {{amount}}")
def ADD_shift(cpu: Lifter, sf: int, op: int, S: int, shift: int, amount: Imm, Rm: X, Rn: X, Rd: X) -> None:
    """ADD, ADDS, SUB, SUBS (shifted register)."""
    n = datasize(sf)
    b = shifted(Rm.read(n), shift, amount.read(n))
    Rd.write(n, cpu.add_with_flags(Rn.read(n), b, subtract=op, flags=S))


@a64.undefined("sf op S 01011 00 1 xxxxx option:3 11x xxxxx xxxxx", static="sf op S option")
@a64.undefined("sf op S 01011 00 1 xxxxx option:3 101 xxxxx xxxxx", static="sf op S option")
@a64("sf op S 01011 00 1 Rm:5 option:3 imm3:3 Rn:5 Rd:5", static="sf op S option",
     asm=lambda sf, op, S, option, Rn, Rd: (
         f"{('add', 'sub')[op]}{'s' * S} {{Rd}}, {{Rn}}, {{Rm:{'wx'[sf and option & 3 == 3]}}}, "
         f"{'lsl' if option == 2 + sf and (Rn == 31 or (Rd == 31 and not S)) else EXTENDS[option]} {{imm3}}"),
     Rd=lambda S: X("Rd") if S else XSP("Rd"))
def ADD_ext(cpu: Lifter, sf: int, op: int, S: int, option: int, imm3: Imm, Rm: X, Rn: XSP, Rd: General) -> None:
    """ADD, ADDS, SUB, SUBS (extended register)."""
    n = datasize(sf)
    b = extended(Rm, option, n) << imm3.read(n)
    Rd.write(n, cpu.add_with_flags(Rn.read(n), b, subtract=op, flags=S))


@a64("sf op S 11010000 Rm:5 000000 Rn:5 Rd:5", static="sf op S",
     asm=lambda op, S: f"{('adc', 'sbc')[op]}{'s' * S} {{Rd}}, {{Rn}}, {{Rm}}")
def ADC(cpu: Lifter, sf: int, op: int, S: int, Rm: X, Rn: X, Rd: X) -> None:
    """ADC, ADCS, SBC, SBCS."""
    n = datasize(sf)
    a, b, carry = Rn.read(n), Rm.read(n), cpu.carry()
    result = a + (~b if op else b) + carry.zext(n)
    if S:
        cpu.flags("sbc" if op else "adc", a, b, result, carry)
    Rd.write(n, result)


@a64("sf op 1 11010010 Rm:5 cond:4 00 Rn:5 0 nzcv:4", static="sf op cond",
     asm=lambda op, cond: f"ccm{'np'[op]} {{Rn}}, {{b}}, {{nzcv}}, {CONDITION_NAMES[cond]}", b=X("Rm"))
@a64("sf op 1 11010010 imm5:5 cond:4 10 Rn:5 0 nzcv:4", static="sf op cond",
     asm=lambda op, cond: f"ccm{'np'[op]} {{Rn}}, {{b}}, {{nzcv}}, {CONDITION_NAMES[cond]}", b=Imm("imm5"))
def CCMP(cpu: Lifter, sf: int, op: int, cond: int, b: X | Imm, nzcv: Imm, Rn: X) -> None:
    """CCMN, CCMP."""
    n = datasize(sf)
    x, y = Rn.read(n), b.read(n)
    kind, result = ("sub", x - y) if op else ("add", x + y)
    condition = cpu.condition(cond)
    if condition is None:
        cpu.flags(kind, x, y, result)
    else:
        cpu.flags_if(condition, kind, x, y, result, nzcv.read())


@a64("sf op 0 11010100 Rm:5 cond:4 0 o2 Rn:5 Rd:5", static="sf op o2 cond",
     asm=lambda op, o2, cond: (
         f"cs{('el', 'inc', 'inv', 'neg')[2 * op + o2]} {{Rd}}, {{Rn}}, {{Rm}}, {CONDITION_NAMES[cond]}"))
def CSEL(cpu: Lifter, sf: int, op: int, o2: int, cond: int, Rm: X, Rn: X, Rd: X) -> None:
    """CSEL, CSINC, CSINV, CSNEG."""
    n = datasize(sf)
    condition = cpu.condition(cond)
    if condition is None:
        Rd.write(n, Rn.read(n))
        return
    other = Rm.read(n)
    if op:
        other = ~other
    if o2:
        other = other + 1
    Rd.write(n, condition.select(Rn.read(n), other))


@a64("sf 0 0 11010100 11111 cond:4 0 1 11111 Rd:5", static="sf cond", where="cond < 14",
     asm=lambda sf, cond: f"csinc {{Rd}}, {'wx'[sf]}zr, {'wx'[sf]}zr, {CONDITION_NAMES[cond]}")
def CSET(cpu: Lifter, cond: int, Rd: X) -> None:
    """CSET: CSINC of the zero register."""
    Rd.write(64, cpu.cond(CONDITIONS[cond ^ 1]).zext(64))


@a64("1 01 11010000 imm6:6 00001 Rn:5 0 mask:4", feature="flagm", asm="rmif {Rn:x}, {imm6}, {mask}")
def RMIF(cpu: Lifter, imm6: Imm, mask: Imm, Rn: X) -> None:
    """RMIF: some flags from a rotated register."""
    new = Rn.read().rotr(imm6.read()) << 28
    old, chosen = cpu.nzcv(), mask.read() << 28
    cpu.set_nzcv((new ^ old) & chosen ^ old)


@a64("0 01 11010000 00000 0 sz 0010 Rn:5 0 1101", static="sz", feature="flagm",
     asm=lambda sz: f"setf{8 << sz} {{Rn:w}}")
def SETF(cpu: Lifter, sz: int, Rn: X) -> None:
    """SETF8, SETF16: N, Z and V of a narrow result; C stays."""
    bits = 8 << sz
    value = Rn.read(32)
    narrow = value.trunc(bits)
    negative = narrow.lshr(bits - 1).zext(64) << 31
    zero = narrow.eq(0).zext(64) << 30
    overflow = (value ^ value.lshr(1)).lshr(bits - 1).zext(64) & 1
    carry = cpu.nzcv() & 1 << 29
    cpu.set_nzcv(negative | zero | carry | overflow << 28)
