"""What to say of an instruction that the CPU did not take: the cold path, so Capstone may be asked."""

from __future__ import annotations

from dbt.engine import layout
from dbt.errors import GuestFault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dbt.engine.memory import AddressSpace

WORD = 4


def complaint(memory: AddressSpace, reason: int, pc: int) -> str:
    """A line that names an instruction that we lack, by bytes, address and text; '' if the architecture has none there.

    A program that executes undefined bytes gets its signal and wants no comment.
    """
    try:
        code = memory.read(pc, WORD)
    except GuestFault:
        return ""
    text = _text(code, pc)
    if reason == layout.EXIT_UNDEFINED and (not text or text.startswith("udf")):
        return ""
    what = "uses a mode that is not implemented" if reason == layout.EXIT_UNIMPLEMENTED else "is not implemented"
    return f"the instruction {code.hex(' ')} at {pc:#x} ({text or 'unknown'}) {what}: SIGILL"


def _text(code: bytes, pc: int) -> str:
    try:
        from capstone import CS_ARCH_ARM64, CS_MODE_ARM, Cs
    except ImportError:
        return ""
    for found in Cs(CS_ARCH_ARM64, CS_MODE_ARM).disasm(code, pc):
        return f"{found.mnemonic} {found.op_str}".strip()
    return ""
