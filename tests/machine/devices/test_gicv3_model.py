"""The GICv3 against a model that is too simple to be wrong: every interrupt is looked at again for every question."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest

from tests.machine import icc
from tests.machine.gicv3 import GICD, GICR, SGI, build, start

CPUS = 3
PRIVATE = (0, 1, 5, 20, 27, 31)
SHARED = (32, 33, 40, 63, 64, 90)
SPURIOUS = 1023
PRIORITIES = (0x00, 0x20, 0x40, 0x41, 0x43, 0x48, 0x80, 0xA0, 0xFE, 0xFF)


@dataclass
class Interrupt:
    number: int
    cpu: int  # whose it is, or where it goes
    edge: bool = False
    line: bool = False
    latched: bool = False
    active: bool = False
    enabled: bool = False
    group: int = 1
    priority: int = 0

    @property
    def waits(self) -> bool:
        return (self.latched or (self.line and not self.edge)) and self.enabled and not self.active


@dataclass
class Interface:
    mask: int = 0xFF
    points: list[int] = field(default_factory=lambda: [0, 1])
    enables: list[bool] = field(default_factory=lambda: [True, True])
    common: bool = False
    split: bool = False
    runs: list[tuple[int, int]] = field(default_factory=list)  # (group priority, group), the last is the newest


class Model:
    def __init__(self) -> None:
        self.cpus = [Interface() for _ in range(CPUS)]
        self.enables = [True, True]
        self.private = {
            (cpu, number): Interrupt(number, cpu, edge=number < 16, enabled=number < 16)
            for cpu in range(CPUS)
            for number in PRIVATE
        }
        self.shared = {number: Interrupt(number, 0) for number in SHARED}

    def find(self, cpu: int, number: int) -> Interrupt:
        return self.private[cpu, number] if number < 32 else self.shared[number]

    def keep(self, cpu: int, priority: int, group: int) -> int:
        """The part of a priority that may preempt."""
        me = self.cpus[cpu]
        bits = me.points[0] + 1 if not group or me.common else me.points[1]
        return priority >> bits << bits

    def wanted(self, cpu: int) -> Interrupt | None:
        me = self.cpus[cpu]
        waiting = [
            interrupt
            for interrupt in (*self.private.values(), *self.shared.values())
            if interrupt.cpu == cpu and interrupt.waits
            if me.enables[interrupt.group] and self.enables[interrupt.group]
        ]
        return min(waiting, key=lambda interrupt: (interrupt.priority, interrupt.number), default=None)

    def running(self, cpu: int) -> int:
        return self.cpus[cpu].runs[-1][0] if self.cpus[cpu].runs else 0xFF

    def signalled(self, cpu: int) -> Interrupt | None:
        found = self.wanted(cpu)
        if found is None or found.priority >= self.cpus[cpu].mask:
            return None
        if self.cpus[cpu].runs:
            level = self.keep(cpu, self.running(cpu), found.group)
            if self.keep(cpu, found.priority, found.group) >= level:
                return None
        return found

    def acknowledge(self, cpu: int, group: int) -> int:
        found = self.signalled(cpu)
        if found is None or found.group != group:
            return SPURIOUS
        self.cpus[cpu].runs.append((self.keep(cpu, found.priority, group), group))
        found.active, found.latched = True, False
        return found.number

    def end(self, cpu: int, number: int, group: int) -> None:
        me = self.cpus[cpu]
        if me.runs and me.runs[-1][1] == group:
            me.runs.pop()
            if not me.split:
                self.find(cpu, number).active = False

    def lines(self, cpu: int) -> tuple[bool, bool]:
        found = self.signalled(cpu)
        return (found is not None and found.group == 1, found is not None and found.group == 0)


@pytest.mark.parametrize("seed", range(6))
def test_random_work_agrees_with_the_model(seed: int) -> None:
    random = Random(seed)
    machine, gic = build(CPUS, interrupts=96)
    bus = machine.memory
    cpus = start(machine, gic)
    model = Model()
    wires = {(cpu, number): gic.ppi(cpu, number - 16) for cpu in range(CPUS) for number in PRIVATE if number >= 16}
    shared = {number: gic.spi(number - 32) for number in SHARED}
    taken: list[tuple[int, int, int]] = []  # CPU, number, group
    split: list[tuple[int, int]] = []

    def place(base: int, cpu: int, number: int, size: int = 1) -> int:
        """The address of an interrupt's bit's word, or of its byte."""
        at = GICR + 0x2_0000 * cpu + SGI + base if number < 32 else GICD + base
        return at + (4 * (number // 32) if size == 1 else number)

    acknowledged = nested = 0
    for step in range(6000):
        cpu = random.randrange(CPUS)
        me, interface = model.cpus[cpu], cpus[cpu]
        number = random.choice(PRIVATE + SHARED)
        interrupt = model.find(cpu, number)
        bit = 1 << number % 32
        group = random.randrange(2)
        match random.randrange(23):
            case 0 | 1 | 2 if number >= 16:
                level = random.random() < 0.6
                (wires[cpu, number] if number < 32 else shared[number]).set(level)
                interrupt.latched |= interrupt.edge and level and not interrupt.line
                interrupt.line = level
            case 3 | 4:
                interrupt.enabled = random.random() < 0.8
                bus.write(place(0x100 if interrupt.enabled else 0x180, cpu, number), 4, bit)
            case 5:
                interrupt.priority = random.choice(PRIORITIES)
                bus.write(place(0x400, cpu, number, 8), 1, interrupt.priority)
            case 6 if not interrupt.active:
                interrupt.group = group
                at = place(0x80, cpu, number)
                bus.write(at, 4, bus.read(at, 4) & ~bit | group * bit)
            case 7:
                interrupt.latched = random.random() < 0.7
                bus.write(place(0x200 if interrupt.latched else 0x280, cpu, number), 4, bit)
            case 8 if number >= 32:
                interrupt.cpu = random.randrange(CPUS)
                bus.write(GICD + 0x6000 + 8 * number, 8, interrupt.cpu)
            case 9 if number >= 16 and not interrupt.line:
                interrupt.edge = random.random() < 0.5
                at = place(0xC00, cpu, number) + 4 * (number // 16 - number // 32)
                field_bit = 2 << 2 * (number % 16)
                bus.write(at, 4, bus.read(at, 4) & ~field_bit | interrupt.edge * field_bit)
            case 10:
                targets = random.randrange(1 << CPUS)
                sgi = random.choice((0, 1, 5))
                interface[icc.SGI1R if group else icc.SGI0R] = sgi << 24 | targets
                for target in range(CPUS):
                    if targets >> target & 1 and model.private[target, sgi].group == group:
                        model.private[target, sgi].latched = True
            case 11:
                me.mask = random.choice((0xFF, 0xFF, 0xA0, 0x44))
                interface[icc.PMR] = me.mask
            case 12:
                point = random.choice((0, 0, 1, 1, 2, 4, 7))
                me.points[group] = max(point, group)
                if not (me.common and group):
                    interface[(icc.BPR0, icc.BPR1)[group]] = point
                elif me.common:
                    me.points[1] = interface.interface.ICC_BPR1_EL1
            case 13:
                me.common = random.random() < 0.3
                me.split = random.random() < 0.3
                interface[icc.CTLR] = me.common | me.split << 1
            case 14:
                which = random.choice((me.enables, model.enables))
                which[group] = random.random() < 0.8
                interface[icc.IGRPEN0], interface[icc.IGRPEN1] = map(int, me.enables)
                bus.write(GICD, 4, model.enables[0] | model.enables[1] << 1)
            case 15 | 16 | 17:
                if random.random() < 0.7:
                    ready = [each for each in range(CPUS) if any(model.lines(each))]
                    cpu = max(ready, key=lambda each: len(model.cpus[each].runs), default=cpu)
                    group = int(model.lines(cpu)[0])
                number = cpus[cpu][(icc.IAR0, icc.IAR1)[group]]
                assert number == model.acknowledge(cpu, group)
                if number != SPURIOUS:
                    taken.append((cpu, number, group))
                    acknowledged += 1
                    nested = max(nested, len(model.cpus[cpu].runs))
            case 18 if taken:
                cpu, number, group = taken.pop(-1 if random.random() < 0.8 else random.randrange(len(taken)))
                model.end(cpu, number, group)
                cpus[cpu][(icc.EOIR0, icc.EOIR1)[group]] = number
                if model.cpus[cpu].split:
                    split.append((cpu, number))
            case 19 if split:
                cpu, number = split.pop()
                if model.cpus[cpu].split:
                    model.find(cpu, number).active = False
                cpus[cpu][icc.DIR] = number
            case 20 | 21:
                interrupt.active = random.random() < 0.1
                bus.write(place(0x300 if interrupt.active else 0x380, cpu, number), 4, bit)
            case 22 if me.runs and all(whose != cpu for whose, _, _ in taken):
                me.runs.clear()  # ends were written in another order than they may be
                for index in range(4):
                    interface[icc.AP0R + index] = interface[icc.AP1R + index] = 0
        for each in range(CPUS):
            assert cpus[each].lines == model.lines(each), step
            assert cpus[each][icc.RPR] == model.running(each), step
            found = model.wanted(each)
            pending = [SPURIOUS, SPURIOUS]
            if found:
                pending[found.group] = found.number
            assert [cpus[each][icc.HPPIR0], cpus[each][icc.HPPIR1]] == pending, step
    assert acknowledged > 150
    assert nested > 2
