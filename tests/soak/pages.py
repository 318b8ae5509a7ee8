"""Pages of random instructions, as cases: random words, random forms, real code with some bits changed.

Each page is begun at several places. It may go anywhere, so it has a budget; where the reference engine comes to a stop
before that, the page also runs without one, which is when the optimizer makes regions. Some pages may write to
themselves; what they do then is every engine's own affair, as long as it ends and harms nobody.
"""

from __future__ import annotations

from functools import cache
from random import Random
from typing import TYPE_CHECKING, Final

from dbt.frontends.a64.guest import GUEST

from tests.conftest import ROOT
from tests.differential.case import CODE, DATA, DATA_SIZE, GENERAL, VECTORS, Case
from tests.robustness.pages import SAMPLES

from .programs import Program, pools

if TYPE_CHECKING:
    from collections.abc import Iterable

SLOT: Final = 0x1000
SLOTS: Final = 8
WORDS: Final = 1024
STARTS: Final = 4  # places of a page to begin at
NOP: Final = 0xD503201F
_COUNTER: Final = next(form for form in GUEST.forms if form.group == "MRS_CNTVCT")  # time goes on


@cache
def _material() -> tuple[list[tuple[int, int]], list[bytes]]:
    forms = [(form.value, ~form.mask & 0xFFFFFFFF) for form in GUEST.forms[1:]]
    return forms, [(ROOT / "bench" / "guests" / "bin" / name).read_bytes() for name in SAMPLES]


def _words(random: Random) -> Iterable[int]:
    forms, samples = _material()
    kind = random.randrange(3)
    if kind == 0:
        return [random.getrandbits(32) for _ in range(WORDS)]
    if kind == 1:
        return [value | random.getrandbits(32) & free for value, free in random.choices(forms, k=WORDS)]
    page = bytearray(random.choice(samples)[0x100 : 0x100 + 4 * WORDS])
    for _ in range(random.choice((1, 8, 64))):
        page[random.randrange(len(page))] ^= 1 << random.randrange(8)
    return [int.from_bytes(page[at : at + 4], "little") for at in range(0, len(page), 4)]


def _register(random: Random) -> int:
    kind = random.randrange(4)
    if kind == 0:
        return random.choice(pools()[0])
    return (DATA + random.randrange(DATA_SIZE)) & -16 if kind < 3 else CODE + 4 * random.randrange(WORDS)


def page(seed: int) -> list[Program]:
    """The cases of a page."""
    random = Random(f"page {seed}")
    words = tuple(NOP if word & _COUNTER.mask == _COUNTER.value else word for word in _words(random))
    start = CODE + seed % SLOTS * SLOT
    found = []
    for number in range(STARTS):
        values = {name: _register(random) for name in GENERAL}
        values.update(zip(VECTORS, random.choices(pools()[1], k=32), strict=True))
        values["sp"] = DATA + DATA_SIZE // 2
        values["nzcv"] = random.getrandbits(4) << 28
        at = random.randrange(WORDS)
        case = Case(words, values, random.choice(pools()[2]), f"page {seed}, {number}", start + 4 * at, before=at)
        found.append(Program(case, outside=False))
    return found
