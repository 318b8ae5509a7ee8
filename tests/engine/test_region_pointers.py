"""Loops of regions, which run two rounds between polls, and the host pointers that they keep: as the reference engine.

A pointer that follows another one leaves the range where the guest's address wraps, and the fault has to be seen
through; one that does not may not follow.
"""

from __future__ import annotations

import struct
import threading
from typing import TYPE_CHECKING, Any

import pytest
from dbt.backends.llvm.regions import region_text
from dbt.frontends.guest import load_guest

import dbt
from dbt.engine.former import form_region
from dbt.engine.places import Places

if TYPE_CHECKING:
    from collections.abc import Iterator

CODE, DATA, SIZE, PAGE = 0x10000, 0x40000, 0x2000, 0x1000
SVC, COUNT, LAST = 0xD4000001, 0xF1000484, 0xF9400027  # svc #0; subs x4, x4, #1; ldr x7, [x1]
LOOPS = {
    "ldr x3, [x1], #8": (0xF8408423,),
    "ldr x3, [x1, #8]!": (0xF8408C23,),
    "ldur x3, [x1, #-8]; sub x1, x1, #8": (0xF85F8023, 0xD1002021),
    "ldp x3, x6, [x1], #16; add x2, x2, x3": (0xA8C11823, 0x8B030042),
    "mov x5, x1; ldr x6, [x5]; add x1, x5, #8": (0xAA0103E5, 0xF94000A6, 0x910020A1),
    "str x4, [x1], #8": (0xF8008424,),
    "ldr x3, [x1]; add x1, x1, #8; add x1, x1, #8": (0xF9400023, 0x91002021, 0x91002021),
    "add x1, x1, #8": (0x91002021,),
    "add x1, x1, #4095, lsl #12": (0x917FFC21,),
    "ldr x1, [x1]": (0xF9400021,),
    "ldr x3, [x1, x6]; add x1, x1, #8": (0xF8666823, 0x91002021),
}
LIMIT = 1 << 48  # stands for the limit of an engine's range, which is not the same one of both
STARTS = {
    "inside": DATA + 64,
    "tagged": DATA + 64 | 0x55 << 56,
    "before the end of a mapping": DATA + SIZE - 24,
    "behind its start": DATA + 16,
    "below zero": (1 << 64) - 24,
    "above zero": 16,
    "what no host has": (1 << 47) + 16,
    "the end of the tag": (1 << 56) - 16,
    "nowhere": 1 << 63,
    "below the limit": LIMIT - 24,
}


@pytest.fixture
def engines() -> Iterator[tuple[dbt.CPU, dbt.CPU]]:
    with dbt.open_cpu(engine="optimizer") as cpu, dbt.open_cpu(engine="reference", address_bits=44) as plain:
        below(cpu).ctx.threshold = 0
        for one in (cpu, plain):
            one.memory.map(CODE, PAGE, "rwx")
            for start in (0, DATA, limit(one) - PAGE):
                one.memory.map(start, SIZE if start == DATA else PAGE)
        yield cpu, plain


def below(cpu: dbt.CPU) -> Any:
    """The engine below."""
    return cpu._cpu.baseline


def limit(cpu: dbt.CPU) -> int:
    return cpu._cpu.memory.limit


def registers(cpu: dbt.CPU) -> dict[str, int]:
    """Its registers; addresses at the end of its range, which is not at the same one in both, count from there."""
    end = limit(cpu)
    return {name: value - end if abs(value - end) < 1 << 27 else value for name, value in cpu.registers.items()}


def loop(*body: int) -> list[int]:
    """So often as x4 says; then a load by x1."""
    back = 0x54000001 | (-(len(body) + 1) & (1 << 19) - 1) << 5  # b.ne
    return [*body, COUNT, back, LAST, SVC]


@pytest.mark.parametrize("body", LOOPS)
def test_pointers_walk(engines: tuple[dbt.CPU, dbt.CPU], body: str) -> None:
    code = loop(*LOOPS[body])
    pages = [0, DATA, DATA + PAGE]
    for place, start in STARTS.items():
        if place == "below the limit":
            pages = pages[1:]  # or what is behind it is what is at 0 for the one, and nothing for the other
            for one in engines:
                one.memory.unmap(0, PAGE)
        for rounds in (1, 4, 5):
            found = []
            for one in engines:
                one.memory.write(CODE, struct.pack(f"<{len(code)}I", *code))
                for page in [*pages, limit(one) - PAGE]:
                    one.memory.write(page, struct.pack("<512Q", *(DATA + 8 * (at * 5 % 512) for at in range(512))))
                one.registers.update({f"x{number}": 8 * number for number in range(31)})
                one.registers.update(
                    {"x1": start - LIMIT + limit(one) if start == LIMIT - 24 else start, "x4": rounds, "nzcv": 0}
                )
                result = type(one.run(CODE))
                found.append((result, registers(one), [one.memory.read(page, PAGE) for page in pages]))
            assert found[0] == found[1], (place, rounds)
            below(engines[0])._misjudged = 0  # or whole sums are masked
    assert below(engines[0]).compiled


def test_a_loop_of_two_rounds_is_stopped(engines: tuple[dbt.CPU, dbt.CPU]) -> None:
    cpu = engines[0]
    cpu.memory.write(CODE, struct.pack("<4I", 0xF9400023, 0xF9000023, 0x91000442, 0x17FFFFFD))  # ldr; str; add x2; b
    cpu.registers.update({"x1": DATA, "x2": 0})
    for _ in range(2):
        watch = threading.Timer(0.2, cpu.stop)
        watch.start()
        assert isinstance(cpu.run(CODE), dbt.Interrupted)
        watch.join()
        assert cpu.registers["pc"] == CODE
    assert cpu.registers["x2"] > 1000
    assert below(cpu).compiled == 1


@pytest.mark.parametrize(
    ("body", "masks"),
    [("ldr x3, [x1], #8", 1), ("add x1, x1, #8", 3), ("add x1, x1, #4095, lsl #12", 3), ("ldr x1, [x1]", 3)],
)
def test_pointers_are_masked_once(body: str, masks: int) -> None:
    """On entry, and where the loop writes the register, twice, if its pointer does not follow."""
    guest = load_guest("aarch64")
    code = dict(zip(range(CODE, CODE + PAGE, 4), loop(*LOOPS[body]), strict=False))
    places = Places(guest)
    region = form_region(guest.tables, places, code.get, CODE, index_bits=37)
    assert region is not None
    text = region_text(region, places)
    assert text.count(" and i64 ") == masks
    assert text.count(" load volatile i32") == 1
