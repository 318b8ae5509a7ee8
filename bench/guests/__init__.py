"""The guests that come with Dragoman: small AArch64 Linux programs, their sources beside them, built by build.sh.

Each takes one number, how much to do, and prints one line `NAME WORK RESULT`; the results below are those of
qemu-aarch64. `dragoman demo`, bench/ and the tests run them. `make guests` builds the binaries anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
INTEGER, MEMORY, PLAIN = "integer", "memory", "plain"  # what a guest's time goes into


@dataclass(frozen=True, slots=True)
class Guest:
    """One program: what it does, and how much work is a short, an ordinary and a long run."""

    name: str
    kind: str
    about: str
    short: int = 0  # some hundred thousand instructions: for the reference engine
    ordinary: int = 0  # millions: for the demo
    long: int = 0  # a thousand million: for benchmarks
    longer: int = 0  # some thousand million
    short_line: str = ""  # what it prints for `short` and for `ordinary`
    ordinary_line: str = ""

    @property
    def path(self) -> Path:
        """The binary."""
        return FOLDER / "bin" / self.name

    @property
    def source(self) -> Path:
        """What the binary is built from."""
        c_source = FOLDER / f"{self.name}.c"
        return c_source if c_source.exists() else FOLDER / f"{self.name}.S"


GREETING: Final = "hello from AArch64"
GUESTS: Final = (
    Guest("hello", PLAIN, "two system calls", short_line=GREETING, ordinary_line=GREETING),
    Guest("fib", INTEGER, "calls and returns", 21, 30, 38, 43, "fib 21 10946", "fib 30 832040"),
    Guest(
        "hash",
        INTEGER,
        "CRC-32 and SHA-256 rounds",
        60,
        20000,
        800000,
        8000000,
        "hash 60 5324127413202334061",
        "hash 20000 8566994483234193933",
    ),
    Guest(
        "sort",
        INTEGER,
        "quicksort",
        6000,
        300000,
        4000000,
        40000000,
        "sort 6000 8605123634696289908",
        "sort 300000 2619992391774136067",
    ),
    Guest("matrix", INTEGER, "a matrix product", 0, 40, 900, 10000, "matrix 0 0", "matrix 40 2958406337095415378"),
    Guest("string", INTEGER, "word count and search", 2, 600, 9000, 100000, "string 2 1780034", "string 600 517060422"),
    Guest(
        "machine",
        INTEGER,
        "an interpreter's indirect jumps",
        5000,
        400000,
        6000000,
        60000000,
        "machine 5000 41654167500",
        "machine 400000 21333253333400000",
    ),
    Guest(
        "sieve", MEMORY, "prime sieve", 40000, 3000000, 32000000, 320000000, "sieve 40000 4203", "sieve 3000000 216816"
    ),
    Guest("chase", MEMORY, "dependent loads", 8, 900, 12000, 200000, "chase 8 535", "chase 900 29682"),
    Guest(
        "histogram",
        MEMORY,
        "random increments",
        40,
        3000,
        60000,
        1000000,
        "histogram 40 40377",
        "histogram 3000 5147977",
    ),
)
BY_NAME: Final = {guest.name: guest for guest in GUESTS}
