"""Every form of the guest with random operands: one instruction in Unicorn and in our engines, everything compared.

DRAGOMAN_DIFF_COUNT (cases a form, default 1), DRAGOMAN_DIFF_SEED and DRAGOMAN_DIFF_ENGINES (default:
reference,baseline) choose how much is done. A difference is shown as a line for tests/cases, which reproduces it.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.frontends.a64.guest import GUEST

from .case import ALIGNMENT, FAULT, OK, Case, Outcome, differences
from .conftest import COUNT, SEED
from .exceptions import IGNORED, agreed, skip
from .generate import case_of
from .minimise import minimise
from .text import show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbt.frontends.forms import Form

    from .engines import Engine
    from .oracle import Oracle

SHOWN = 5  # differences of one module


def cases(form: Form, count: int) -> Iterator[Case]:
    """Cases of a form, the same ones for the same seed."""
    for number in range(count):
        random = Random(f"{SEED} {form.name} {number}")
        for _ in range(20):
            case = case_of(GUEST, form, random)
            if case is not None and not skip(form, case):
                yield case
                break


def compare(form: Form, case: Case, oracle: Oracle, engine: Engine) -> tuple[list[str], Outcome]:
    """What is wrong with what the engine does, and what the oracle does."""
    expected = oracle.run(case)
    found = engine.run(case, {expected.pc} if expected.stop == OK else ())
    if found.stop in (FAULT, ALIGNMENT):
        changed = [name for name, value in found.registers.items() if value != case.registers.get(name, 0)]
        if changed:
            return [f"a fault changed {', '.join(changed)}"], expected
    if expected.stop != found.stop and agreed(form, expected, found):
        return [], expected
    return list(differences(expected, found, IGNORED.get(form.group, ({}, ""))[0])), expected


def explain(form: Form, case: Case, oracle: Oracle, engine: Engine) -> str:
    """The difference, and the smallest case that shows one."""
    small = minimise(case, lambda c: bool(compare(form, c, oracle, engine)[0]))
    wrong, expected = compare(form, small, oracle, engine)
    return "\n  ".join([f"{form.name} on {engine.name}", *wrong, show(small, expected)])


@pytest.mark.parametrize("module", GUEST.modules)
def test_module(module: str, engine: Engine, oracle: Oracle) -> None:
    """All forms of the rows of one module."""
    wrong: list[str] = []
    for form in GUEST.forms:
        if form.id == 0 or not form.row.function.__module__.endswith(f".{module}"):
            continue
        for case in cases(form, COUNT):
            if compare(form, case, oracle, engine)[0]:
                wrong.append(explain(form, case, oracle, engine) if len(wrong) < SHOWN else form.name)
                break
    assert not wrong, f"{len(wrong)} forms differ (seed {SEED!r})\n" + "\n".join(wrong)


def test_every_form_has_a_case() -> None:
    """The generator reaches all forms: none is hidden behind others."""
    without = [form.name for form in GUEST.forms[1:] if case_of(GUEST, form, Random(form.name)) is None]
    assert not without
