"""What the runtime is told of forms, and the guest of itself."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from dbt.frontends.a64 import state
from dbt.frontends.guest import load_guest

from dbt.engine.formats import ENDS_ALWAYS, ENDS_CONDITIONAL, ENDS_DIRECT, ENDS_NO, USES_IMM, USES_NPC
from dbt.ir.verify import verify

if TYPE_CHECKING:
    from dbt.frontends.metadata import Metadata

GUEST = load_guest("a64")
TABLES = GUEST.tables
NZCV = 15


def metadata(word: int) -> Metadata:
    return TABLES.metadata(TABLES.decode(word).form)


@pytest.mark.parametrize(
    ("word", "ends"),
    [
        (0x91000400, ENDS_NO),  # add
        (0x14000000, ENDS_ALWAYS | ENDS_DIRECT),  # b
        (0x94000000, ENDS_ALWAYS | ENDS_DIRECT),  # bl
        (0x54000000, ENDS_CONDITIONAL | ENDS_DIRECT),  # b.eq
        (0x5400000E, ENDS_ALWAYS | ENDS_DIRECT),  # b.al
        (0xB4000000, ENDS_CONDITIONAL | ENDS_DIRECT),  # cbz
        (0x36000000, ENDS_CONDITIONAL | ENDS_DIRECT),  # tbz
        (0xD65F03C0, ENDS_ALWAYS),  # ret
        (0xD4000001, ENDS_ALWAYS),  # svc
        (0xD4200000, ENDS_ALWAYS),  # brk
        (0xD50B7520, ENDS_ALWAYS),  # ic ivau
        (0x00000000, ENDS_ALWAYS),  # undefined
        (0xF9400000, ENDS_NO),  # ldr
    ],
)
def test_ends(word: int, ends: int) -> None:
    assert metadata(word).ends == ends


@pytest.mark.parametrize(
    ("word", "read", "killed"),
    [
        (0x91000400, 0, 0),  # add
        (0xB1000400, 0, NZCV),  # adds
        (0x6A01001F, 0, NZCV),  # tst
        (0xBA010000, 2, NZCV),  # adcs
        (0x9A010000, 2, 0),  # adc
        (0x54000000, 4, 0),  # b.eq
        (0x5400000C, 13, 0),  # b.gt
        (0x9A810000, 4, 0),  # csel eq
        (0xD51B4200, 0, NZCV),  # msr nzcv
        (0xD53B4200, NZCV, 0),  # mrs nzcv
    ],
)
def test_flags(word: int, read: int, killed: int) -> None:
    found = metadata(word)
    assert (found.flags_read, found.flags_killed) == (read, killed)
    assert found.flags_written == killed


def test_a_conditional_compare_reads_and_writes() -> None:
    found = metadata(0xFA410000)  # ccmp x0, x1, #0, eq
    assert found.flags_read & 4
    assert found.flags_written == NZCV


def test_fusion() -> None:
    assert metadata(0xF100001F).fuse_first  # cmp x0, #0
    assert metadata(0x6B21001F).fuse_first  # cmp w0, w1, uxtb
    assert metadata(0xEA01001F).fuse_first  # tst x0, x1
    assert not metadata(0x91000400).fuse_first  # add
    assert not metadata(0xBA010000).fuse_first  # adcs
    assert not metadata(0xFA410000).fuse_first  # ccmp
    for condition in range(14):
        assert metadata(0x54000000 | condition).fuse_second == condition
    assert metadata(0x5400000E).fuse_second is None  # b.al
    assert metadata(0xB4000000).fuse_second is None  # cbz


def test_uses_and_accesses() -> None:
    assert metadata(0xF9400400).uses == USES_IMM
    assert metadata(0xF9400400).accesses
    assert metadata(0x94000000).uses & USES_NPC  # bl
    assert not metadata(0xD5033BBF).accesses  # dmb ish


def test_all_templates_keep_the_rules() -> None:
    for form in GUEST.forms:
        verify(form.template)


def test_features_follow_from_the_rows() -> None:
    names = {feature.name for feature in GUEST.features}
    assert {"fp", "crc32", "atomics", "lrcpc", "flagm"} <= names
    claimed = {row.feature for form in GUEST.forms for row in [form.row] if row.feature}
    assert names == claimed
    low, high = GUEST.hwcap
    for feature in GUEST.all_features:
        assert bool((low, high)[feature.hwcap - 1] >> feature.bit & 1) == (feature.name in claimed)


def test_tokens() -> None:
    add = TABLES.decode(0x8B1F03FF).r  # add xzr, xzr, xzr
    assert set(add[:3]) == {state.ZERO, state.JUNK}
    assert state.SP in TABLES.decode(0x910003FF).r  # add sp, sp, #0
    stored = TABLES.decode(0xF90003FF)  # str xzr, [sp]
    assert sorted(stored.r[:2]) == [state.ZERO, state.SP]


def test_state_does_not_overlap() -> None:
    spans = sorted((offset, offset + size) for offset, size in state.REGISTERS.values())
    spans += [(state.ZERO, state.ZERO + 8), (state.JUNK, state.JUNK + 8)]
    spans += [(state.EXCLUSIVE_ADDRESS, state.EXCLUSIVE_HIGH + 8)]
    spans.sort()
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert end <= start
