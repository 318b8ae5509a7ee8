"""Where jumps and accesses of regions go: ways of jumps, indices behind the mask; against the reference engine."""

from __future__ import annotations

import random
import struct
import threading
from typing import TYPE_CHECKING, Any

import pytest

import dbt

if TYPE_CHECKING:
    from collections.abc import Iterator

CODE, DATA, END = 0x10000, 0x40000, 0x12000
SIZE = 0x20000
SVC = 0xD4000001
NEXT = (0xF8408424, 0xD61F0080)  # ldr x4, [x1], #8; br x4
STAY = (0xF9400024, 0xD61F0080)  # ldr x4, [x1]; br x4
# add x3, x3, #1; eor x3, x3, x3, lsl #7; adds x5, x3, x5; csel x6, x5, x3, cs
WORK = (0x91000463, 0xCA031C63, 0xAB050065, 0x9A8320A6)
INDEXED = {"uxtw": 0xF8645822, "sxtw": 0xF864D822}  # ldr x2, [x1, w4, … #3]


def opened(engine: str) -> dbt.CPU:
    cpu = dbt.open_cpu(engine=engine, address_bits=44 if engine == "reference" else None)
    cpu.memory.map(CODE, 0x3000, "rwx")
    cpu.memory.map(DATA, SIZE)
    cpu.memory.write(END, struct.pack("<I", SVC))
    return cpu


@pytest.fixture
def cpu() -> Iterator[dbt.CPU]:
    with opened("optimizer") as cpu:
        below(cpu).ctx.threshold = 200
        yield cpu


@pytest.fixture
def plain() -> Iterator[dbt.CPU]:
    with opened("reference") as cpu:
        yield cpu


def below(cpu: dbt.CPU) -> Any:
    """The engine below."""
    return cpu._cpu.baseline


def load(cpu: dbt.CPU, *code: int, at: int = CODE) -> None:
    cpu.memory.write(at, struct.pack(f"<{len(code)}I", *code))


def handlers(count: int) -> list[int]:
    """The code of so many handlers of an interpreter, each of three instructions."""
    return [word for number in range(count) for word in (WORK[number % len(WORK)], *NEXT)]


def run(cpu: dbt.CPU, ways: list[int]) -> tuple[object, dict[str, int]]:
    """Go all these ways; what the CPU says, and its registers."""
    cpu.memory.write(DATA, struct.pack(f"<{len(ways)}Q", *ways))
    cpu.registers.update({f"x{number}": number for number in range(31)})
    cpu.registers.update({"x1": DATA, "nzcv": 0})
    return cpu.run(CODE), dict(cpu.registers)


@pytest.mark.parametrize("count", [3, 4, 12, 24])
def test_an_interpreters_loop_is_one_region(cpu: dbt.CPU, plain: dbt.CPU, count: int) -> None:
    chance = random.Random(count)
    ways = [CODE + 12 * chance.randrange(count) for _ in range(SIZE // 8 - 1)]
    for one in (cpu, plain):
        load(one, *handlers(count))
    few = [*ways[:2000], END]
    run(cpu, [*ways, END])
    assert run(cpu, few) == run(plain, few)
    # Its jumps go on inside, so the other handlers are not hot, but for one that was nearly so before.
    assert below(cpu).compiled <= 2
    assert below(cpu)._known.popitem()[1][1] == [(CODE, struct.pack(f"<{3 * count}I", *handlers(count)))]


@pytest.mark.parametrize(
    "wild", [CODE + 2, CODE + 4, CODE + 12, CODE - 4, END, END + 4, DATA, 0, 1 << 63, CODE + (1 << 34)]
)
def test_jumps_to_what_is_no_site(cpu: dbt.CPU, plain: dbt.CPU, wild: int) -> None:
    """Between sites, behind them, in the middle of them, unaligned, and where there is no code."""
    for one in (cpu, plain):
        load(one, *handlers(8))
    usual = [CODE + 24 * (number % 4) for number in range(1500)]
    run(cpu, [*usual, END])
    assert below(cpu).compiled <= 2
    assert run(cpu, [*usual[:300], wild, END]) == run(plain, [*usual[:300], wild, END])


def test_a_loop_of_jumps_is_stopped(cpu: dbt.CPU) -> None:
    load(cpu, *(word for work in WORK for word in (work, *STAY)))
    for _ in range(2):
        watch = threading.Timer(0.3, cpu.stop)
        watch.start()
        found, registers = run(cpu, [CODE])
        watch.join()
        assert isinstance(found, dbt.Interrupted)
        assert registers["pc"] in range(CODE, CODE + 12, 4)
        assert below(cpu).compiled == 1


@pytest.mark.parametrize("extend", INDEXED)
@pytest.mark.parametrize(
    ("base", "index"),
    [
        (DATA, 1),
        (DATA + 64, -2),
        (DATA + 0x8_0000_0000, -1),
        (-8, DATA // 8 + 1),
        (-(1 << 30), (DATA >> 3) + (1 << 27)),
        (16, -3),
        (0, -1),
        ((1 << 46) - 8, 16),
        ((1 << 46) - 16, DATA // 8 + 4),
        (DATA | 0x55 << 56, 2),
        ((1 << 47) + 8, -4),
        (1 << 63, 1),
    ],
)
def test_indices(cpu: dbt.CPU, plain: dbt.CPU, extend: str, base: int, index: int) -> None:
    """Base and index on both sides of the ends of the range, and of zero."""
    below(cpu).ctx.threshold = 0
    found = []
    for one in (cpu, plain):
        load(one, INDEXED[extend], SVC)
        one.memory.write(DATA, bytes(range(128)))
        one.registers.update({"x1": base % (1 << 64), "x4": index % (1 << 32) | 0xABCD << 32, "x2": 0})
        found.append((one.run(CODE), dict(one.registers)))
    assert found[0] == found[1]
    assert below(cpu).compiled


def test_where_indices_wrap_often_whole_sums_are_masked(cpu: dbt.CPU) -> None:
    below(cpu).ctx.threshold = 0
    load(cpu, INDEXED["uxtw"], SVC)
    cpu.memory.write(DATA, struct.pack("<Q", 77))
    for _ in range(40):
        cpu.registers.update({"x1": (1 << 64) - 8, "x4": DATA // 8 + 1, "x2": 0})
        assert isinstance(cpu.run(CODE), dbt.SystemCall)
        assert cpu.registers["x2"] == 77
    # After these the region of the load is made anew, and faults no more.
    assert below(cpu)._misjudged == 9
    assert below(cpu)._known[CODE][2] == below(cpu)._key()


# What is before ldr x2, [x1, x4, lsl #3]: x4 has few bits then, or may have many.
KNOWN = {
    "and x4, x4, #0xff": (0x92401C84, True),
    "mov w4, w4": (0x2A0403E4, True),
    "ldrb w4, [x9]": (0x39400124, True),
    "lsr x4, x10, #56": (0xD378FD44, True),
    "eor w4, w4, wzr": (0x4A1F0084, True),
    "add x4, x4, #0": (0x91000084, False),
    "sub w5, w4, #1": (0x51000485, False),
    "lsr x4, x10, #8": (0xD348FD44, False),
}


@pytest.mark.parametrize("before", KNOWN)
def test_bits_of_registers_that_a_block_knows(cpu: dbt.CPU, before: str) -> None:
    """A small index is added behind the mask: seen where base and sum are not on one side of 0."""
    below(cpu).ctx.threshold = 0
    word, small = KNOWN[before]
    load(cpu, word, 0xF8647822, SVC)
    cpu.memory.map(0, 0x1000)
    cpu.memory.write(64, struct.pack("<Q", 123))
    cpu.memory.write(DATA, b"\x09")
    x10 = 9 << 56 if small else 9 << 8
    cpu.registers.update({"x1": (1 << 64) - 8, "x2": 0, "x4": 9, "x9": DATA, "x10": x10})
    assert isinstance(cpu.run(CODE), dbt.SystemCall)
    assert cpu.registers["x2"] == 123
    assert below(cpu)._misjudged == small
