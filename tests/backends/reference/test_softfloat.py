"""softfloat against Unicorn (all rounding modes, default NaN, flags) and against the host's numpy."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from dbt.backends.reference import softfloat
from dbt.backends.reference.float_format import FORMATS

from tests.backends.float_cases import FPCRS, SEED, operand, triples

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import ArmResult

    Oracle = Callable[..., list[ArmResult]]

BINARY = {
    "add": 0x1E212803, "sub": 0x1E213803, "mul": 0x1E210803, "div": 0x1E211803, "maximum": 0x1E214803,
    "minimum": 0x1E215803, "maximum_number": 0x1E216803, "minimum_number": 0x1E217803, "mulx": 0x5E21DC03,
}  # fmt: skip
DOUBLE = 1 << 22  # the type field in the words above


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("name", BINARY)
def test_binary(arm: Oracle, name: str, bits: int) -> None:
    word = BINARY[name] | (DOUBLE if bits == 64 else 0)
    cases = triples(bits, 400)
    for fpcr in FPCRS:
        for case, got in zip(cases, arm(word, cases, fpcr), strict=True):
            want = getattr(softfloat, name)(bits, case[0], case[1], fpcr)
            assert want == (got.v, got.fpsr), (name, bits, hex(fpcr), [hex(x) for x in case], SEED)


@pytest.mark.parametrize("bits", [32, 64])
def test_sqrt_and_fma(arm: Oracle, bits: int) -> None:
    size = DOUBLE if bits == 64 else 0
    cases = triples(bits, 600)
    for fpcr in FPCRS:
        for case, root, fused in zip(
            cases, arm(0x1E21C003 | size, cases, fpcr), arm(0x1F020023 | size, cases, fpcr), strict=True
        ):
            where = (bits, hex(fpcr), [hex(x) for x in case], SEED)
            assert softfloat.sqrt(bits, case[0], fpcr) == (root.v, root.fpsr), where
            # fmadd s3, s1, s2, s0: v0 is the addend
            assert softfloat.fma(bits, *case[:3], fpcr) == (fused.v, fused.fpsr), where
            # the same with the operands turned, so that the product nears the smallest normal number
        turned = [(c, a, b, 0) for a, b, c, _ in cases]
        for case, fused in zip(turned, arm(0x1F020023 | size, turned, fpcr), strict=True):
            assert softfloat.fma(bits, *case[:3], fpcr) == (fused.v, fused.fpsr), (bits, hex(fpcr), case)


@pytest.mark.parametrize("bits", [32, 64])
def test_compare(arm: Oracle, bits: int) -> None:
    size = DOUBLE if bits == 64 else 0
    cases = triples(bits, 100)
    for word, signaling in ((0x1E212000, False), (0x1E212010, True)):
        for case, got in zip(cases, arm(word | size, cases), strict=True):
            want = softfloat.compare_flags(bits, case[0], case[1], signaling=signaling)
            assert want == (got.nzcv, got.fpsr), [hex(x) for x in case]
    for word, predicate in ((0x5E21E403, "eq"), (0x7E21E403, "ge"), (0x7EA1E403, "gt")):
        for case, got in zip(cases, arm(word | size, cases), strict=True):
            truth, flags = softfloat.compare(bits, predicate, case[0], case[1], signaling=predicate != "eq")
            assert (((1 << bits) - 1) * truth, flags) == (got.v, got.fpsr), [hex(x) for x in case]


@pytest.mark.parametrize(
    ("word", "source", "target"),
    [
        (0x1E624003, 64, 32), (0x1E63C003, 64, 16), (0x1E23C003, 32, 16),
        (0x1E22C003, 32, 64), (0x1EE2C003, 16, 64), (0x1EE24003, 16, 32),
    ],
)  # fmt: skip
def test_convert(arm: Oracle, word: int, source: int, target: int) -> None:
    rng = random.Random(SEED)
    small = FORMATS[min(source, target)]
    cases = [(case[0], 0, 0, 0) for case in triples(source, 500)]
    for _ in range(500):  # around the numbers of the smaller format
        near, _flags = softfloat.convert(small.bits, source, rng.getrandbits(small.bits), 0)
        cases.append(((near + rng.randrange(-2, 3)) % (1 << source), 0, 0, 0))
    for fpcr in FPCRS:
        for case, got in zip(cases, arm(word, cases, fpcr), strict=True):
            want = softfloat.convert(source, target, case[0], fpcr)
            assert want == (got.v, got.fpsr), (hex(fpcr), hex(case[0]))


def test_convert_to_odd(arm: Oracle) -> None:
    cases = [(case[0], 0, 0, 0) for case in triples(64, 500)]
    for case, got in zip(cases, arm(0x7E616803, cases), strict=True):
        assert softfloat.convert(64, 32, case[0], 0, "odd") == (got.v, got.fpsr), hex(case[0])


# FCVT{N,P,M,Z,A}{S,U} x4/w4, d0/s0 by sf, type, rmode:opcode
TO_INT = {"even": 0b00_000, "up": 0b01_000, "down": 0b10_000, "zero": 0b11_000, "away": 0b00_100}


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("rm", TO_INT)
def test_to_int(arm: Oracle, bits: int, rm: str) -> None:
    rng = random.Random(SEED)
    cases = [(case[0], 0, 0, 0) for case in triples(bits, 200)]
    for edge in (1 << 31, 1 << 32, 1 << 63, 1 << 64, 1, 2, 3, 1 << 23, 1 << 52):
        for _ in range(12):
            near = softfloat.from_int(80, bits, edge * 2 + rng.randrange(-3, 4), 0, signed=True, fraction_bits=1)[0]
            cases += [((near + rng.randrange(-2, 3)) % (1 << bits) ^ sign, 0, 0, 0) for sign in (0, 1 << (bits - 1))]
    for int_bits in (32, 64):
        for unsigned in (0, 1):
            word = 0x1E200004 | (int_bits == 64) << 31 | (bits == 64) << 22 | (TO_INT[rm] | unsigned) << 16
            for case, got in zip(cases, arm(word, cases), strict=True):
                want = softfloat.to_int(bits, int_bits, case[0], 0, signed=not unsigned, rm=rm)
                assert want == (got.x, got.fpsr), (int_bits, unsigned, hex(case[0]))


@pytest.mark.parametrize("int_bits", [32, 64])
def test_fixed_point(arm: Oracle, int_bits: int) -> None:
    rng = random.Random(SEED)
    wide = int_bits == 64
    for bits in (32, 64):
        for fbits in (1, 7, int_bits - 1, int_bits):
            scale = (64 - fbits) << 10 | wide << 31 | (bits == 64) << 22
            floats = [(operand(rng, bits), 0, 0, 0) for _ in range(150)]
            ints = [(0, 0, 0, rng.getrandbits(int_bits) >> rng.randrange(int_bits)) for _ in range(150)]
            ints += [(0, 0, 0, value % (1 << int_bits)) for value in (0, 1, -1, 1 << 31, 1 << 63, (1 << 24) + 1)]
            for signed in (True, False):
                for case, got in zip(floats, arm(0x1E180004 | scale | (not signed) << 16, floats), strict=True):
                    want = softfloat.to_int(bits, int_bits, case[0], 0, signed=signed, fraction_bits=fbits)
                    assert want == (got.x, got.fpsr), (bits, fbits, signed, hex(case[0]))
                for fpcr in FPCRS:
                    words = arm(0x1E0200E3 | scale | (not signed) << 16, ints, fpcr)
                    for case, got in zip(ints, words, strict=True):
                        want = softfloat.from_int(int_bits, bits, case[3], fpcr, signed=signed, fraction_bits=fbits)
                        assert want == (got.v, got.fpsr), (bits, fbits, signed, hex(case[3]), hex(fpcr))


@pytest.mark.parametrize("bits", [32, 64])
def test_round_int(arm: Oracle, bits: int) -> None:
    rng = random.Random(SEED)
    cases = [(case[0], 0, 0, 0) for case in triples(bits, 100)]
    cases += [
        (softfloat.from_int(64, bits, rng.randrange(-64, 64), 0, signed=True, fraction_bits=2)[0], 0, 0, 0)
        for _ in range(100)
    ]
    rows = [(0, "even"), (1, "up"), (2, "down"), (3, "zero"), (4, "away"), (6, "dynamic"), (7, "dynamic")]
    for opcode, rm in rows:
        word = 0x1E244003 | opcode << 15 | (bits == 64) << 22
        for fpcr in FPCRS:
            for case, got in zip(cases, arm(word, cases, fpcr), strict=True):
                want = softfloat.round_int(bits, case[0], fpcr, rm=rm, exact=opcode == 6)
                assert want == (got.v, got.fpsr), (rm, hex(fpcr), hex(case[0]))


@pytest.mark.parametrize(("bits", "ftype", "utype"), [(16, "f2", "u2"), (32, "f4", "u4"), (64, "f8", "u8")])
def test_against_numpy(bits: int, ftype: str, utype: str) -> None:
    cases = triples(bits, 1000)
    a, b = (np.array([case[i] for case in cases], utype).view(ftype) for i in (0, 1))
    with np.errstate(all="ignore"):
        results = {"add": a + b, "sub": a - b, "mul": a * b, "div": a / b}
        roots = np.sqrt(a).view(utype)
    for name, values in results.items():
        nans, raw = np.isnan(values), values.view(utype)
        for case, nan, value in zip(cases, nans, raw, strict=True):
            if not nan:
                assert getattr(softfloat, name)(bits, case[0], case[1], 0)[0] == int(value), (name, case)
    for case, value in zip(cases, roots, strict=True):
        got = softfloat.sqrt(bits, case[0], 0)[0]
        assert got == int(value) or got & (FORMATS[bits].sign_bit - 1) > FORMATS[bits].infinity


def test_unsupported_control() -> None:
    with pytest.raises(NotImplementedError):
        softfloat.add(32, 0, 0, 1 << 24)
