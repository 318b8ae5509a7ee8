"""System calls that native code makes: every pointer, length and descriptor is checked before the host sees it.

The host's call behind all rows here is getpid, which takes anything, so that the checks alone decide.
"""

from __future__ import annotations

import os
from random import Random
from typing import TYPE_CHECKING

import pytest

from dbt.engine.cpu import Cpu
from dbt.engine.layout import EXIT_SYSCALL

if TYPE_CHECKING:
    from collections.abc import Iterator

GETPID, NUMBER = 39, 400
EBADF, EFAULT = -9 & (1 << 64) - 1, -14 & (1 << 64) - 1
CODE = 0x10000
FD_LIMIT = 500
BITS = 40  # a range that there is room for beside other tests'
LIMIT = 1 << BITS
TAG = (1 << 56) - 1
AT_FDCWD = 0xFFFFFF9C
EDGES = (
    0, 1, 4096, FD_LIMIT - 1, FD_LIMIT, AT_FDCWD, (1 << 64) - 100, (1 << 32) - 1, (1 << 31), LIMIT - 1, LIMIT - 64,
    LIMIT, LIMIT + 1, 1 << 47, 1 << 56, (0xAB << 56) + 4096, (0xAB << 56) + LIMIT - 8, 1 << 63, (1 << 64) - 1,
    (1 << 64) - 4096, (1 << 64) // 24 + 1, LIMIT // 24, LIMIT // 24 + 1,
)  # fmt: skip
ROWS = {
    "descriptor": (1, ()),
    "second descriptor": (2, ()),
    "buffer": (1, ((1, 1, 2, 0),)),
    "array": (0, ((0, 24, 1, 0),)),
    "struct": (0, ((0, 144, -1, 1),)),
    "two": (4, ((1, 16, -1, 1), (3, 8, 0, 1))),
}


@pytest.fixture
def cpu() -> Iterator[Cpu]:
    made = Cpu(address_bits=BITS)
    made.memory.map(CODE, 4096, 3)
    made.memory.write(CODE, 0xD4000001.to_bytes(4, "little") + 0xD4200000.to_bytes(4, "little"))  # svc; brk
    made.memory.protect(CODE, 4096, 5)
    yield made
    made.close()


def model(args: list[int], fds: int, pointers: tuple[tuple[int, int, int, int], ...]) -> int:
    """What the guest gets: arguments are looked at in their order."""
    for i, value in enumerate(args):
        if fds >> i & 1 and FD_LIMIT <= value & 0xFFFFFFFF != AT_FDCWD:
            return EBADF
        for argument, unit, count, _null in pointers:
            if argument == i and value:
                size = unit if count < 0 else unit * args[count]
                if (count >= 0 and args[count] > LIMIT) or (value & TAG) + size > LIMIT or value & TAG >= LIMIT:
                    return EFAULT
    return os.getpid()


@pytest.mark.parametrize("name", ROWS)
def test_arguments_are_checked(cpu: Cpu, name: str) -> None:
    fds, pointers = ROWS[name]
    cpu.pass_calls([(NUMBER, name, GETPID, fds, 0, pointers)], FD_LIMIT)
    random = Random(name)
    seen = set()
    for _ in range(1500):
        args = [random.choice(EDGES) if random.random() < 0.9 else random.getrandbits(64) for _ in range(6)]
        cpu.x[:6] = memoryview(b"".join(a.to_bytes(8, "little") for a in args)).cast("Q")
        cpu.x[8] = NUMBER
        cpu.env.pc = CODE
        assert cpu.run() != EXIT_SYSCALL
        assert cpu.x[0] == model(args, fds, pointers), [hex(a) for a in args]
        seen.add(cpu.x[0])
    assert len(seen) > 1


@pytest.mark.parametrize("number", [NUMBER, NUMBER + 1, 511, 512, 1 << 32, (1 << 32) + NUMBER, 1 << 63, (1 << 64) - 1])
def test_other_calls_are_for_python(cpu: Cpu, number: int) -> None:
    cpu.pass_calls([(NUMBER, "x", GETPID, 0, 0, ())], FD_LIMIT)
    cpu.x[8] = number
    cpu.env.pc = CODE
    assert (cpu.run() == EXIT_SYSCALL) == (number != NUMBER)
    cpu.baseline.forbid_calls([NUMBER])  # type: ignore[union-attr]
    cpu.x[8] = NUMBER
    cpu.env.pc = CODE
    assert cpu.run() == EXIT_SYSCALL
