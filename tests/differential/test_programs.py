"""Short random programs in a straight line: what one instruction leaves behind, the next one finds."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.frontends.a64.guest import GUEST

from .case import DATA_SIZE, OK, Case, Outcome, differences
from .conftest import COUNT, SEED
from .exceptions import IGNORED, skip
from .generate import ALIGNED_OPS, MEMORY_OPS, addressed, registers, word_of
from .minimise import minimise
from .text import show

if TYPE_CHECKING:
    from dbt.frontends.forms import Form

    from .engines import Engine
    from .oracle import Oracle

LENGTH = 8
PROGRAMS = 500
_LEAVING = {"goto", "goto_if", "goto_indirect", "exit", "exit_if", "repeat_if", "helper"}


def usable(form: Form) -> bool:
    """Whether the form goes on with the next instruction."""
    names = {op.name for op in form.template.ops}
    return form.id != 0 and not names & (_LEAVING | ALIGNED_OPS) and form.group not in IGNORED


def program(forms: list[Form], random: Random) -> Case:
    """Words of some forms, at most one of which accesses memory (its base is still what it was at the start)."""
    values = registers(random)
    words: list[int] = []
    names: list[str] = []
    while len(words) < LENGTH:
        form = random.choice(forms)
        word = word_of(GUEST, form, random)
        ops = {op.name for op in form.template.ops}
        if word is None or skip(form, Case((word,), values)) or (ops & MEMORY_OPS and words):
            continue
        addressed(values, ops, word, random)
        words.append(word)
        names.append(form.name)
    return Case(tuple(words), values, random.randbytes(DATA_SIZE), " ".join(names))


def compare(case: Case, oracle: Oracle, engine: Engine) -> tuple[list[str], Outcome]:
    """The differences at the end, and what the oracle does."""
    expected = oracle.run(case)
    if expected.stop != OK:
        return [], expected
    return list(differences(expected, engine.run(case))), expected


def test_programs(engine: Engine, oracle: Oracle) -> None:
    """The same registers, flags and memory at the end."""
    forms = [form for form in GUEST.forms if usable(form)]
    for number in range(PROGRAMS * COUNT):
        case = program(forms, Random(f"{SEED} program {number}"))
        if compare(case, oracle, engine)[0]:
            small = minimise(case, lambda c: bool(compare(c, oracle, engine)[0]))
            wrong, expected = compare(small, oracle, engine)
            pytest.fail("\n  ".join([f"{case.name} (seed {SEED!r})", *wrong, show(small, expected)]))
