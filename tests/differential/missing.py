"""`python -m tests.differential.missing [WORDS]`: instructions that QEMU executes and no row covers, by mnemonic.

Random words, of which Capstone names those that our tables call undefined; Unicorn has the last word on each name. And
the other way round: words that our rows cover and Unicorn calls undefined.
"""

from __future__ import annotations

import sys
from collections import Counter
from random import Random

import capstone
from dbt.frontends.a64.guest import GUEST

from .case import CODE, DATA_MIDDLE, GENERAL, UNDEFINED, Case
from .oracle import Oracle

TRIES = 3  # of a mnemonic in Unicorn


def survey(words: int, seed: int = 0) -> tuple[Counter[str], Counter[str]]:
    """Mnemonics that we lack, and groups of rows that cover too much, with how many of the words they were."""
    random = Random(seed)
    oracle = Oracle()
    disassembler = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)
    registers = dict.fromkeys((*GENERAL, "sp"), DATA_MIDDLE)
    lacking: Counter[str] = Counter()
    excess: Counter[str] = Counter()
    executes: dict[str, list[bool]] = {}
    for _ in range(words):
        # Half of all words are in the Advanced SIMD and floating-point space, which is a quarter of the encodings.
        word = random.getrandbits(32)
        if random.random() < 0.3:
            word = word & ~0x0E00_0000 | 0x0E00_0000
        form = GUEST.tables.decode(word).form
        name = next((m for _, _, m, _ in disassembler.disasm_lite(word.to_bytes(4, "little"), CODE)), "")
        if bool(name) == (form.id != 0):
            continue
        key = name or form.group
        tried = executes.setdefault(key, [])
        if len(tried) < TRIES:
            tried.append(oracle.run(Case((word,), registers)).stop != UNDEFINED)
        if name and any(tried):
            lacking[key] += 1
        elif not name and not all(tried):
            excess[key] += 1
    return lacking, excess


def main() -> None:
    """Print both lists."""
    lacking, excess = survey(int(sys.argv[1]) if len(sys.argv) > 1 else 300_000)
    print("not covered:", *(f"{name} {count}" for name, count in sorted(lacking.items())), sep="\n  ")
    print("covered, undefined in QEMU:", *(f"{name} {count}" for name, count in sorted(excess.items())), sep="\n  ")


if __name__ == "__main__":
    main()
