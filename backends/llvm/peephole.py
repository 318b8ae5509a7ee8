"""Shorter ends for handlers: LLVM loads the next handler's address into a register and jumps to it then.

It does not fold the two, because with our signature most registers are arguments. Here they become a jump through
memory, which is one operation less for each instruction that the interpreter runs. Bytes that are no longer needed
stay behind the jump, so nothing moves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from capstone import CS_ARCH_X86, CS_GRP_JUMP, CS_MODE_64, Cs
from capstone.x86 import X86_OP_IMM, X86_OP_MEM, X86_OP_REG, X86_REG_RCX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capstone import CsInsn

    from .extract import Stencil

_JUMP_RCX: Final = b"\xff\x21"  # jmp [rcx]
_NOP: Final = b"\x90"
_BETWEEN: Final = 5  # instructions between the load and the jump at most


def shorten(stencil: Stencil) -> Stencil:
    """The same code with such ends folded."""
    decoder = Cs(CS_ARCH_X86, CS_MODE_64)
    decoder.detail = True
    instructions = list(decoder.disasm(stencil.code, 0))
    targets = {i.operands[0].imm for i in instructions if i.group(CS_GRP_JUMP) and i.operands[0].type == X86_OP_IMM}
    patched = {hole.offset for hole in stencil.holes}
    code = bytearray(stencil.code)
    for end, jump in enumerate(instructions):
        if jump.mnemonic != "jmp" or jump.operands[0].type != X86_OP_REG:
            continue
        for start in range(end - 1, max(end - 2 - _BETWEEN, -1), -1):
            load, between = instructions[start], instructions[start + 1 : end]
            first, last = load.address, jump.address + jump.size
            if any(i.address in targets for i in (*between, jump)) or any(first < at < last for at in patched):
                break
            if _is_folded(load, between, jump.operands[0].reg):
                kept = b"".join(bytes(i.bytes) for i in between) + _JUMP_RCX
                code[first:last] = kept.ljust(last - first, _NOP)
                break
    return stencil._replace(code=bytes(code))


def _is_folded(load: CsInsn, between: Sequence[CsInsn], address: int) -> bool:
    """Whether rcx is where `load` has read the jump's address from, once all between have run."""
    if load.mnemonic != "mov" or load.operands[0].type != X86_OP_REG or load.operands[0].reg != address:
        return False
    place = load.operands[1]
    if place.type != X86_OP_MEM or place.mem.index or place.mem.base in (0, address):
        return False
    step, distance, copied = place.mem.base, place.mem.disp, place.mem.base == X86_REG_RCX
    for i in between:
        read, written = i.regs_access()
        if i.mnemonic in ("add", "sub") and i.operands[0].reg == step and i.operands[1].type == X86_OP_IMM:
            distance -= i.operands[1].imm if i.mnemonic == "add" else -i.operands[1].imm
        elif i.mnemonic == "mov" and i.operands[1].type == X86_OP_REG and i.operands[0].type == X86_OP_REG:
            to, origin = (operand.reg for operand in i.operands)
            if to == X86_REG_RCX and origin == step and not distance:
                copied = True
            elif address in (to, origin) or to in (step, X86_REG_RCX):
                return False
        elif i.mnemonic not in ("pop", "vzeroupper") or {address, step, X86_REG_RCX} & {*read, *written}:
            return False
    return copied and not distance
