"""Checks the machine code of a stencil: at each access to guest memory the guest's state is as before the instruction.

A fault there is answered by taking the flag words out of r12 to r15 and env out of rdi, and the registers out of env
(DESIGN, section 7). So at an access these registers must be untouched, and nothing may have been stored to env before.
Base and mask may be lost: they are in Env. The code of a stencil branches forward only, apart from loops around
compare-and-exchange; states are joined over all ways that lead to an instruction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from capstone import CS_AC_WRITE, CS_ARCH_X86, CS_GRP_CALL, CS_GRP_JUMP, CS_GRP_RET, CS_MODE_64, Cs
from capstone.x86 import X86_OP_IMM, X86_OP_MEM, X86_OP_REG, X86_REG_RIP, X86_REG_RSP

from dbt.engine.layout import Env

from .extract import ExtractError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capstone import CsInsn

    from .extract import Stencil

PINNED: Final = ("r12", "r13", "r14", "r15", "rdi")
BASE: Final = "rsi"
TMP: Final = "rcx"  # what the interpreter's handlers find their record by, and the fault's record is found by
_POINTER: Final = 8  # bytes
_MARK: Final = b"\x48\x8d\x89"  # lea rcx, [rcx + 32 bits]
_MARK_BYTES: Final = 7
_STEP: Final = Env.offset("step")  # no state of the guest
_ALIASES: Final = {
    name: full
    for full, names in (
        *((f"r{n}", (f"r{n}d", f"r{n}w", f"r{n}b")) for n in range(8, 16)),
        *((f"r{x}x", (f"e{x}x", f"{x}x", f"{x}l", f"{x}h")) for x in "abcd"),
        *((f"r{x}", (f"e{x}", x, f"{x}l")) for x in ("si", "di", "bp", "sp")),
    )
    for name in (full, *names)
}


class CheckError(ExtractError):
    """A guest access comes too late, behind a change of state."""


class Mark(NamedTuple):
    """Where another instruction of a superinstruction begins: so much is added to TMP, by an asm that LLVM was given.

    `tied`: the flag words are operands of it, so that they are in their registers behind it.
    """

    distance: int
    tied: bool


class _State:
    """What is known before an instruction: registers that hold env, those that hold something else of the host's."""

    __slots__ = ("clobbered", "env", "host", "stored")

    def __init__(self, host: frozenset[str] = frozenset()) -> None:
        self.env = frozenset({"rdi"})
        self.host = host  # pointers to host structures: the record, or loaded out of env
        self.clobbered: frozenset[str] = frozenset()
        self.stored = False

    def copy(self) -> _State:
        other = _State()
        other.env, other.host, other.clobbered, other.stored = self.env, self.host, self.clobbered, self.stored
        return other

    def join(self, other: _State) -> bool:
        """Make this what holds on both ways; whether that changed it."""
        before = (self.env, self.host, self.clobbered, self.stored)
        self.env &= other.env
        self.host &= other.host
        self.clobbered |= other.clobbered
        self.stored |= other.stored
        return before != (self.env, self.host, self.clobbered, self.stored)


def check(stencil: Stencil, name: str, *, step: bool = False, saved: bool = False, marks: Sequence[Mark] = ()) -> None:
    """Raise CheckError if a fault at some access would find a changed state.

    `step`: this is a handler of the interpreter, with its step in TMP, or also in Env.step if it is `saved`.
    `marks`: in front of what is not the first instruction's, in order.
    """
    pinned = (*PINNED, TMP) if step and not saved else PINNED
    decoder = Cs(CS_ARCH_X86, CS_MODE_64)
    decoder.detail = True
    code = {i.address: i for i in decoder.disasm(stencil.code, 0)}
    patched = {hole.offset for hole in stencil.holes}
    found = [i for i in code.values() if i.bytes[:3] == _MARK and i.size == _MARK_BYTES] if marks else []
    if [i.operands[1].mem.disp for i in found] != [mark.distance for mark in marks]:
        raise CheckError(f"{name}: the marks are not where they were put")
    marked = {i.address: mark for i, mark in zip(found, marks, strict=True)}
    states = {0: _State(frozenset({TMP} if step else ()))}
    waiting = [0]
    while waiting:
        at = waiting.pop()
        instruction = code.get(at)
        if instruction is None:
            continue  # behind the end: the next stencil
        state = states[at].copy()
        if at in marked:
            _begin(state, marked[at])
        else:
            _step(instruction, state, name, pinned)
        for successor in _successors(instruction, patched):
            known = states.get(successor)
            if known is None:
                states[successor] = state.copy()
                waiting.append(successor)
            elif known.join(state):
                waiting.append(successor)


def _begin(state: _State, mark: Mark) -> None:
    """What is stored to env before is the state of the instruction that begins; operands are where asm wants them."""
    state.stored = False
    state.host |= {TMP}
    state.clobbered -= {TMP, *PINNED[:-1]} if mark.tied else {TMP}


def _successors(i: CsInsn, patched: set[int]) -> list[int]:
    behind = i.address + i.size
    if i.group(CS_GRP_RET):
        return []
    if i.group(CS_GRP_JUMP):
        ways = [] if i.mnemonic == "jmp" else [behind]
        if i.operands[0].type == X86_OP_IMM and not any(i.address < p < behind for p in patched):
            ways.append(i.operands[0].imm)
        return ways
    return [behind]


def _full(i: CsInsn, register: int) -> str:
    name = i.reg_name(register) or ""
    return _ALIASES.get(name, name)


def _step(i: CsInsn, state: _State, name: str, pinned: tuple[str, ...]) -> None:
    loads_env = loads_host = False
    if i.mnemonic not in ("lea", "nop", "prefetcht0"):
        for operand in i.operands:
            if operand.type != X86_OP_MEM:
                continue
            base = _full(i, operand.mem.base)
            guest = BASE not in state.clobbered and BASE in (base, _full(i, operand.mem.index))
            if operand.mem.base in (X86_REG_RIP, X86_REG_RSP):
                continue
            if guest:
                _access(i, state, name, pinned)
            elif base in state.env:
                if operand.access & CS_AC_WRITE and (base != "rdi" or operand.mem.disp != _STEP):
                    state.stored = True
                loads_env = True
            elif base in state.host:
                loads_host = True
            else:
                _access(i, state, name, pinned)
    _written(i, state, host=loads_env or loads_host)


def _access(i: CsInsn, state: _State, name: str, pinned: tuple[str, ...]) -> None:
    where = f"{name}: {i.mnemonic} {i.op_str} at {i.address:#x}"
    if state.stored:
        raise CheckError(f"{where}: env is changed before")
    lost = state.clobbered.intersection(pinned)
    if lost:
        raise CheckError(f"{where}: {', '.join(sorted(lost))} changed before")


def _written(i: CsInsn, state: _State, *, host: bool) -> None:
    """Registers that the instruction changes, and what a move makes of its destination."""
    changed = {_full(i, register) for register in i.regs_access()[1]}
    if i.group(CS_GRP_CALL):
        changed |= {"rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11"}
    source, indexed = _source(i)
    from_env, from_host = source in state.env, source in state.host and not indexed
    state.env -= changed
    state.host -= changed
    state.clobbered |= changed
    if i.mnemonic in ("mov", "lea", "add") and i.operands[0].type == X86_OP_REG and i.operands[0].size == _POINTER:
        target = _full(i, i.operands[0].reg)
        if from_env:
            state.env |= {target}
            state.clobbered -= {target} if target == "rdi" and i.mnemonic == "mov" else set()
        elif from_host or (host and i.mnemonic == "mov"):
            state.host |= {target}


def _source(i: CsInsn) -> tuple[str, bool]:
    """The register that a move copies or an address is made from, "" if there is none; whether another is added."""
    if i.mnemonic == "mov" and i.operands[1].type == X86_OP_REG:
        return _full(i, i.operands[1].reg), False
    if i.mnemonic == "add" and i.operands[1].type == X86_OP_IMM and i.operands[0].type == X86_OP_REG:
        return _full(i, i.operands[0].reg), False
    if i.mnemonic == "lea":
        return _full(i, i.operands[1].mem.base), bool(i.operands[1].mem.index)
    return "", False
