"""Operands for floating-point tests: special values, and numbers where rounding and tininess are decided."""

from __future__ import annotations

import random

from dbt.backends.reference.float_format import DN, FORMATS

SEED = 20240
FPCRS = [0, 1 << 22, 2 << 22, 3 << 22, DN]  # every rounding mode, and default NaN


def special(bits: int) -> list[int]:
    """Zeros, denormals, the edges of the normal range, ones, infinities, quiet and signaling NaNs, both signs."""
    fmt = FORMATS[bits]
    one = fmt.bias << fmt.fraction
    normal = 1 << fmt.fraction
    positive = [
        0, 1, 2, 3, normal - 1, normal, normal + 1, normal // 2, normal // 2 + 1, one - 1, one, one + 1,
        one + normal, one + normal // 2, fmt.max_finite, fmt.max_finite - normal, fmt.infinity, fmt.infinity + 1,
        fmt.infinity + 5, fmt.default_nan, fmt.default_nan + 7, fmt.default_nan | (fmt.quiet - 1),
        one + (fmt.fraction << fmt.fraction), one + ((fmt.fraction - 1) << fmt.fraction) + 1, one - (normal << 1) + 1,
        one + (31 << fmt.fraction) & fmt.max_finite, one + (63 << fmt.fraction) & fmt.max_finite,
        (fmt.bias // 2 + 1) << fmt.fraction, ((fmt.bias // 2) << fmt.fraction) - 1,
    ]  # fmt: skip
    return [value | sign for value in positive for sign in (0, fmt.sign_bit)]


def operand(rng: random.Random, bits: int) -> int:
    """A special value, any pattern, or a number near 1 or near the edge of the denormals with few digits."""
    fmt = FORMATS[bits]
    kind = rng.randrange(6)
    if kind < 2:
        return rng.choice(special(bits))
    if kind == 2:
        return rng.getrandbits(bits)
    biased = rng.choice([fmt.bias, fmt.bias // 2, fmt.bias + 20, 1, fmt.bias + 50]) + rng.randrange(-3, 4)
    biased = min(max(biased, 0), 2 * fmt.bias)
    fraction = rng.getrandbits(fmt.fraction)
    if kind == 3:
        fraction &= -1 << (fmt.fraction - 4)
    if kind == 4:
        fraction = rng.choice([1, (1 << fmt.fraction) - 1, fmt.quiet, fmt.quiet - 1, fmt.quiet + 1])
    return rng.getrandbits(1) << (bits - 1) | biased << fmt.fraction | fraction


def triples(bits: int, count: int) -> list[tuple[int, int, int, int]]:
    """(a, b, c, 0) of `bits` each."""
    rng = random.Random(SEED + bits)
    grid = special(bits)
    cases = [(a, b, rng.choice(grid), 0) for a in grid for b in grid] if bits != 16 else []
    cases += [(operand(rng, bits), operand(rng, bits), operand(rng, bits), 0) for _ in range(count)]
    # The product close to the smallest normal number, the addend nothing or next to nothing.
    fmt = FORMATS[bits]
    for _ in range(count // 4):
        x = 1 << fmt.fraction | rng.getrandbits(fmt.fraction)
        y = min((1 << (2 * fmt.fraction + 1)) // x + rng.randrange(-1, 2), (2 << fmt.fraction) - 1)
        n = fmt.bias - 1 - rng.randrange(2)
        a = (n << fmt.fraction) + (x & ((1 << fmt.fraction) - 1))
        b = (1 << fmt.fraction) + (y & ((1 << fmt.fraction) - 1))
        cases.append((a, b, rng.choice([0, 1, fmt.sign_bit, fmt.sign_bit | 1]), 0))
    return cases
