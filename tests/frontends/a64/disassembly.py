"""Capstone's text and ours, brought to one form, for every row that has an assembly template.

Both are taken apart into the mnemonic and the operands' words. What is left out on both sides: zeros, `lsl`, `uxtx`
(assemblers may omit them). Numbers count modulo 2**32: texts differ in how they show the sign. Where Capstone prefers
an alias, its registers must be among ours.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import capstone
from dbt.frontends.text import render

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from dbt.frontends.forms import Form
    from dbt.frontends.guest import Guest

PC: Final = 0x40_0000
_WORD: Final = re.compile(r"-?(?:0x[0-9a-f]+|\d+(?![\w.]))|[a-z][\w.]*")
_NUMBER: Final = re.compile(r"-?(?:0x[0-9a-f]+|\d+)")
_REGISTER: Final = re.compile(r"[wxbhsdqv]\d+|[wx]?sp|[wx]zr")
_OMITTED: Final = {0, "lsl", "uxtx"}
# The mnemonics that Capstone shows instead of ours.
ALIASES: Final = {
    "add": "mov", "adds": "cmn", "sub": "neg", "subs": "cmp negs", "ands": "tst", "and": "tst", "orr": "mov",
    "orn": "mvn mov", "movz": "mov", "movn": "mov", "sbfm": "sxtb sxth sxtw asr sbfiz sbfx",
    "ubfm": "uxtb uxth lsl lsr ubfiz ubfx", "bfm": "bfi bfxil bfc", "extr": "ror", "madd": "mul", "msub": "mneg",
    "smaddl": "smull", "umaddl": "umull", "smsubl": "smnegl", "umsubl": "umnegl", "csinc": "cset cinc",
    "csinv": "csetm cinv", "csneg": "cneg", "sbc": "ngc", "sbcs": "ngcs", "ins": "mov", "umov": "mov", "dup": "mov",
    "not": "mvn", "dsb": "ssbb pssbb dfb",
    "hint": "nop yield wfe wfi sev sevl esb psb tsb csdb bti dgh clearbhb chkfeat stshh xpaclri "
    "pacia1716 pacib1716 autia1716 autib1716 paciaz paciasp pacibz pacibsp autiaz autiasp autibz autibsp",
}  # fmt: skip


class Disassembler:
    """Compares texts."""

    def __init__(self) -> None:
        self._capstone = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)

    def text(self, word: int) -> str:
        """Capstone's; empty if it does not know the word."""
        for instruction in self._capstone.disasm(word.to_bytes(4, "little"), PC):
            return f"{instruction.mnemonic} {instruction.op_str}".strip()
        return ""

    def difference(self, form: Form, word: int) -> str:
        """What the two texts do not agree on; empty: nothing."""
        theirs = self.text(word)
        if not theirs:
            # CONSTRAINED UNPREDICTABLE if registers coincide; Capstone refuses those
            return "Capstone does not know it" if distinct_registers(form, word) else ""
        ours = render(form, word, PC)
        if not ours:
            return ""
        mnemonic, operands = parse(ours)
        their_mnemonic, their_operands = parse(theirs)
        if mnemonic == their_mnemonic:
            if " ," in theirs:  # a prefetch without a name: Capstone prints nothing
                return ""
            return "" if operands == their_operands else f"{ours} != {theirs}"
        if store_alias(mnemonic) == their_mnemonic or their_mnemonic in ALIASES.get(mnemonic, "").split():
            return "" if registers(their_operands) <= registers(operands) else f"{ours} !~ {theirs}"
        return f"{ours} != {theirs}"


def parse(text: str) -> tuple[str, list[str | int]]:
    """The mnemonic and the operands' words."""
    mnemonic, _, rest = text.lower().partition(" ")
    words: list[str | int] = []
    for word in _WORD.findall(rest):
        value = int(word, 0) & 0xFFFF_FFFF if _NUMBER.fullmatch(word) else word
        if value not in _OMITTED:
            words.append(value)
    return mnemonic, words


def registers(words: list[str | int]) -> set[str]:
    """The registers among words, without their arrangement."""
    found = {word.partition(".")[0] for word in words if isinstance(word, str) and _REGISTER.match(word)}
    return {"x" + name[1:] if name[0] == "w" else name for name in found}


def distinct_registers(form: Form, word: int) -> bool:
    """Whether all fields of five bits differ."""
    numbers = [word >> low & 31 for low, width in form.row.pattern.fields.values() if width == 5]
    return len(set(numbers)) == len(numbers)


def store_alias(mnemonic: str) -> str:
    """LDADD and the like are STADD where the result goes nowhere."""
    return "st" + mnemonic[2:] if mnemonic.startswith("ld") else ""


def words_of(guest: Guest, form: Form, random: Random, count: int) -> Iterator[int]:
    """Random words that decode to the form. Bits that do not matter are ones, as the manual wants most of them."""
    fixed, open_bits = form.mask, (1 << 32) - 1
    for position, width in form.row.pattern.fields.values():
        open_bits &= ~(((1 << width) - 1) << position)
    open_bits &= ~fixed
    for _ in range(count):
        for _attempt in range(20):
            word = form.value | random.getrandbits(32) & ~fixed | open_bits
            if guest.tables.decode(word).form is form:
                yield word
                break
