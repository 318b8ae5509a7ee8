"""The baseline engine against the reference: every form in every variant of its stencil, and every fused pair.

DRAGOMAN_DIFF_COUNT and DRAGOMAN_DIFF_SEED choose how much is done, as in test_forms.py. What was tried is counted; the
figures are in a line at the end of the run, what was not tried is in build/coverage-forms.txt.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.frontends.a64.guest import GUEST

from .case import ALIGNMENT, CODE, DATA_SIZE, FAULT, HIGH, Case, differences
from .conftest import COUNT, SEED
from .generate import case_of, registers, word_of
from .minimise import minimise
from .text import show
from .variants import conditions, every_number, name_of, possible, variant_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbt.frontends.forms import Form

    from .coverage import Coverage
    from .engines import Baseline, Reference

TABLES = GUEST.tables
PLACES = (CODE, HIGH)
KILL = 0xEB1F03FF  # cmp xzr, xzr: flags from before are dead
TRIES = 24  # random words for a variant that has not come up
SHOWN = 5  # differences of one module
# Not compared: time goes on; the runtime deals with an exit for instruction cache maintenance by itself.
DIFFERENT = {"MRS_CNTVCT", "IC_IVAU"}


def module_of(form: Form) -> str:
    return form.row.function.__module__.rpartition(".")[2]


def label(form: Form, variant: int) -> str:
    return f"{module_of(form)} {form.name} {name_of(variant)}"


def wrong(case: Case, baseline: Baseline, reference: Reference, stops: frozenset[int] = frozenset()) -> list[str]:
    """How the engines differ. Memory may after a fault: an engine may have done half of a store of two registers."""
    expected, found = reference.run(case), baseline.run(case, stops=stops)
    if expected.stop == found.stop in (FAULT, ALIGNMENT):
        expected, found = (
            replace(outcome, stop="as before", registers={**outcome.registers, "nzcv": 0}, data=b"")
            for outcome in (expected, found)
        )
        return [*differences(expected, found), *([] if expected.pc == found.pc else ["pc"])]
    return list(differences(expected, found))


def explain(case: Case, baseline: Baseline, reference: Reference, stops: frozenset[int] = frozenset()) -> str:
    small = minimise(case, lambda c: bool(wrong(c, baseline, reference, stops)))
    lines = [f"{case.name} at {case.address:#x}, seed {SEED!r}", *wrong(small, baseline, reference, stops)]
    return "\n  ".join([*lines, show(small, reference.run(small))])


def cases(form: Form) -> Iterator[tuple[int, Case]]:
    """(variant, case): some at both places with flags that are wanted and not, then for what has not come up."""
    facts = TABLES.metadata(form)
    wanted = set(possible(TABLES, form))
    for number in range(COUNT + TRIES):
        if number >= COUNT and not wanted:
            return
        for place in PLACES:
            for dead in (False, True) if facts.flags_written else (False,):
                seed = f"{SEED} {form.name} {number} {place} {dead}"
                word = word_of(GUEST, form, Random(seed))
                if word is None:
                    continue
                if number == COUNT and GUEST.tables.decode(form.value).form is form:
                    word = form.value  # all operands 0
                variant = variant_of(TABLES, TABLES.decode(word, place), dead=dead)
                if number < COUNT or variant in wanted:
                    wanted.discard(variant)
                    case = case_of(GUEST, form, Random(seed))
                    assert case is not None
                    yield variant, replace(case, words=(word, KILL) if dead else (word,), address=place)


@pytest.mark.parametrize("module", GUEST.modules)
def test_forms(module: str, baseline: Baseline, reference: Reference, coverage: Coverage) -> None:
    bad: list[str] = []
    for form in GUEST.forms[1:]:
        if module_of(form) != module:
            continue
        coverage.expect("variants of forms", (label(form, variant) for variant in possible(TABLES, form)))
        for variant, case in cases(form):
            if form.group not in DIFFERENT and wrong(case, baseline, reference):
                bad.append(explain(case, baseline, reference) if len(bad) < SHOWN else label(form, variant))
                break
            coverage.note("variants of forms", label(form, variant))
    assert not bad, f"{len(bad)} forms differ (seed {SEED!r})\n" + "\n".join(bad)


def branch_word(form: Form, offset: int) -> int:
    """b.cond to so many bytes from itself."""
    return form.value | (offset // 4 & 0x7FFFF) << 5


@pytest.mark.parametrize("place", PLACES, ids=("low", "high"))
@pytest.mark.parametrize("words", [6, -6], ids=("forward", "backward"))
def test_fused_pairs(place: int, words: int, baseline: Baseline, reference: Reference, coverage: Coverage) -> None:
    kind = "fused pairs"
    target = place + 4 + 4 * words
    stops = frozenset({place + 12, target + 4})
    bad: list[str] = []
    for form in TABLES.fusable():
        for condition, branch in conditions(TABLES).items():
            name = f"{module_of(form)} {form.name} {condition} {'wide' if place == HIGH else 'narrow'} {words}"
            coverage.expect(kind, [name])
            for number in range(COUNT):
                random = Random(f"{SEED} {name} {number}")
                word = word_of(GUEST, form, random)
                if word is None:
                    continue
                code = (*[KILL] * 8, word, branch_word(branch, 4 * words), *[KILL] * 8)
                case = Case(code, registers(random), bytes(DATA_SIZE), name, place, 3, 8)
                if wrong(case, baseline, reference, stops):
                    bad.append(explain(case, baseline, reference, stops) if len(bad) < SHOWN else name)
                    break
                coverage.note(kind, name)
    assert not bad, f"{len(bad)} pairs differ (seed {SEED!r})\n" + "\n".join(bad)


LOOPS = {
    "b": (0x14000000, {}),
    "b.eq": (0x54000000, {"nzcv": 1 << 30}),
    "b.al": (0x5400000E, {}),
    "cbz": (0xB4000000, {}),
    "cbnz": (0x35000000, {"x0": 1}),
    "tbz": (0x36000000, {}),
    "tbnz": (0x37000000, {"x0": 1}),
    "bl": (0x94000000, {}),
    "br": (0xD61F0020, {}),
}


@pytest.mark.parametrize("place", PLACES, ids=("low", "high"))
@pytest.mark.parametrize("name", LOOPS)
def test_a_branch_to_itself_polls(name: str, place: int, baseline: Baseline) -> None:
    word, values = LOOPS[name]
    case = Case((word,), {**values, "x1": place}, address=place)
    assert baseline.run(case).pc == place
    assert baseline.runs_until_stopped(case, 0.001)


def test_everything_was_compiled(baseline: Baseline) -> None:
    assert not [number for number in every_number(TABLES) if not baseline.native._has(number)]
