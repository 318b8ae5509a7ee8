"""What is known of instruction words: displacements, where indirect jumps may go, whether Unicorn is a judge."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from tests.differential.case import Case
from tests.differential.exceptions import FLAG_FORMATS, IGNORED, NOT_COMPARED, skip
from tests.differential.generate import MEMORY_OPS

if TYPE_CHECKING:
    from dbt.frontends.forms import Form

# Words with a displacement that is counted in words: (mask, value, lowest bit, width).
_BRANCHES: Final = (
    (0x7C000000, 0x14000000, 0, 26),  # b, bl
    (0xFF000010, 0x54000000, 5, 19),  # b.cond
    (0x7E000000, 0x34000000, 5, 19),  # cbz, cbnz
    (0x7E000000, 0x36000000, 5, 14),  # tbz, tbnz
    (0x3B000000, 0x18000000, 5, 19),  # literals
    (0x9F000000, 0x10000000, 5, 19),  # adr, of whole words
)


def displacement(word: int) -> int | None:
    """How many words from itself a word leads to; None if it leads nowhere."""
    for mask, value, low, width in _BRANCHES:
        if word & mask == value:
            found = word >> low & (1 << width) - 1
            return found - (found >> width - 1 << width)
    return None


def retarget(word: int, words: int) -> int:
    """The word with another displacement."""
    for mask, value, low, width in _BRANCHES:
        if word & mask == value:
            field = (1 << width) - 1
            return word & ~(field << low) | (words & field) << low
    raise ValueError(f"{word:#x} has no displacement")


def jumped(case: Case) -> list[int]:
    """Where indirect jumps of a program may go: what it takes the address of, and behind its calls."""
    found = []
    for at, word in enumerate(case.words):
        if word & 0x9F000000 == 0x10000000:  # adr
            found.append(case.code_address + 4 * (at + (displacement(word) or 0)))
        elif word & 0xFC000000 == 0x94000000 or word & 0xFFFFFC1F == 0xD63F0000:  # bl, blr
            found.append(case.code_address + 4 * (at + 1))
    return sorted(set(found))


@cache
def names_of(form: Form) -> frozenset[str]:
    """The operations of a form's template."""
    return frozenset(op.name for op in form.template.ops)


@cache
def _by_word(form: Form) -> bool:
    """Whether it depends on the operands if Unicorn is a judge."""
    return bool(names_of(form) & MEMORY_OPS) or form.group in (*FLAG_FORMATS, "HINT")


@cache
def _by_form(form: Form) -> bool:
    return form.group in IGNORED or form.group in NOT_COMPARED


def foreign(form: Form, word: int) -> bool:
    """Whether Unicorn is no judge of a word."""
    return _by_form(form) or (_by_word(form) and bool(skip(form, Case((word,), {}))))
