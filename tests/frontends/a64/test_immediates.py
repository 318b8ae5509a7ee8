"""Immediates against formulations of their own."""

from __future__ import annotations

from random import Random

import pytest
from dbt.frontends.a64.bitmask import bitmask, field_mask, sign_extended
from dbt.frontends.a64.data_immediate import shift_left, shift_right
from dbt.frontends.guest import load_guest

TABLES = load_guest("a64").tables
MASK64 = (1 << 64) - 1


def naive_masks() -> dict[tuple[int, int, int], int]:
    """All masks as strings: runs of ones in elements of 2 to 64 bits, rotated right, repeated."""
    masks: dict[tuple[int, int, int], int] = {}
    for size in (2, 4, 8, 16, 32, 64):
        for ones in range(1, size):
            element = "0" * (size - ones) + "1" * ones
            for rotation in range(size):
                rotated = element[size - rotation :] + element[: size - rotation]
                prefix = 0 if size == 64 else (0b111111 << (size.bit_length() & 7)) & 0b111111
                masks[size == 64, rotation, prefix | ones - 1] = int(rotated * (64 // size), 2)
    return masks


def test_all_bitmasks() -> None:
    naive = naive_masks()
    for v in range(8192):
        n, immr, imms = v >> 12, v >> 6 & 63, v & 63
        size = 64 if n else next((s for s in (32, 16, 8, 4, 2) if imms < 64 - s), 0)
        expected = naive.get((bool(n), immr & (size - 1), imms), 0) if size else 0
        assert bitmask(n, immr, imms) == expected, (n, immr, imms)
        for sf in (0, 1):
            if n <= sf:
                word = sf << 31 | 0x12000000 | v << 10
                found = TABLES.decode(word)
                if expected:
                    assert found.imm & MASK64 >> (32 - 32 * sf) == expected & MASK64 >> (32 - 32 * sf)
                    assert sf or -(1 << 31) <= found.imm < 1 << 31, "fits 32-bit fields of host code"
                else:
                    assert found.form.id == 0


@pytest.mark.parametrize("bits", [32, 64])
def test_bitfields(bits: int) -> None:
    """UBFM's two shifts and BFM's mask against moving bit by bit."""
    random = Random(bits)
    width = bits.bit_length() - 1
    for immr in range(bits):
        for imms in range(bits):
            source = random.getrandbits(bits)
            if imms >= immr:
                expected = source >> immr & ((1 << (imms - immr + 1)) - 1)
                where = (1 << (imms - immr + 1)) - 1
            else:
                low = bits - immr
                expected = (source & ((1 << (imms + 1)) - 1)) << low
                where = ((1 << (imms + 1)) - 1) << low
            v = immr << width | imms
            shifted = source << shift_left(bits, v) & ((1 << bits) - 1)
            assert shifted >> shift_right(bits, v) == expected
            assert field_mask(bits, immr, imms) == where


def test_sign_extended() -> None:
    assert sign_extended(0xFFFF_FFFF, 32) == -1
    assert sign_extended(0x1_7FFF_FFFF, 32) == 0x7FFF_FFFF


@pytest.mark.parametrize(
    ("word", "pc", "imm", "target"),
    [
        (0x14000001, 0x1000, 0, 0x1004),  # b .+4
        (0x17FFFFFF, 0x1000, 0, 0xFFC),  # b .-4
        (0x16000000, 0x1000, 0, 0x1000 - (1 << 27)),  # b, farthest
        (0x54800000, 1 << 40, 0, (1 << 40) - (1 << 20)),  # b.eq, farthest
        (0x36040000, 0x20000, 0, 0x18000),  # tbz w0, #0, farthest
        (0xB7FBFFE0, 0x20000, 63, 0x27FFC),  # tbnz x0, #63
        (0x70FFFFE0, 0x1000, 0xFFF, 0),  # adr x0, .-1
        (0x90FFFFE0, 0x12345678, 0x12341000, 0),  # adrp x0, .-4096
        (0xB0000000, 0x12345FFC, 0x12346000, 0),  # adrp x0, .+4096
        (0x91400400, 0, 0x1000, 0),  # add x0, x0, #1, lsl #12
        (0xD2E00020, 0, 1 << 48, 0),  # movz x0, #1, lsl #48
        (0x52B00000, 0, 1 << 31, 0),  # movz w0, #0x8000, lsl #16
        (0xF9400400, 0, 8, 0),  # ldr x0, [x0, #8]
        (0x3DFFFC00, 0, 4095 * 16, 0),  # ldr q0, [x0, #65520]
        (0xF85FF000, 0, -1, 0),  # ldur x0, [x0, #-1]
        (0xA97F0400, 0, -16, 0),  # ldp x0, x1, [x0, #-16]
        (0xAD600400, 0, -1024, 0),  # ldp q0, q1, [x0, #-1024]
        (0x58FFFFE0, 0x1000, 0xFFC, 0),  # ldr x0, .-4
        (0xD42024E0, 0, 0x127, 0),  # brk #0x127
        (0xFA5F0BEF, 0, 31, 15),  # ccmp xzr, #31, #15, eq
    ],
)
def test_values(word: int, pc: int, imm: int, target: int) -> None:
    found = TABLES.decode(word, pc)
    assert found.form.id
    assert (found.imm, found.target) == (imm, target)
