"""How native types, constants and calling conventions read in LLVM text."""

from __future__ import annotations

from dbt.native.types import BOOL, VOID, Int, i64, u64

CONVENTIONS = {"c": "", "none": "preserve_nonecc ", "code": "preserve_nonecc "}
FLAGS = "~{dirflag},~{fpsr},~{flags}"  # what any inline assembly may change
# preserve_nonecc: where the arguments go; the callee keeps rbp and nothing else.
NONE_ARGUMENTS = ("r12", "r13", "r14", "r15", "rdi", "rsi", "rdx", "rcx", "r8", "r9", "r11")
NONE_REGISTERS = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))


def llvm_type(kind: object) -> str:
    """How LLVM spells a native type."""
    if isinstance(kind, Int):
        return f"i{kind.bits}"
    return "void" if kind is VOID else "ptr"


def literal(kind: object, value: int) -> str:
    """A constant as LLVM prints it."""
    if not isinstance(kind, Int):
        return "null" if value == 0 else f"inttoptr (i64 {i64(value)} to ptr)"
    if kind is BOOL:
        return "true" if value else "false"
    value &= kind.mask
    return str(value - kind.mask - 1 if value >> (kind.bits - 1) else value)


def escape(text: str) -> str:
    """Text between the quotes of LLVM's strings."""
    return "".join(c if c.isprintable() and c not in '"\\' else f"\\{ord(c):02X}" for c in text)


def passed_as(kind: object, convention: str) -> object:
    """The type in which a value crosses a call: preserve_nonecc passes 64 bits in other registers than fewer."""
    return u64 if convention != "c" and isinstance(kind, Int) else kind


def extension(kind: object) -> str:
    """The attribute with which the C convention passes a bool."""
    return " zeroext" if kind is BOOL else ""
