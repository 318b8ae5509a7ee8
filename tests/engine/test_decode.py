"""The compiled decoder gives the record that the Python decoder gives, for every form; and the variant that is due."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.frontends.a64.guest import GUEST
from dbt.frontends.operands import IMMEDIATE, REGISTER

from dbt.engine.cpu import Cpu
from dbt.engine.layout import EXIT_UNDEFINED, Record
from tests.differential.variants import signed, variant_of

if TYPE_CHECKING:
    from collections.abc import Iterator

CODES = (0x10_0000, 0x10_0000_0000)
RET = 0xD65F03C0
EACH = 4  # words of each form
READ_WRITE, READ_EXECUTE = 3, 5


@pytest.fixture(scope="module")
def cpu() -> Iterator[Cpu]:
    made = Cpu()
    yield made
    made.close()


def some_words() -> list[int]:
    random = Random(1)
    known = [
        form.value | random.getrandbits(32) & ~form.mask & 0xFFFFFFFF for form in GUEST.forms[1:] for _ in range(EACH)
    ]
    return known + [random.getrandbits(32) for _ in range(4000)]


@pytest.mark.parametrize("start", CODES, ids=("low", "high"))
def test_records(cpu: Cpu, start: int) -> None:
    native = cpu.baseline
    assert native is not None
    words = some_words()
    # Each word is a block of its own. Behind it is a block that is there already, so that its record stays.
    code = b"".join(word.to_bytes(4, "little") + RET.to_bytes(4, "little") for word in words)
    cpu.memory.map(start, len(code), READ_WRITE)
    cpu.memory.write(start, code)
    cpu.memory.protect(start, len(code), READ_EXECUTE)
    native.ctx.max_block = 1
    cpu.env.pc = start + 4
    cpu.x[30] = 0
    cpu.run()
    translate = native.runtime.translate_at
    for i, word in enumerate(words):
        pc = start + 8 * i
        assert translate(cpu.env_address, pc + 4)
        translate(cpu.env_address, pc)
        expected = GUEST.tables.decode(word, pc)
        if expected.form.id == 0:
            assert cpu.env.exit == EXIT_UNDEFINED, f"{word:08x}"
            continue
        found = Record.at(int(native.ctx.records))
        slots = [e.slot for e in expected.form.extractions if e.kind == REGISTER]
        values = {e.kind - IMMEDIATE for e in expected.form.extractions if e.kind != REGISTER}
        assert (found.form, found.pc, found.length) == (expected.form.id, pc, 4), f"{word:08x}"
        assert [found.r[slot] for slot in slots] == [expected.r[slot] for slot in slots], f"{word:08x}"
        for place, (got, want) in enumerate(((found.imm, expected.imm), (found.target, expected.target))):
            assert signed(got) == (signed(want) if place in values else 0), f"{word:08x}"
        assert found.variant == variant_of(GUEST.tables, expected, dead=False), f"{word:08x}"


ADDS, ADC, SUBS, CMP_ZR = 0xAB020020, 0x9A020020, 0xEB020020, 0xEB1F03FF
CCMP, LDR, CSEL = 0xFA420020, 0xF9400020, 0x9A820020  # ccmp x1, x2, #0, eq: reads Z, writes all
PLAIN, NO_FLAGS = 0, 2


@pytest.mark.parametrize(
    ("code", "variants"),
    [
        ((ADDS,), [PLAIN]),  # nobody knows what comes behind ret
        ((ADDS, SUBS), [NO_FLAGS, PLAIN]),
        ((ADDS, ADC, SUBS), [PLAIN, PLAIN, PLAIN]),
        ((ADDS, SUBS, ADC), [NO_FLAGS, PLAIN, PLAIN]),
        ((ADDS, ADDS, ADDS), [NO_FLAGS, NO_FLAGS, PLAIN]),
        ((ADDS, LDR, SUBS), [NO_FLAGS, PLAIN, PLAIN]),
        ((ADDS, CSEL, SUBS), [PLAIN, PLAIN, PLAIN]),
        ((ADDS, CCMP, SUBS), [PLAIN, NO_FLAGS, PLAIN]),  # it may still read them
        ((ADDS, CCMP, ADC), [PLAIN, PLAIN, PLAIN]),
    ],
)
def test_flags_that_nobody_reads_are_not_written(cpu: Cpu, code: tuple[int, ...], variants: list[int]) -> None:
    native = cpu.baseline
    assert native is not None
    at = 0x70_0000
    cpu.memory.map(at, 4096, READ_WRITE)
    cpu.memory.write(at, b"".join(word.to_bytes(4, "little") for word in (*code, RET)))
    cpu.memory.protect(at, 4096, READ_EXECUTE)
    native._tell_mappings()
    native.ctx.max_block = 64
    native.runtime.translate_at(cpu.env_address, at)
    records = [Record.at(int(native.ctx.records) + i * Record.size) for i in range(len(code))]
    assert [record.variant for record in records] == variants
