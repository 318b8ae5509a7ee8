"""Machine code as text for people, by Capstone: the guest's and the host's."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from capstone import CS_ARCH_ARM64, CS_ARCH_X86, CS_MODE_64, CS_MODE_ARM, Cs


class Line(NamedTuple):
    """One instruction."""

    address: int
    code: bytes
    text: str


@cache
def _decoder(machine: str) -> Cs:
    return Cs(CS_ARCH_ARM64, CS_MODE_ARM) if machine == "aarch64" else Cs(CS_ARCH_X86, CS_MODE_64)


def disassemble(machine: str, code: bytes, address: int) -> list[Line]:
    """The instructions of `machine` (aarch64 or x86_64) in `code`; bytes that are none stand as `.byte`."""
    lines: list[Line] = []
    at = 0
    while at < len(code):
        for i in _decoder(machine).disasm(code[at:], address + at):
            lines.append(Line(i.address, bytes(i.bytes), f"{i.mnemonic} {i.op_str}".strip()))
            at += i.size
        if at < len(code):
            step = min(4 if machine == "aarch64" else 1, len(code) - at)
            lines.append(Line(address + at, code[at : at + step], ".byte " + code[at : at + step].hex(" ")))
            at += step
    return lines
