"""Code that changes: seen by every engine where the architecture says so, with the rest left alone, and no growth."""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

import dbt
from dbt.run import ENGINES

if TYPE_CHECKING:
    from collections.abc import Iterator

CODE, PATCHED = 0x10000, 0x20000
MOVZ, RET, SVC, NOP = 0xD2800000, 0xD65F03C0, 0xD4000001, 0xD503201F
# x9 rounds: writes x17, a movz x0, to x10, and calls it x13 times; x19 sums what it returns; next round, next number.
TURNS = (
    0xB9000151,  # str w17, [x10]
    0xD50B752A,  # ic ivau, x10
    0xD5033FDF,  # isb
    0xAA0D03EE,  # mov x14, x13
    0xD63F0140,  # blr x10
    0x8B000273,  # add x19, x19, x0
    0xF10005CE,  # subs x14, x14, #1
    0x54FFFFA1,  # b.ne the blr
    0x91008231,  # add x17, x17, #32
    0xF1000529,  # subs x9, x9, #1
    0x54FFFEC1,  # b.ne the start
    SVC,
)


@pytest.fixture(params=ENGINES)
def cpu(request: pytest.FixtureRequest) -> Iterator[dbt.CPU]:
    with dbt.open_cpu(engine=request.param) as cpu:
        cpu.memory.map(CODE, 0x4000, "rwx")
        cpu.memory.map(PATCHED, 0x1000, "rwx")
        yield cpu


def write(cpu: dbt.CPU, at: int, *words: int) -> None:
    cpu.memory.write(at, struct.pack(f"<{len(words)}I", *words))


def turns(cpu: dbt.CPU, rounds: int, calls: int = 1) -> None:
    """Write and run in turns; the sum says that each version has run."""
    write(cpu, CODE, *TURNS)
    write(cpu, PATCHED, MOVZ, RET)
    cpu.registers.update({"x9": rounds, "x10": PATCHED, "x13": calls, "x17": MOVZ, "x19": 0})
    assert isinstance(cpu.run(CODE), dbt.SystemCall)
    numbers = ((i & 0xFFFF) << (i >> 16) * 16 for i in range(rounds))
    assert cpu.registers["x19"] == calls * sum(numbers) % (1 << 64)


def held(cpu: dbt.CPU) -> tuple[int, int, int]:
    """Resident pages of this process; bytes of code and blocks that the engine has."""
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    native: Any = cpu._cpu.baseline
    if native is None:
        return resident, 0, 0
    ctx = native.ctx
    return resident, int(ctx.hot - ctx.hot_start + ctx.arena_end - ctx.cold), int(ctx.n_blocks)


def test_a_page_is_written_and_run_in_turns(cpu: dbt.CPU) -> None:
    rounds = 3000 if cpu.engine == "reference" else 100_000
    turns(cpu, rounds // 10)
    before = held(cpu)
    turns(cpu, rounds)
    after = held(cpu)
    assert after[0] - before[0] < 512
    assert max(after[1], before[1]) < 1 << 20
    assert max(after[2], before[2]) < 1000


def test_hot_code_that_changes(cpu: dbt.CPU) -> None:
    """Regions are made a few times, not each time."""
    turns(cpu, 3 if cpu.engine == "reference" else 200, 400)
    if cpu.engine == "optimizer":
        native: Any = cpu._cpu.baseline
        assert 0 < native.compiled < 24


def test_mappings_come_and_go(cpu: dbt.CPU) -> None:
    write(cpu, CODE, 0xD63F0140, SVC)  # blr x10; svc
    cpu.registers["x10"] = PATCHED
    for number in range(300):
        cpu.memory.unmap(PATCHED, 0x1000)
        assert cpu.run(CODE) == dbt.MemoryFault(PATCHED, PATCHED, "fetch")
        cpu.memory.map(PATCHED, 0x1000, "rw")
        write(cpu, PATCHED, MOVZ | number << 5, RET)
        assert cpu.run(CODE) == dbt.MemoryFault(PATCHED, PATCHED, "fetch")
        cpu.memory.protect(PATCHED, 0x1000, "rx")
        assert isinstance(cpu.run(CODE), dbt.SystemCall)
        assert cpu.registers["x0"] == number


def test_what_is_beside_stays(cpu: dbt.CPU) -> None:
    """Of many functions one changes: the others are not translated again."""
    native: Any = cpu._cpu.baseline
    if native is None or cpu.engine == "interpreter":
        return
    calls = [0x94000000 | (PATCHED + 16 * i - CODE - 4 * i) // 4 for i in range(100)]
    write(cpu, CODE, *calls, SVC)
    for i in range(100):
        write(cpu, PATCHED + 16 * i, 0x91000400, RET, RET, RET)  # add x0, x0, #1; ret
    cpu.run(CODE)
    before = native.statistics()
    for i in range(50):
        write(cpu, PATCHED + 16 * i, 0x91000800)  # add x0, x0, #2
        cpu.registers["x0"] = 0
        cpu.run(CODE)
        assert cpu.registers["x0"] == 100 + i + 1
    after = native.statistics()
    assert after["flushes"] == before["flushes"]
    assert after["blocks dropped"] - before["blocks dropped"] < 200
    assert after["guest instructions translated"] - before["guest instructions translated"] < 600


FUNCTIONS = 12


def function(random: Random, number: int) -> list[int]:
    """Four words: change x0, perhaps call on (the last one does not), return."""
    change = random.choice((0x91000400 | random.randrange(4096) << 10, 0xD37FF800, 0xCA0903A0 & ~31, NOP))
    target = random.randrange(number + 1, FUNCTIONS) if number + 1 < FUNCTIONS else number
    if target == number:
        return [change, RET, NOP, NOP]
    jump = 0x14000000 | (target - number) * 4 - 2 & 0x3FFFFFF
    skip = random.choice((0xB5000040, 0xB4000040, NOP))  # cbnz or cbz x0, over the next one
    return [change, skip, jump, RET]


@pytest.mark.parametrize("engine", ["baseline", "optimizer", "interpreter"])
@pytest.mark.parametrize("seed", range(6))
def test_random_changes(engine: str, seed: int) -> None:
    """Functions that jump to each other change one by one: what runs is what is there."""
    random = Random(seed)
    with dbt.open_cpu(engine=engine) as cpu, dbt.open_cpu(engine="reference", address_bits=40) as plain:
        native: Any = cpu._cpu.baseline
        if engine == "optimizer":
            native.ctx.threshold = 2
        both = (cpu, plain)
        for each in both:
            each.memory.map(CODE, 0x4000, "rwx")
            write(each, CODE, *(0xD63F0140, 0xF1000529, 0x54FFFFC1, SVC))  # blr x10; subs x9, x9, #1; b.ne; svc
        for number in range(FUNCTIONS):
            words = function(random, number)
            for each in both:
                write(each, CODE + 0x1000 + 16 * number, *words)
        for _ in range(60 if engine == "optimizer" else 400):
            for each in both:
                each.registers.update({"x9": 4, "x10": CODE + 0x1000, "x0": 3})
                assert isinstance(each.run(CODE), dbt.SystemCall)
            assert dict(cpu.registers) == dict(plain.registers)
            number = random.randrange(FUNCTIONS)
            words = function(random, number)
            part = random.randrange(4)
            for each in both:
                write(each, CODE + 0x1000 + 16 * number + 4 * part, *words[part:])
