"""Short random programs in a straight line: what one instruction leaves behind, the next one finds."""

from __future__ import annotations

from random import Random

from dbt.frontends.a64.guest import GUEST
from dbt.frontends.forms import Form

from .case import CODE, DATA_SIZE, OK, Case, differences, reproducer
from .conftest import COUNT, SEED
from .engines import Engine
from .exceptions import IGNORED, skip
from .generate import ALIGNED_OPS, MEMORY_OPS, addressed, registers, word_of
from .oracle import Oracle

LENGTH = 8
PROGRAMS = 200
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


def test_programs(engine: Engine, oracle: Oracle) -> None:
    """The same registers, flags and memory at the end."""
    forms = [form for form in GUEST.forms if usable(form)]
    for number in range(PROGRAMS * COUNT):
        case = program(forms, Random(f"{SEED} program {number}"))
        expected = oracle.run(case)
        if expected.stop != OK:
            continue
        found = engine.run(case, {CODE + 4 * len(case.words)})
        wrong = list(differences(expected, found))
        assert not wrong, "\n  ".join([case.name, *wrong, reproducer(case, expected)])
