"""Pages of random instructions: random words, random operands of known forms, real code with some bits changed."""

from __future__ import annotations

from random import Random
from typing import Final

from dbt.frontends.a64.guest import GUEST

import dbt
from dbt.errors import GuestFault, UserError
from tests.conftest import ROOT
from tests.differential.generate import integer

CODE, DATA, SIZE = 0x10000, 0x40000, 0x10000
WORDS: Final = 1024
BUDGET: Final = 1500  # instructions of one page
STARTS: Final = 16  # places of it to begin at
ONWARD: Final = 0.7  # how often the next place is behind where the last run stopped
MASK64: Final = (1 << 64) - 1
SAMPLES: Final = ("hello", "matrix", "sort", "string")


class Attempts:
    """One CPU for all pages of a process."""

    def __init__(self, engine: str) -> None:
        self._cpu = cpu = dbt.open_cpu(engine=engine)
        cpu.memory.map(CODE, 4 * WORDS, "rwx")
        cpu.memory.map(DATA, SIZE)
        cpu._cpu.keep_flags(on=True)
        if cpu._cpu.baseline is not None:
            cpu._cpu.baseline.count_instructions(on=True)  # once, not around each run: it throws translations away
        self.registers: dict[str, int] = {}  # at the end of the last attempt
        self._forms = [(form.value, ~form.mask & 0xFFFFFFFF) for form in GUEST.forms[1:]]
        self._real = [(ROOT / "bench" / "guests" / "bin" / name).read_bytes() for name in SAMPLES]

    def _page(self, random: Random) -> bytes:
        kind = random.randrange(3)
        if kind == 0:
            return random.randbytes(4 * WORDS)
        if kind == 1:
            words = [value | random.getrandbits(32) & free for value, free in random.choices(self._forms, k=WORDS)]
            return b"".join(word.to_bytes(4, "little") for word in words)
        real = random.choice(self._real)
        page = bytearray(real[0x100 : 0x100 + 4 * WORDS])
        for _ in range(random.choice((1, 8, 64))):
            page[random.randrange(len(page))] ^= 1 << random.randrange(8)
        return bytes(page)

    def _register(self, random: Random) -> int:
        kind = random.randrange(4)
        if kind == 0:
            return integer(random)
        return (DATA + random.randrange(SIZE)) & -16 if kind < 3 else CODE + 4 * random.randrange(WORDS)

    def attempt(self, seed: int) -> list[str]:
        """Run a page from some places on: why it stopped each time."""
        random = Random(f"page {seed}")
        cpu = self._cpu
        cpu.memory.protect(CODE, 4 * WORDS, "rw")
        cpu.memory.write(CODE, self._page(random))
        # Code that changes itself without saying so does other things on other engines, so most pages cannot.
        cpu.memory.protect(CODE, 4 * WORDS, "rwx" if seed % 4 == 3 else "rx")
        cpu.memory.write(DATA, bytes(SIZE))
        for number in range(31):
            cpu.registers[f"x{number}"] = self._register(random)
        cpu.registers["sp"] = DATA + SIZE // 2
        found: list[str] = []
        left = BUDGET
        for _ in range(STARTS):
            before = cpu.executed
            start = CODE + 4 * random.randrange(WORDS)
            if found and random.random() < ONWARD:
                start = cpu.registers["pc"] + 4 & MASK64
            try:
                stopped = cpu.run(start, budget=left)
                found.append(type(stopped).__name__)
            except (UserError, GuestFault) as error:
                found.append(type(error).__name__)
            left -= max(cpu.executed - before, 1)
            if left <= 0:
                break
        self.registers = {name: cpu.registers[name] for name in cpu.registers}
        return found
