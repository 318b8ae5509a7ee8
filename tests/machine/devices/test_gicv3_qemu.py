"""Random drivers of the GICv3: its memory-mapped registers against QEMU's."""

from __future__ import annotations

from random import Random

import pytest

from tests.machine.gic_inputs import lines
from tests.machine.gicv3 import ARM3, ARM3_RTC, GICD, GICR, SGI, build, masked
from tests.machine.qtest import Bus, agree, qemu


def look(bus: Bus) -> None:
    """The three inputs are of word 1: QEMU's pending registers do not show levels."""
    bus.read(GICD)
    for base in (0x80, 0x100, 0x180, 0x300, 0x380):
        bus.read(GICD + base + 4)
        for cpu in (0, 1):
            bus.read(GICR + 0x2_0000 * cpu + SGI + base)
    for base in (0x200, 0x280):
        masked(bus, GICD + base + 4, 4, ~0b1000_0110)
        for cpu in (0, 1):
            bus.read(GICR + 0x2_0000 * cpu + SGI + base)


def play(seed: int, steps: int, bus: Bus) -> None:
    random = Random(seed)
    masked(bus, GICD + 4, 4, ~(1 << 25 | 1 << 16 | 0x1F))  # 1 of N and messages; QEMU 7.2 has one word too few
    for offset in (0, 8, 0xC, 0x10, 0x80, 0x100, 0x400, 0x800, 0xC00, 0xD04, 0xE04, 0xF00, *range(0xFFD0, 0x10000, 4)):
        bus.read(GICD + offset)
    for cpu in (0, 1):
        frame = GICR + 0x2_0000 * cpu
        masked(bus, frame + 8, 8, ~(1 << 5))  # DPGS
        for offset in (0, 4, 0x10, 0x14, 0x18, SGI + 0xC00, SGI + 0xC04, SGI + 0xD00, *range(0xFFD0, 0x10000, 4)):
            bus.read(frame + offset)
    bus.write(GICD + 0xC08, 0x8000_8028)  # the three inputs are edges: numbers 33, 34, 39
    for _ in range(steps):
        word = random.randrange(1, 8)
        frame = GICR + 0x2_0000 * random.randrange(2)
        bits = random.getrandbits(32)
        some = random.choice((0x80, 0x100, 0x180, 0x200, 0x280, 0x300, 0x380))
        match random.randrange(11):
            case 0 | 1:
                lines(bus, random.randrange(3), random.randrange(2))
            case 2 | 3:
                bus.write(GICD + some + 4 * word, bits & random.getrandbits(32))
            case 4 | 5:
                bus.write(frame + SGI + some, bits & random.getrandbits(32))
            case 6:
                at = GICD + 0x400 + random.randrange(256)
                size = random.choice((1, 1, 4))
                bus.write(at & -size, bits & (1 << 8 * size) - 1, size)
                bus.read(at & -size, size)
            case 7:
                at = frame + SGI + 0x400 + random.randrange(32)
                bus.write(at, bits & 0xFF, 1)
                bus.read(at & -4)
            case 8:
                route = random.choice((0, 1, 2, 1 << 31, 1 << 32, 0xFF_0034_1200))
                at = GICD + 0x6000 + 8 * random.randrange(32, 256)
                if random.random() < 0.5:
                    bus.write(at, route, 8)
                else:
                    bus.write(at + random.choice((0, 4)), route & 0xFF, 4)
                bus.read(at, 8)
                bus.read(at + 4)
            case 9:
                bus.write(GICD, random.randrange(4))
            case 10:
                at = random.choice((GICD + 0xC00 + 4 * random.randrange(3, 16), frame + SGI + 0xC04))
                bus.write(at, bits & 0xAAAA_AAAA)
                bus.read(at)
        look(bus)
    for waker in (0, 2):
        bus.write(GICR + 0x14, waker)
        bus.read(GICR + 0x14)


@pytest.mark.needs("qemu-system-aarch64")
def test_random_drivers_agree_with_qemu() -> None:
    for seed in range(3):
        with qemu(*ARM3, *ARM3_RTC) as theirs:
            assert agree(lambda bus, seed=seed: play(seed, 150, bus), build(2)[0], theirs) > 3000  # type: ignore[misc]
