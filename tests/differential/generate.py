"""Random cases: encodings from the rows' tables, operand values that are special more often than by chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .case import DATA_MIDDLE, DATA_SIZE, GENERAL, VECTORS, Case

if TYPE_CHECKING:
    from random import Random

    from dbt.frontends.forms import Form
    from dbt.frontends.guest import Guest

MEMORY_OPS: Final = {"load", "store", "load_exclusive", "store_exclusive", "rmw", "cas"}
ALIGNED_OPS: Final = {"load_exclusive", "store_exclusive", "rmw", "cas", "align_check"}
_TOP: Final = 1 << 63
_INTEGERS: Final = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF,
                    _TOP - 1, _TOP, 2 * _TOP - 1, 0x5555_5555_5555_5555, 0xAAAA_AAAA_AAAA_AAAA)  # fmt: skip
_SINGLES: Final = (0, 0x8000_0000, 0x3F80_0000, 0xBF80_0000, 0x7F80_0000, 0xFF80_0000, 0x7FC0_0001, 0x7F80_0001,
                   0xFFA0_0000, 0x7F7F_FFFF, 0x0080_0000, 0x3F00_0000, 0x4F00_0000, 0x5F00_0000, 0xCF00_0000,
                   0x4EFF_FFFF, 0x3FC0_0000, 0x4020_0000)  # fmt: skip
_SUBNORMAL_SINGLES: Final = (0x0000_0001, 0x807F_FFFF)
_DOUBLES: Final = (0, _TOP, 0x3FF0 << 48, 0xBFF0 << 48, 0x7FF0 << 48, 0xFFF0 << 48, 0x7FF8 << 48 | 5, 0x7FF0 << 48 | 1,
                   0xFFF4 << 48, 0x7FEF_FFFF_FFFF_FFFF, 0x0010 << 48, 0x3FE0 << 48, 0x43E0 << 48, 0xC3E0 << 48,
                   0x41DF_FFFF_FFC0_0000, 0x3FF8 << 48, 0x4004 << 48)  # fmt: skip
_SUBNORMAL_DOUBLES: Final = (1, _TOP | 0x000F_FFFF_FFFF_FFFF)
_HALVES: Final = (0, 0x8000, 0x3C00, 0xBC00, 0x7C00, 0xFC00, 0x7E01, 0x7C01, 0x7BFF, 0x0400, 0x0001, 0x83FF)


def integer(random: Random) -> int:
    """64 bits."""
    kind = random.randrange(6)
    if kind == 0:
        return random.choice(_INTEGERS)
    if kind == 1:
        return random.randrange(256)
    if kind == 2:
        return -random.randrange(256) & (2 * _TOP - 1)
    if kind == 3:
        return random.choice(_INTEGERS) ^ 1 << random.randrange(64)
    return random.getrandbits(64)


def _single(random: Random) -> int:
    if random.random() < 0.5:
        return random.choice(_SINGLES + _SUBNORMAL_SINGLES)
    return random.getrandbits(1) << 31 | random.randrange(100, 160) << 23 | random.getrandbits(23)


def _double(random: Random) -> int:
    if random.random() < 0.5:
        return random.choice(_DOUBLES + _SUBNORMAL_DOUBLES)
    return random.getrandbits(1) << 63 | random.randrange(990, 1090) << 52 | random.getrandbits(52)


def vector(random: Random) -> int:
    """128 bits: lanes of one kind."""
    kind = random.randrange(8)
    if kind < 2:
        return sum(_single(random) << 32 * i for i in range(4))
    if kind < 4:
        return sum(_double(random) << 64 * i for i in range(2))
    if kind == 4:
        return sum(random.choice(_HALVES) << 16 * i for i in range(8))
    if kind == 5:
        return sum(random.choice((0, 1, 0x7F, 0x80, 0xFF, random.getrandbits(8))) << 8 * i for i in range(16))
    if kind == 6:
        return integer(random) | integer(random) << 64
    return random.getrandbits(128)


def word_of(guest: Guest, form: Form, random: Random) -> int | None:
    """A word that decodes to the form; None if none was found (others cut it away)."""
    for _ in range(50):
        word = form.value | random.getrandbits(guest.width) & ~form.mask
        if guest.tables.decode(word).form is form:
            return word
    return None


def registers(random: Random) -> dict[str, int]:
    """Values for all registers."""
    values = {name: integer(random) for name in GENERAL}
    values.update((name, vector(random)) for name in VECTORS)
    values["sp"] = DATA_MIDDLE + 16 * random.randrange(64)
    values["nzcv"] = random.getrandbits(4) << 28
    values["fpcr"] = random.choice((0, 0, 0, 1, 2, 3)) << 22
    values["fpsr"] = random.choice((0, 0, 0x0800_0000, 0x1, 0x10))
    values["tpidr_el0"] = random.getrandbits(48)
    return values


def addressed(values: dict[str, int], ops: set[str], word: int, random: Random) -> None:
    """Lets Rn point into scratch memory and makes Rm, which may be an index, small, for instructions that access it."""
    if not ops & MEMORY_OPS:
        return
    base, index = word >> 5 & 31, word >> 16 & 31
    if index != 31:
        near = random.randrange(-64, 64) * random.choice((1, 8, 16)) & (2 * _TOP - 1)
        # The top byte of an address stays 0: Unicorn does not ignore it.
        values[f"x{index}"] = near if random.random() < 0.7 else random.getrandbits(40)
    address = DATA_MIDDLE + 16 * random.randrange(DATA_SIZE // 64)
    if not ops & ALIGNED_OPS:
        address += random.choice((0, 0, random.randrange(16)))
    values["sp" if base == 31 else f"x{base}"] = address


def case_of(guest: Guest, form: Form, random: Random) -> Case | None:
    """A random case of one instruction of the form."""
    word = word_of(guest, form, random)
    if word is None:
        return None
    values = registers(random)
    addressed(values, {op.name for op in form.template.ops}, word, random)
    return Case((word,), values, random.randbytes(DATA_SIZE), form.name)
