"""GICs whose states native code shares and those in Python do the same, whatever software and inputs do."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.machine.devices.gic_native import BEST, unpacked
from dbt.machine.memory import Attributes
from dbt.machine.native import builtin

from tests.machine import icc
from tests.machine.devices import test_gicv2 as gicv2
from tests.machine.gicv3 import GICD, GICR, MEMORY, SGI, build, start

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.devices.gicv2 import GICv2
    from dbt.machine.devices.gicv3 import GICv3
    from dbt.machine.machine import Machine

CPUS, LPIS = 3, 8192
TABLE = MEMORY + (1 << 20)
SETS = (0x80, 0x100, 0x100, 0x180, 0x200, 0x200, 0x280, 0x300, 0x380, 0x380)  # registers of bits
LATER = 5  # resets, saved and restored states: one in so many hundreds of steps


def word(random: Random) -> int:
    return random.choice((0, 0xFFFF_FFFF, 1 << random.randrange(32), random.getrandbits(32) & random.getrandbits(32)))


def priority(random: Random) -> int:
    return random.choice((0, 0x40, 0x43, 0x80, 0xA0, 0xFF, random.randrange(256)))


def through(machines: tuple[Machine, ...], random: Random) -> None:
    """Now and then all is reset, or goes from one side to the other and back."""
    if random.random() < 0.3:
        for machine in machines:
            machine.reset()
    else:
        states = [machine.save() for machine in machines]
        for machine, state in zip(machines, reversed(states), strict=True):
            machine.restore(state)


# GICv3


def awake(machine: Machine, gic: GICv3) -> None:
    """As a kernel begins, with LPIs."""
    for number, cpu in enumerate(start(machine, gic)):
        frame = GICR + 0x2_0000 * number
        machine.memory.write(frame + 0x70, 8, TABLE | 13)
        machine.memory.write(frame + 0x78, 8, TABLE + (number + 1 << 16) | 1 << 62)
        machine.memory.write(frame, 4, 1)
        cpu[icc.PMR] = 0xFF
    for slot in (1, 2):
        machine.memory.write(GICD + 0x100 + 4 * slot, 4, 0xFFFF_FFFF)


def interface(random: Random, cpu: int) -> Callable[[Machine, GICv3], object]:
    """A system register."""
    register, value = random.choice((
        (icc.IAR0, None), *[(icc.IAR1, None)] * 3, (icc.RPR, None), (icc.HPPIR0, None), (icc.HPPIR1, None),
        (icc.PMR, random.choice((0xFF, priority(random)))),
        (icc.BPR0, random.randrange(8)), (icc.BPR1, random.randrange(8)),
        (icc.CTLR, random.choice((0, 1, 2, 0x40, 0x40, 0x43))),
        (icc.IGRPEN0, random.random() < 0.9), (icc.IGRPEN1, random.random() < 0.9),
        (icc.AP0R + random.randrange(4), random.choice((0, word(random)))), (icc.AP1R + random.randrange(4), 0),
        (icc.SGI0R, random.randrange(16) << 24 | random.randrange(8)),
        (icc.SGI1R, random.randrange(16) << 24 | 1 << 40),
        *(
            (each, random.choice((random.randrange(96), LPIS + random.randrange(32))))
            for each in (icc.EOIR0, icc.EOIR1, icc.DIR)
        ),
    ))  # fmt: skip
    if value is None:
        return lambda _, gic: gic.interfaces[cpu].read(register)
    return lambda _, gic: gic.interfaces[cpu].write(register, int(value))


def operation(random: Random) -> Callable[[Machine, GICv3], object]:
    cpu, slot = random.randrange(CPUS), random.randrange(3)
    frame = GICR + 0x2_0000 * cpu
    bank = GICD + 4 * slot if slot else frame + SGI
    number, level = random.randrange(16, 96), random.random() < 0.6
    match random.randrange(16):
        case 0 | 1 | 2 if number < 32:
            return lambda _, gic: gic.redistributors[cpu]._wires[number - 16][2].set(level)
        case 0 | 1 | 2:
            return lambda _, gic: gic._wires[number - 29][2].set(level)
        case 3 | 4:
            at, value = bank + random.choice(SETS), word(random)
            return lambda machine, _: machine.memory.write(at, 4, value)
        case 5:
            at = (GICD + 0x400 + number) if slot else frame + SGI + 0x400 + number % 32
            value = priority(random)
            return lambda machine, _: machine.memory.write(at, 1, value)
        case 6:
            at, value = GICD + 0x6000 + 8 * number, random.choice((0, 1, 2, 1 << 31, 1 << 31, 1 << 31, 77))
            return lambda machine, _: machine.memory.write(at, 8, value)
        case 7:
            at, value = (GICD + 0xC00 + number // 16 * 4) if slot else frame + SGI + 0xC04, word(random)
            return lambda machine, _: machine.memory.write(at, 4, value)
        case 8:
            at, value = random.choice((
                (GICD, random.choice((0, 1, 2, 3, 3, 3))), (frame + 0x14, random.choice((0, 0, 2))),
                (frame, random.choice((0, 1, 1, 1)) | random.randrange(4) << 24),
            ))  # fmt: skip
            return lambda machine, _: machine.memory.write(at, 4, value)
        case 9:
            index, configuration = random.randrange(32), priority(random) & 0xFC | level

            def send(machine: Machine, gic: GICv3) -> None:
                machine.memory.write(TABLE + index, 1, configuration)
                gic.redistributors[cpu].lpis.set(LPIS + index)
                gic.redistributors[cpu].lpis_changed()

            return send
        case _:
            return interface(random, cpu)


@pytest.mark.parametrize("seed", range(4))
def test_gicv3_does_the_same(seed: int) -> None:
    random = Random(seed)
    sides = tuple(build(CPUS, interrupts=96, native=native) for native in (True, False))
    assert [gic.shared is not None for _, gic in sides] == [True, False]
    for machine, gic in sides:
        for number in range(64):
            gic.spi(number)
        for cpu in range(CPUS):
            for number in range(16):
                gic.ppi(cpu, number)
        awake(machine, gic)
    taken = raised = 0
    for step in range(2500):
        do = operation(random)
        results = [do(machine, gic) for machine, gic in sides]
        assert results[0] == results[1], step
        taken += isinstance(results[0], int) and results[0] is not True and 0 < results[0] != 1023
        if random.random() < LATER / 1000:
            through(tuple(machine for machine, _ in sides), random)
            for machine, gic in sides:
                awake(machine, gic)
        (_, first), (_, second) = sides
        for one, other in zip(first.interfaces, second.interfaces, strict=True):
            assert one.wanted() == other.wanted(), step
            lines = (
                (each.irq.level, each.fiq.level, each.redistributor.wake_request.level) for each in (one, other)
            )  # fmt: skip
            now = next(lines)
            assert now == next(lines), step
            raised += any(now)
        if step % 10 == 0:
            states = [[device.save() for device in machine.devices.values()] for machine, _ in sides]
            assert states[0] == states[1], step
    assert taken > 30
    assert raised > 1000


# GICv2


def operation_2(random: Random) -> Callable[[Machine, GICv2], object]:
    cpu, number, level = random.randrange(CPUS), random.randrange(16, 96), random.random() < 0.6
    me = Attributes(cpu=cpu)
    at, value, size = random.choice((
        *((gicv2.GICD + each + 4 * random.randrange(3), word(random), 4) for each in SETS[:: random.choice((1, 2))]),
        (gicv2.GICD + 0x400 + number, priority(random), 1), (gicv2.GICD + 0x800 + number, random.randrange(8), 1),
        (gicv2.GICD + 0xC00 + number // 16 * 4, word(random), 4), (gicv2.GICD, random.choice((0, 1, 2, 3, 3, 3)), 4),
        (gicv2.GICD + 0xF00, random.randrange(3) << 24 | random.randrange(8) << 16 | random.randrange(16), 4),
        (gicv2.GICD + 0xF10 + random.randrange(32), random.randrange(8), 1),
        (gicv2.CTLR, random.choice((3, 3, 7, 0xB, 0x13, 0x203, random.getrandbits(10) & 0x21F)), 4),
        (gicv2.PMR, random.choice((0xFF, 0xFF, priority(random))), 4), (gicv2.BPR, random.randrange(8), 4),
        (gicv2.ABPR, random.randrange(8), 4), (gicv2.GICC + 0xD0 + 4 * random.randrange(8), 0, 4),
    ))  # fmt: skip
    read = random.choice((gicv2.IAR, gicv2.IAR, gicv2.AIAR, gicv2.RPR, gicv2.HPPIR, gicv2.AHPPIR))
    end = random.choice((gicv2.EOIR, gicv2.EOIR, gicv2.AEOIR, gicv2.DIR))
    match random.randrange(12):
        case 0 | 1 | 2 if number < 32:
            return lambda _, gic: gic._wires[67 + 16 * cpu + number - 16][2].set(level)
        case 0 | 1 | 2:
            return lambda _, gic: gic._wires[number - 29][2].set(level)
        case 3 | 4 | 5:
            return lambda machine, _: machine.memory.read(read, 4, me)
        case 6 | 7:
            return lambda machine, _: machine.memory.write(end, 4, number if level else number % 16, me)
        case _:
            return lambda machine, _: machine.memory.write(at, size, value, me)


@pytest.mark.parametrize("seed", range(4))
def test_gicv2_does_the_same(seed: int) -> None:
    random = Random(seed)
    sides = tuple(gicv2.build(CPUS, native=native) for native in (True, False))
    assert [gic.shared is not None for _, gic in sides] == [True, False]
    for _, gic in sides:
        for number in range(64):
            gic.spi(number)
        for cpu in range(CPUS):
            for number in range(16):
                gic.ppi(cpu, number)
    taken = raised = 0
    for step in range(4000):
        do = operation_2(random)
        results = [do(machine, gic) for machine, gic in sides]
        assert results[0] == results[1], step
        taken += isinstance(results[0], int) and 0 < results[0] < 1020
        if random.random() < LATER / 1000:
            through(tuple(machine for machine, _ in sides), random)
        (_, first), (_, second) = sides
        for cpu in range(CPUS):
            assert first._best(cpu) == second._best(cpu), step
            now = first.irq[cpu].level, first.fiq[cpu].level
            assert now == (second.irq[cpu].level, second.fiq[cpu].level), step
            raised += any(now)
        if step % 10 == 0:
            assert first.save() == second.save(), step
    assert taken > 100
    assert raised > 500


@pytest.mark.parametrize("native", [True, False])
def test_restored_states_may_have_interrupts_that_there_are_not(native: bool) -> None:
    machine, gic = build(interrupts=1024, native=native)
    saved = gic.save()
    for name in ("enabled", "latched"):
        saved["state"][name] = [0xFFFF_FFFF] * 32
    saved["state"]["priority"][1020:] = [0] * 4
    saved["state"]["priority"][:1020] = [0x80] * 1020
    gic.restore(saved)
    start(machine, gic)
    assert gic.interfaces[0].wanted()[0][0] == 0x80


@pytest.mark.parametrize("native", [True, False])
def test_priorities_hide_cpus_from_what_may_go_to_any(native: bool) -> None:
    machine, gic = build(2, native=native)
    cpus = start(machine, gic)
    machine.memory.write(GICD + 0x104, 4, 4)
    machine.memory.write(GICD + 0x422, 1, 0x80)
    machine.memory.write(GICD + 0x6000 + 8 * 34, 8, 1 << 31)
    gic.spi(2).set(True)
    assert [cpu.lines[0] for cpu in cpus] == [True, False]
    cpus[0][icc.PMR] = 0x80
    assert [cpu.lines[0] for cpu in cpus] == [False, False]
    cpus[0][icc.CTLR] = 0x40
    assert [cpu.lines[0] for cpu in cpus] == [False, True]
    cpus[0][icc.PMR] = 0x81
    assert [cpu.lines[0] for cpu in cpus] == [True, False]


def test_one_word_says_what_a_cpu_is_offered() -> None:
    machine, gic = build(2)
    start(machine, gic)
    machine.memory.write(GICD + 0x104, 4, 4)
    machine.memory.write(GICD + 0x422, 1, 0x80)
    line = gic.spi(2)
    line.set(True)
    assert gic.shared is not None
    assert unpacked(gic.shared.cpu[0][BEST]) == ((0x80, 34), 1)
    assert unpacked(gic.shared.cpu[1][BEST]) == ((0x100, 1023), 0)


def test_without_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "load", lambda: None)
    builtin.builtins.cache_clear()
    try:
        _, gic = build()
    finally:
        builtin.builtins.cache_clear()
    assert gic.shared is None
