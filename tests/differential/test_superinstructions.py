"""Superinstructions against the reference engine: random instructions behind each other, as the interpreter joins them.

Registers are few, so that the parts depend on each other; accesses have good addresses until a part before them changes
the base, so that faults come in all places. Half of the sequences end with a branch. A first run has everything made,
which goes to the worker; the second one is compared. DRAGOMAN_DIFF_COUNT multiplies how many are tried.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.frontends.a64.guest import GUEST

from dbt.engine import formats, layout
from dbt.ir.ops import LOAD, OPS, STORE

from .case import CODE, DATA_SIZE, FAULT, GENERAL, Case, Outcome, differences
from .conftest import COUNT, SEED
from .engines import Interpreter
from .generate import addressed, registers, word_of
from .text import show

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from dbt.frontends.forms import Form

    from .engines import Reference

TABLES = GUEST.tables
EACH = 120  # sequences of each kind
SHOWN = 4
SVC = 0xD4000001
NOP = 0xD503201F
FEW = (0, 1, 2, 3, 31)
BASES = (20, 21, 22, 31)
PARTS = [form for form in GUEST.forms[1:] if TABLES.metadata(form).part == formats.PART_ANYWHERE]
ACCESSES = [form for form in PARTS if TABLES.metadata(form).accesses]
OTHERS = [form for form in PARTS if not TABLES.metadata(form).accesses]
INTEGERS = [form for form in OTHERS if "simd" not in form.row.function.__module__]
BEHIND = 0x200  # where br, blr and ret go
AHEAD = 16  # words that branches go, more than a sequence has


class Joined(Interpreter):
    """The interpreter with whole blocks, all of which are hot."""

    def __init__(self) -> None:
        super().__init__(GUEST)
        self.native.ctx.threshold = 0

    def _go(self, case: Case, likely: Collection[int], stops: frozenset[int]) -> int:
        del case, likely
        self._cpu.set_stops(stops)
        return self._cpu.run()

    def learn(self, cases: list[Case]) -> None:
        """Have superinstructions made for cases."""
        for case in cases:
            self.run(case, stops=stops_of(case))
        self.native.joiner.finish()  # type: ignore[attr-defined]

    def joins(self, case: Case) -> bool:
        """Whether the case's first block begins with a superinstruction, or is known not to have one."""
        native = self.native
        ctx = native.ctx
        step = layout.Step.at(native.runtime.translate_at(self._cpu.env_address, case.address))
        return bool(ctx.supers <= step.handler < ctx.supers + formats.SuperHead.at(ctx.supers).size)


@pytest.fixture(scope="module")
def joined() -> Iterator[Joined]:
    made = Joined()
    yield made
    made.close()


def crowded(form: Form, word: int, random: Random) -> int:
    """The word with few different registers, as far as it stays one of the form."""
    for position in (0, 5, 10, 16):
        if TABLES.metadata(form).accesses and position == 5:
            number = random.choice(BASES) if random.random() < 0.9 else random.choice(FEW)
        else:
            number = random.choice(FEW)
        changed = word & ~(31 << position) | number << position
        if TABLES.decode(changed).form is form:
            word = changed
    return word


def branch(random: Random, values: dict[str, int]) -> tuple[int, int]:
    """(word, words to its target) of a branch."""
    ahead = random.choice((AHEAD, -AHEAD))
    register, field = random.choice(FEW), ahead & 0x7FFFF
    kind = random.randrange(9)
    if kind < 3:
        return 0x54000000 | field << 5 | random.randrange(14), ahead
    if kind < 5:
        return random.choice((0xB4000000, 0xB5000000, 0x34000000, 0x35000000)) | field << 5 | register, ahead
    if kind == 5:
        return random.choice((0x36000000, 0x37000000)) | random.getrandbits(5) << 19 | (
            field & 0x3FFF
        ) << 5 | register, ahead
    if kind == 6:
        return random.choice((0x14000000, 0x94000000)) | ahead & 0x3FFFFFF, ahead
    values["x29"] = CODE + BEHIND
    return random.choice((0xD61F03A0, 0xD63F03A0, 0xD65F03A0)), BEHIND


def sequence(number: int, kind: str) -> Case | None:
    """A case of some instructions in a row, then a branch or a system call."""
    random = Random(f"{SEED} {kind} {number}")
    values = registers(random)
    words: list[int] = []
    for _ in range(random.randrange(2, 12)):
        form = random.choice(ACCESSES if random.random() < 0.3 else OTHERS if random.random() < 0.2 else INTEGERS)
        word = word_of(GUEST, form, random)
        if word is None:
            continue
        word = crowded(form, word, random)
        addressed(values, {op.name for op in form.template.ops}, word, random)
        words.append(word)
    if len(words) < 2:
        return None
    name = f"{kind} {number}"
    values = {name: value for name, value in values.items() if name in GENERAL or not name.startswith("x")}
    if kind == "straight":
        return Case((*words, SVC), values, random.randbytes(DATA_SIZE), name)
    word, _ = branch(random, values)
    code = (*[NOP] * AHEAD * 2, *words, word)
    return Case(code, values, random.randbytes(DATA_SIZE), name, steps=len(words) + 2, before=2 * AHEAD)


def stops_of(case: Case) -> frozenset[int]:
    """One instruction behind where the last one leads; none for a case that ends with a system call."""
    if not case.before:
        return frozenset()
    last = case.code_address + 4 * (len(case.words) - 1)
    return frozenset((last + 8, last + 4 * AHEAD + 4, last - 4 * AHEAD + 4, CODE + BEHIND + 4))


def wrong(case: Case, joined: Joined, reference: Reference) -> list[str]:
    """How the engines differ, registers at faults as well; memory then as far as the instruction does not store."""
    expected, found = reference.run(case), joined.run(case, stops=stops_of(case))
    if expected.stop == found.stop == FAULT:
        at = (expected.pc - case.code_address) // 4
        template = TABLES.decode(case.words[at]).form.template
        stores = any(OPS[op.name].effects & STORE for op in template.ops)

        def plain(outcome: Outcome) -> Outcome:
            values = outcome.registers if case.before else {**outcome.registers, "nzcv": 0}  # see keep_flags
            return replace(outcome, stop="as before", registers=values, data=b"" if stores else outcome.data)

        return [*differences(plain(expected), plain(found)), *([] if expected.pc == found.pc else ["pc"])]
    return list(differences(expected, found))


@pytest.mark.parametrize("kind", ["straight", "branching"])
def test_sequences(kind: str, joined: Joined, reference: Reference) -> None:
    cases = [case for number in range(EACH * COUNT) if (case := sequence(number, kind)) is not None]
    joined.learn(cases)
    bad: list[str] = []
    faults = refused = 0
    for case in cases:
        lines = wrong(case, joined, reference)
        outcome = reference.run(case)
        faults += outcome.stop == FAULT
        refused += not joined.joins(case)
        if lines:
            shown = show(replace(case, data=bytes(DATA_SIZE)), outcome)
            bad.append("\n  ".join([case.name, *lines, shown]) if len(bad) < SHOWN else case.name)
    assert not bad, f"{len(bad)} of {len(cases)} differ (seed {SEED!r})\n" + "\n".join(bad)
    assert faults > len(cases) // 20  # or the cases are not what they should be
    assert refused <= len(cases) // 20  # those whose code keeps registers elsewhere at an access


def test_every_kind_of_access_is_a_part() -> None:
    effects = {op.name for form in ACCESSES for op in form.template.ops if OPS[op.name].effects & (LOAD | STORE)}
    assert effects == {"load", "store"}
