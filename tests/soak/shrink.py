"""Makes a program that shows a difference small: fewer instructions, plainer operands, less in registers and memory.

Instructions are taken out in pieces that halve (Zeller's delta debugging); displacements of those around are mended.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dbt.frontends.a64.guest import GUEST

from tests.differential.case import CODE, DATA_SIZE
from tests.differential.minimise import minimise

from .programs import displacement, retarget

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.differential.case import Case

    Differs = Callable[[Case], bool]

ROUNDS: Final = 4


def shrink(case: Case, differs: Differs) -> Case:
    """The smaller case, which still `differs`."""
    case = _bulk(case, differs)
    for _ in range(ROUNDS):
        before = case
        case = _fewer(case, differs)
        case = _earlier(case, differs)
        case = _plainer(case, differs)
        if case.words == before.words:
            break
    return minimise(case, differs)


def _bulk(case: Case, differs: Differs) -> Case:
    """All memory, and halves of all registers, in a few steps: it makes what follows faster."""
    empty = replace(case, data=bytes(DATA_SIZE))
    if differs(empty):
        case = empty
    names = list(case.registers)
    size = len(names)
    while size > 4:
        for start in range(0, len(names), size):
            zero = dict.fromkeys(names[start : start + size], 0)
            smaller = replace(case, registers={**case.registers, **zero})
            if any(case.registers[name] for name in zero) and differs(smaller):
                case = smaller
        size //= 2
    return case


def _fewer(case: Case, differs: Differs) -> Case:
    """Without instructions that do not matter."""
    size = len(case.words) // 2 or 1
    while size:
        start = len(case.words) - size
        while start > -size:
            first, end = max(start, 0), start + size
            shorter = without(case, first, end)
            if shorter.words and differs(shorter):
                case = shorter
            start -= size
        size //= 2
    return case


def without(case: Case, start: int, end: int) -> Case:
    """The case without words [start, end). What led there leads to what is behind it."""
    words = case.words
    moved = [at if at < start else max(at - (end - start), start) for at in range(len(words) + 1)]
    kept = []
    for at, word in enumerate(words):
        if start <= at < end:
            continue
        far = displacement(word)
        if far is not None and 0 <= at + far <= len(words):
            kept.append(retarget(word, moved[at + far] - moved[at]))
        else:
            kept.append(word)
    before = case.before - max(0, min(end, case.before) - start)
    return replace(case, words=tuple(kept), before=before, address=case.code_address + 4 * before)


def _earlier(case: Case, differs: Differs) -> Case:
    """At the place where cases are, if it can be there."""
    moved = replace(case, address=CODE + 4 * case.before)
    return moved if moved.address != case.address and differs(moved) else case


def _plainer(case: Case, differs: Differs) -> Case:
    """Operands that are 0, or at least have fewer bits set."""
    for at in range(len(case.words)):
        word = case.words[at]
        if displacement(word) is not None:
            continue
        form = GUEST.tables.decode(word).form
        for low, width in form.row.pattern.fields.values() if form.id else ():
            mask = (1 << width) - 1 << low & ~form.mask
            if not word & mask:
                continue
            for fewer in (word & ~mask, word & ~mask | 1 << low):
                if fewer == word or GUEST.tables.decode(fewer).form is not form:
                    continue
                plainer = replace(case, words=_replaced(case.words, at, fewer))
                if differs(plainer):
                    case, word = plainer, fewer
                    break
    return case


def _replaced(words: Sequence[int], at: int, word: int) -> tuple[int, ...]:
    return (*words[:at], word, *words[at + 1 :])
