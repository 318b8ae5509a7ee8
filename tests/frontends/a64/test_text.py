"""Every form: words that it decodes are what Capstone says they are."""

from __future__ import annotations

from random import Random

import pytest
from dbt.frontends.guest import load_guest

from .disassembly import Disassembler, words_of

GUEST = load_guest("a64")
GROUPS = sorted({form.group for form in GUEST.forms[1:]})
# Words that Capstone 5 does not know, or shows otherwise; and why that is right.
EXCEPTIONS: dict[str, str] = {}


@pytest.mark.parametrize("group", GROUPS)
def test_capstone_agrees(group: str) -> None:
    random = Random(group)
    capstone = Disassembler()
    wrong = []
    for form in GUEST.forms:
        if form.group == group:
            for word in words_of(GUEST, form, random, 8):
                difference = capstone.difference(form, word)
                if difference and EXCEPTIONS.get(group) not in (difference, "any"):
                    wrong.append(f"{word:08x} {form.name}: {difference}")
    assert not wrong, "\n".join(wrong[:20])


def test_every_form_can_be_met() -> None:
    random = Random(1)
    hidden = [form.name for form in GUEST.forms[1:] if not list(words_of(GUEST, form, random, 1))]
    assert not hidden, "forms that other rows hide wholly"
