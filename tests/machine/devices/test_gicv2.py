"""Drivers for the GICv2 from IHI 0048B; random ones of one CPU against QEMU's."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.machine.devices.gicv2 import GICv2
from dbt.machine.errors import MapError
from dbt.machine.log import GUEST_ERROR
from dbt.machine.machine import Machine
from dbt.machine.memory import Attributes

from tests.machine.fuzzing import fuzz
from tests.machine.gic_inputs import lines, place_inputs
from tests.machine.qtest import ARM, Bus, agree, qemu

if TYPE_CHECKING:
    from dbt.machine.device import Device

GICD, GICC = 0x0800_0000, 0x0801_0000
CTLR, PMR, BPR, IAR, EOIR, RPR, HPPIR, ABPR, AIAR, AEOIR, AHPPIR = (GICC + 4 * n for n in range(11))
DIR = GICC + 0x1000
SPIS = {"uart": 1, "rtc": 2, "gpio": 7}


def build(cpus: int = 1, *, native: bool = True) -> tuple[Machine, GICv2]:
    machine = Machine(epoch=1_577_836_800, native=native)
    gic = GICv2("gic", machine, cpus=cpus)
    machine.place(gic, GICD, window="GICD")
    machine.place(gic, GICC, window="GICC")
    place_inputs(machine, gic)
    machine.reset()
    return machine, gic


def look(bus: Bus) -> None:
    for register in (CTLR, PMR, BPR, RPR, HPPIR, ABPR, *(GICC + 0xD0 + 4 * n for n in range(8))):
        bus.read(register)
    for base in (0x80, 0x100, 0x200, 0x300):
        bus.read(GICD + base)
        bus.read(GICD + base + 4)
    for offset in (0xF10, 0xF20):
        bus.read(GICD + offset)


def play(seed: int, steps: int, bus: Bus) -> None:
    random = Random(seed)
    numbers = [0, 3, 15, 16, 27, 33, 34, 39]
    for register in (GICD, GICD + 4, GICC + 0xFC, GICD + 0xC00, GICD + 0xC04, GICD + 0x800, GICD + 0xFE8):
        bus.read(register)
    # EOIs are of what was acknowledged: others are unpredictable. It comes from the bus itself.
    active: list[tuple[int, int]] = []
    split = 0
    bus.write(PMR, 0xFF)
    bus.write(GICD, 3)
    bus.write(CTLR, 3)
    for _ in range(steps):
        number = random.choice(numbers)
        match random.randrange(14):
            case 0 | 1:
                lines(bus, random.randrange(3), random.randrange(2))
            case 2:
                bus.write(GICD + random.choice((0x100, 0x104)), random.getrandbits(32))
            case 3:
                bus.write(GICD + 0x400 + number, random.choice((0, 0x40, 0x80, 0xA0, 0xF0, 0xFF)), 1)
            case 4 if not active:
                bus.write(GICD + random.choice((0x80, 0x84)), random.getrandbits(32))
            case 5:
                bus.write(GICD + 0xF00, random.choice((0, 1, 2)) << 24 | 1 << 16 | random.randrange(16))
            case 6:
                bus.write(GICD + random.choice((0x200, 0x204, 0x280, 0x284)), 1 << number % 32)
            case 7 if not active:
                split = random.randrange(2)
                bus.write(CTLR, random.choice((3, 3, 7, 0x13, 0)) | split << 9)  # one group alone: see docs
            case 8 if not active:
                bus.write(PMR, random.choice((0xFF, 0xFF, 0xA0, 0x50)))
            case 9 if not active:
                bus.write(random.choice((BPR, ABPR)), random.randrange(8))
            case 10 | 11:
                found = bus.read(IAR)  # QEMU 7.2 has no AIAR, AEOIR, AHPPIR
                if found & 0x3FF < 1020:
                    active.append((found, split))
            case 12 | 13 if active:
                found, was_split = active.pop()
                bus.write(EOIR, found)
                if was_split:
                    bus.write(DIR, found)
        look(bus)


@pytest.mark.needs("qemu-system-aarch64")
def test_random_drivers_agree_with_qemu() -> None:
    for seed in range(4):
        with qemu(*ARM, "-nodefaults", "-serial", "null", "-rtc", "base=2020-01-01T00:00:00,clock=vm") as theirs:
            assert agree(lambda bus, seed=seed: play(seed, 120, bus), build()[0], theirs) > 1000  # type: ignore[misc]


def setup(machine: Machine, cpus: int = 1) -> list[Attributes]:
    whose = [Attributes(cpu=cpu) for cpu in range(cpus)]
    bus = machine.memory
    bus.write(GICD, 4, 3)
    for cpu in whose:
        bus.write(PMR, 4, 0xFF, cpu)
        bus.write(CTLR, 4, 1, cpu)
    return whose


def test_priorities_preemption_and_the_end_of_interrupts() -> None:
    machine, gic = build()
    bus = machine.memory
    setup(machine)
    inputs = {number: gic.spi(number) for number in (40, 41, 42)}
    bus.write(GICD + 0x108, 4, 0x700)
    for number, priority in ((40, 0xA0), (41, 0x80), (42, 0x40)):
        bus.write(GICD + 0x400 + 32 + number, 1, priority)
    inputs[40].set(True)
    assert gic.irq[0].level
    assert bus.read(IAR, 4) == 72
    assert (gic.irq[0].level, bus.read(RPR, 4), bus.read(IAR, 4)) == (False, 0xA0, 1023)
    inputs[41].set(True)
    inputs[42].set(True)
    assert [bus.read(IAR, 4), bus.read(RPR, 4), bus.read(IAR, 4)] == [74, 0x40, 1023]
    inputs[42].set(False)
    bus.write(EOIR, 4, 74)
    assert [bus.read(IAR, 4), bus.read(RPR, 4)] == [73, 0x80]
    inputs[41].set(False)
    bus.write(EOIR, 4, 73)
    bus.write(EOIR, 4, 72)
    assert bus.read(RPR, 4) == 0xFF
    assert bus.read(IAR, 4) == 72  # its level is still up
    other, copy = build()
    other.restore(machine.save())
    assert (other.memory.read(RPR, 4), copy.irq[0].level) == (0xA0, False)


def test_shared_interrupts_go_where_they_are_sent_and_move() -> None:
    machine, gic = build(4)
    bus = machine.memory
    whose = setup(machine, 4)
    line = gic.spi(8)
    bus.write(GICD + 0x104, 4, 1 << 8)
    bus.write(GICD + 0xC08, 4, 2 << 16)  # an edge
    bus.write(GICD + 0x828, 1, 0b0100)
    line.pulse()
    assert [irq.level for irq in gic.irq] == [False, False, True, False]
    bus.write(GICD + 0x828, 1, 0b1010)
    assert [irq.level for irq in gic.irq] == [False, True, False, True]
    assert bus.read(IAR, 4, whose[3]) == 40
    assert bus.read(IAR, 4, whose[1]) == 1023
    assert [irq.level for irq in gic.irq] == [False] * 4
    bus.write(EOIR, 4, 40, whose[3])
    assert bus.read(GICD + 0x800, 4, whose[2]) == 0x04040404


def test_software_interrupts_say_who_sent_them() -> None:
    machine, gic = build(4)
    bus = machine.memory
    whose = setup(machine, 4)
    bus.write(GICD + 0xF00, 4, 1 << 24 | 5, whose[2])  # to all others
    bus.write(GICD + 0xF00, 4, 0b0001 << 16 | 5, whose[3])
    assert [irq.level for irq in gic.irq] == [True, True, False, True]
    assert bus.read(GICD + 0xF24, 4, whose[0]) == 0b1100 << 8
    assert [bus.read(IAR, 4, whose[0]), bus.read(IAR, 4, whose[0])] == [2 << 10 | 5, 1023]
    bus.write(EOIR, 4, 2 << 10 | 5, whose[0])
    assert bus.read(IAR, 4, whose[0]) == 3 << 10 | 5
    bus.write(GICD + 0xF00, 4, 2 << 24 | 1, whose[2])
    assert bus.read(IAR, 4, whose[2]) == 2 << 10 | 1
    ppi = gic.ppi(1, 11)
    bus.write(GICD + 0x100, 4, 1 << 27, whose[1])
    bus.write(EOIR, 4, bus.read(IAR, 4, whose[1]), whose[1])
    ppi.set(True)
    assert [irq.level for irq in gic.irq] == [False, True, False, True]
    bus.write(GICD + 0xF00, 4, 3 << 24)
    assert machine.log.counts[GUEST_ERROR] == 1


def test_fast_interrupts_and_split_ends() -> None:
    machine, gic = build()
    bus = machine.memory
    setup(machine)
    bus.write(CTLR, 4, 0x20B)
    bus.write(GICD + 0xF00, 4, 2 << 24)
    assert (gic.irq[0].level, gic.fiq[0].level) == (False, True)
    assert bus.read(IAR, 4) == 0
    bus.write(EOIR, 4, 0)
    bus.write(GICD + 0xF00, 4, 2 << 24)
    assert (bus.read(RPR, 4), bus.read(IAR, 4)) == (0xFF, 1023)  # still active
    bus.write(DIR, 4, 0)
    assert bus.read(IAR, 4) == 0


def test_impossible_ones() -> None:
    for cpus, interrupts in ((0, 64), (9, 64), (1, 65), (1, 32)):
        with pytest.raises(MapError, match="1 to 8"):
            GICv2("gic", Machine(), cpus=cpus, interrupts=interrupts)


def test_random_traffic() -> None:
    def also(device: Device, random: Random) -> None:
        assert isinstance(device, GICv2)
        if not device._wires:
            for number in (0, 5, 63):
                device.spi(number)
            device.ppi(2, 3)
        random.choice(device._wires)[2].set(random.random() < 0.5)

    fuzz(lambda machine: GICv2("gic", machine, cpus=3, interrupts=96), 400, also=also, cpus=3)
