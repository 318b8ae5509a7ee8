"""Programs whose one access faults, and the ways in which it may: made from the rows, for test_faults.py.

A program is a loop of three rounds around one instruction under test. Each round changes registers, vector registers
and flags before and behind the access, so that an engine which keeps them somewhere has something to keep. In the first
two rounds the base register points to good memory, in the last one to what is under test: where there is nothing to
see in the code, an optimizer can not know.

    loop:   subs count, count, #1;  csel base, bad, good, eq;  changes;  ACCESS;  changes;  cbnz count, loop;  svc
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dbt.frontends.a64 import state
from dbt.frontends.a64.guest import GUEST

from .exceptions import unpredictable
from .generate import ALIGNED_OPS, MEMORY_OPS, registers, word_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from dbt.frontends.forms import Form

PAGE: Final = 0x1000
CODE: Final = 0x0040_0000
GOOD: Final = 0x0010_0000  # readable and writable; good addresses are in the middle
GOOD_SIZE: Final = 0x4000
ROUNDS: Final = 3
SVC: Final = 0xD4000001

# The pages around which accesses are placed: (address, protection), what is not here is not mapped.
FIELD: Final = 0x0020_0000
PAGES: Final = (
    (FIELD, "rw"),  # the next one is not mapped
    (FIELD + 2 * PAGE, "rw"),
    (FIELD + 3 * PAGE, "r"),
    (FIELD + 4 * PAGE, "rw"),
    (FIELD + 5 * PAGE, "-"),
    (FIELD + 6 * PAGE, "rx"),
)
UNMAPPED, READ_ONLY, NO_ACCESS, CODE_PAGE = FIELD + PAGE, FIELD + 3 * PAGE, FIELD + 5 * PAGE, FIELD + 6 * PAGE
TAG: Final = 0xA5 << 56
_MIDDLE: Final = 0x800
DISPLACEMENTS: Final = 1 << 15  # larger offsets are added before the address is masked


@dataclass(frozen=True, slots=True)
class Access:
    """One load or store of the instruction, `at` relative to the address in the base register."""

    write: bool
    at: int
    size: int


@dataclass(frozen=True, slots=True)
class Program:
    """Words to run from `place`; `access` is the index of the one under test."""

    form: Form
    words: tuple[int, ...]
    access: int
    base: str  # register, empty if the instruction has none (a literal)
    good: str
    bad: str
    count: str
    values: dict[str, int]

    @property
    def code(self) -> bytes:
        return b"".join(word.to_bytes(4, "little") for word in self.words)


def memory_forms(module: str) -> list[Form]:
    """The forms of a module that access memory."""
    return [
        form
        for form in GUEST.forms[1:]
        if form.row.function.__module__.endswith(f".{module}") and MEMORY_OPS & names_of(form)
    ]


def names_of(form: Form) -> set[str]:
    return {op.name for op in form.template.ops}


def _named(form: Form, word: int) -> dict[str, int]:
    return {name: word >> low & (1 << width) - 1 for name, (low, width) in form.row.pattern.fields.items()}


def _usable(form: Form, word: int) -> bool:
    """Whether the base is a register of its own, and an index stays what it is."""
    if unpredictable(form, word) or (form.group == "DC_ZVA" and word & 31 == 31):
        return False
    numbers = _named(form, word)
    index, base = numbers.get("Rm", 31), numbers.get("Rn", -1)
    changed = [numbers.get(name, -1) for name in ("Rt", "Rt2", "Rs")]
    if form.group == "CASP":
        changed = [numbers["Rs"] * 2, numbers["Rt"] * 2, numbers["Rs"] * 2 + 1, numbers["Rt"] * 2 + 1]
        return index == 31 and base not in changed
    return index == 31 or index not in (base, *changed)


def program_of(form: Form, random: Random) -> Program | None:
    """A program around a random word of the form."""
    word = next((w for _ in range(50) if (w := word_of(GUEST, form, random)) is not None and _usable(form, w)), None)
    if word is None:
        return None
    base = _named(form, word).get("Rn", -1)
    if form.group == "DC_ZVA":
        base = word & 31
    used = {word >> shift & 31 for shift in (0, 5, 10, 16)}
    used |= {number + 1 for number in used}
    free = [number for number in range(31) if number not in used]
    random.shuffle(free)
    count, good, bad, spare = free[:4]
    kept = {count, good, bad, spare, base, word >> 16 & 31, 31}
    changed = [number for number in range(31) if number not in kept]
    vectors = sorted({word & 31, *random.sample(range(32), 6)})
    target = spare if base == 31 else base
    words = [0xF1000400 | count << 5 | count]  # subs count, count, #1
    if base >= 0:
        words.append(0x9A800000 | good << 16 | bad << 5 | target)  # csel base, bad, good, eq
        if base == 31:
            words.append(0x9100001F | spare << 5)  # mov sp, spare
    words += [0x91000000 | random.randrange(1, 4096) << 10 | r << 5 | r for r in changed]  # add r, r, #
    words += [0x4EE08400 | random.randrange(32) << 16 | v << 5 | v for v in vectors]  # add v.2d, v.2d, u.2d
    words.append(0xEB00001F | random.choice(changed) << 16 | random.choice(changed) << 5)  # cmp
    access = len(words)
    words.append(word)
    words += [0xD1000000 | random.randrange(1, 4096) << 10 | r << 5 | r for r in random.sample(changed, 8)]
    words += [0x6EE08400 | random.randrange(32) << 16 | v << 5 | v for v in random.sample(vectors, 3)]
    words.append(0xEB00001F | random.choice(changed) << 16 | random.choice(changed) << 5)
    words.append(0xB5000000 | (-len(words) & 0x7FFFF) << 5 | count)  # cbnz count, loop
    words.append(SVC)
    values = registers(random)
    if (index := _named(form, word).get("Rm", 31)) != 31:
        values[f"x{index}"] = random.choice((0, 64, -64 & (1 << 64) - 1, random.getrandbits(20) & ~63))
    # A store to an exclusive monitor happens only while it is armed: in the first round.
    rounds = 1 if base < 0 or "store_exclusive" in names_of(form) else ROUNDS
    values.update({f"x{good}": 0, f"x{bad}": 0, f"x{count}": rounds})
    named = "" if base < 0 else "sp" if base == 31 else f"x{base}"
    return Program(form, tuple(words), access, named, f"x{good}", f"x{bad}", f"x{count}", values)


def armed(form: Form) -> int:
    """How many bytes an exclusive store wants the monitor to have, 0 for other forms."""
    return next((op.args[1].type.width // 8 for op in form.template.ops if op.name == "store_exclusive"), 0)


def monitor(address: int, size: int) -> dict[int, bytes]:
    """Offsets in Env and bytes of a monitor that is armed."""
    return {
        state.EXCLUSIVE_ADDRESS: address.to_bytes(8, "little"),
        state.EXCLUSIVE_SIZE: size.to_bytes(8, "little"),
        state.EXCLUSIVE_LOW: bytes(16),
    }


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the access goes: what its base register holds, and what it is called."""

    name: str
    base: int


def aliases(form: Form, placement: Placement, accesses: list[Access], limit: int, *, sums: bool) -> bool:
    """Whether the access has no other fault than that its address is behind the range and below bit 47.

    Translated code masks such bits (dbt/engine/memory.py says why); the reference engine refuses them. What is masked
    is the base with its index, for an engine that `sums` with the immediate offset as well.
    """
    sums = sums or any(abs(access.at) >= DISPLACEMENTS for access in accesses)
    masked = [placement.base] if not sums and "Rm" not in form.row.pattern.fields else []
    starts = [*masked, *(placement.base + access.at for access in accesses if not masked)]
    return any(limit <= start & (1 << 56) - 1 < 1 << 47 for start in starts)


def placements(form: Form, accesses: list[Access], limit: int) -> Iterator[Placement]:
    """All ways in which the access can fault. `limit`: the end of the guest's addresses."""
    low = min(access.at for access in accesses)
    high = max(access.at + access.size for access in accesses)
    span = high - low
    stores = any(access.write for access in accesses)
    aligned = bool(names_of(form) & ALIGNED_OPS)
    if form.group == "DC_ZVA":  # it rounds the address down
        aligned, low = True, 0
    unit = 16 if aligned else 1

    def base(first: int) -> int:
        """What puts the first byte there."""
        return (first - low) & (1 << 64) - 1

    yield Placement("unmapped", base(UNMAPPED + _MIDDLE))
    yield Placement("no access", base(NO_ACCESS + _MIDDLE))
    yield Placement("tagged", base(UNMAPPED + _MIDDLE) ^ TAG)
    if stores:
        yield Placement("read-only", base(READ_ONLY + _MIDDLE))
        yield Placement("read-only, tagged", base(READ_ONLY + _MIDDLE) ^ TAG)
        yield Placement("code", base(CODE_PAGE + _MIDDLE))
    for bit in (47, 50, 55):
        yield Placement(f"beyond, bit {bit}", base(FIELD + _MIDDLE | 1 << bit))
    yield Placement("kernel", base(FIELD + _MIDDLE | 0xFFFF << 48))
    yield Placement("behind the end", base(limit + 64))
    yield Placement("before zero", base(-256 & -unit))
    if aligned and span > 1 and form.group != "DC_ZVA":
        yield Placement("misaligned", base(UNMAPPED + _MIDDLE + 1))
        yield Placement("misaligned in good memory", base(GOOD + _MIDDLE + 1))
    if aligned or span == 1:
        return
    edges = sorted({1, span // 2, span - 1, *(access.at - low for access in accesses[1:3])} & set(range(1, span)))
    for edge in edges:
        yield Placement(f"{edge} bytes before unmapped", base(UNMAPPED - edge))
        yield Placement(f"{edge} bytes of unmapped", base(UNMAPPED + PAGE - edge))
        yield Placement(f"{edge} bytes before no access, tagged", base(NO_ACCESS - edge) ^ TAG)
        yield Placement(f"{edge} bytes before the end", base(limit - edge))
        if stores:
            yield Placement(f"{edge} bytes before read-only", base(READ_ONLY - edge))
            yield Placement(f"{edge} bytes of read-only", base(READ_ONLY + PAGE - edge))
