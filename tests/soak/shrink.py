"""Makes a program that shows a difference small: fewer instructions, plainer operands, less in registers and memory.

Instructions are taken out in pieces that halve (Zeller's delta debugging); displacements of those around are mended.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from dbt.frontends.a64.guest import GUEST

from tests.differential.case import CODE, DATA_SIZE, Case
from tests.differential.minimise import minimise

from .words import displacement, retarget

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Differs = Callable[["Subject"], bool]

ROUNDS: Final = 4


@dataclass(frozen=True, slots=True)
class Subject:
    """A case and what else is made small: stop addresses, and the budget, if it has one."""

    case: Case
    stops: tuple[int, ...] = ()
    budget: int | None = None

    def with_words(self, words: Sequence[int]) -> Subject:
        """Other words, as many."""
        return replace(self, case=replace(self.case, words=tuple(words)))

    def with_registers(self, values: Mapping[str, int]) -> Subject:
        """Other values in some registers."""
        return replace(self, case=replace(self.case, registers={**self.case.registers, **values}))


def shrink(subject: Subject, differs: Differs) -> Subject:
    """The smaller one, which still `differs`."""
    subject = _bulk(subject, differs)
    for _ in range(ROUNDS):
        before = subject
        for step in (_fewer, _earlier, _sooner, _plainer):
            subject = step(subject, differs)
        if subject == before:
            break
    small = minimise(subject.case, lambda case: differs(replace(subject, case=case)))
    return replace(subject, case=small)


def _bulk(subject: Subject, differs: Differs) -> Subject:
    """All memory, and halves of all registers, in a few steps: it makes what follows faster."""
    empty = replace(subject, case=replace(subject.case, data=bytes(DATA_SIZE)))
    if differs(empty):
        subject = empty
    names = list(subject.case.registers)
    size = len(names)
    while size > 4:
        for start in range(0, len(names), size):
            some = names[start : start + size]
            smaller = subject.with_registers(dict.fromkeys(some, 0))
            if any(subject.case.registers[name] for name in some) and differs(smaller):
                subject = smaller
        size //= 2
    return subject


def _fewer(subject: Subject, differs: Differs) -> Subject:
    """Without instructions and stop addresses that do not matter."""
    for stop in subject.stops:
        fewer = replace(subject, stops=tuple(other for other in subject.stops if other != stop))
        if differs(fewer):
            subject = fewer
    size = len(subject.case.words) // 2 or 1
    while size:
        start = len(subject.case.words) - size
        while start > -size:
            shorter = without(subject, max(start, 0), start + size)
            if shorter.case.words and differs(shorter):
                subject = shorter
            start -= size
        size //= 2
    return subject


def without(subject: Subject, start: int, end: int) -> Subject:
    """Without words [start, end). What led there leads to what is behind it."""
    case = subject.case
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
    first = case.code_address
    inside = range(first, first + 4 * len(words) + 4)
    stops = {first + 4 * moved[stop - first >> 2] if stop in inside else stop for stop in subject.stops}
    shorter = replace(case, words=tuple(kept), before=before, address=first + 4 * before)
    return replace(subject, case=shorter, stops=tuple(sorted(stops)))


def _earlier(subject: Subject, differs: Differs) -> Subject:
    """At the place where cases are, if it can be there."""
    case = subject.case
    away = CODE - case.code_address
    if not away:
        return subject
    stops = tuple(stop + away for stop in subject.stops)
    moved = replace(subject, case=replace(case, address=case.address + away), stops=stops)
    return moved if differs(moved) else subject


def _sooner(subject: Subject, differs: Differs) -> Subject:
    """With a smaller budget."""
    budget = subject.budget
    while budget is not None and budget > 1:
        fewer = next((n for n in (budget // 2, budget - 1) if differs(replace(subject, budget=n))), None)
        if fewer is None:
            break
        budget = fewer
        subject = replace(subject, budget=budget)
    return subject


def _plainer(subject: Subject, differs: Differs) -> Subject:
    """Operands that are 0, or at least have fewer bits set."""
    for at in range(len(subject.case.words)):
        words = list(subject.case.words)
        word = words[at]
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
                plainer = subject.with_words([*words[:at], fewer, *words[at + 1 :]])
                if differs(plainer):
                    subject, word = plainer, fewer
                    break
    return subject
