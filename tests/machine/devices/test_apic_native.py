"""Local APICs whose sets native code shares and those in Python do the same; and CPUs that take interrupts natively."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.machine.devices.apic import IA32_APIC_BASE
from dbt.machine.devices.apic_native import OFFERED
from dbt.machine.native import builtin
from dbt.machine.native.apic import ASKS, EXTERNAL, LEVEL, NOTHING, TIMER, VECTOR

from tests.machine.apic import DIVIDE, EOI, ERROR, ESR, ICR, INITIAL, LINT0, LINT1, PAGE, SVR, TPR, Cpus
from tests.machine.apic import TIMER as LVT_TIMER

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.devices.apic import LocalApic

COUNT, STEPS = 3, 4000


class Side(Cpus):
    """A machine. `direct`: its CPUs take and end interrupts by native calls, and come out if flags say so."""

    def __init__(self, *, native: bool, direct: bool = False) -> None:
        super().__init__(COUNT, native=native)
        self.direct = direct
        self.rises = [0] * COUNT
        self.pic = 0x20
        for number, apic in enumerate(self.apics):
            assert (apic.shared is not None) == native
            apic.intr.connect(lambda level, number=number: self._rose(number, level))  # type: ignore[misc]
            apic._acknowledge_pic = self._inta
        self.pins = [self.ioapic.input(pin) for pin in (3, 5)]
        self.enable()

    def _rose(self, number: int, level: bool) -> None:
        self.rises[number] += level

    def _inta(self) -> int:
        self.pic += 1
        return self.pic & 0xFF

    def take(self, cpu: int) -> int:
        """The CPU takes an interrupt."""
        apic = self.apics[cpu]
        if not self.direct:
            return apic.acknowledge()
        assert apic.shared
        found = apic.shared.acknowledge()
        return apic.acknowledged(found) if found & (TIMER | EXTERNAL) else found & 0xFF

    def end(self, cpu: int) -> None:
        """It is done."""
        apic = self.apics[cpu]
        if not self.direct or not apic.enabled or apic.x2apic:
            self.put(cpu, EOI, 0)
            return
        assert apic.shared
        found = apic.shared.end()
        if found != NOTHING and found & LEVEL:
            apic.ended(found)

    def asks(self, cpu: int) -> bool:
        """What the CPU sees."""
        apic = self.apics[cpu]
        return bool(apic.shared.words[OFFERED] & ASKS) if apic.shared and self.direct else apic.intr.level


def entry(random: Random) -> int:
    """Of the local vector table."""
    mode = random.choice((0, 0, 0, 0x700, 0x400, 0x200))
    return (
        random.randrange(256)
        | mode
        | random.choice((0, 1 << 16))
        | random.choice((0, 1 << 15))
        | random.choice((0, 1 << 13))
    )


def of_cpu(random: Random) -> Callable[[Side], object]:
    """What a CPU does with its interrupts."""
    cpu = random.randrange(COUNT)
    return (lambda side: side.take(cpu)) if random.random() < 0.6 else (lambda side: side.end(cpu))


def operation(random: Random) -> Callable[[Side], object]:
    """What comes from elsewhere, or goes through registers."""
    cpu, vector = random.randrange(COUNT), random.choice((random.randrange(256), random.randrange(0x40, 0x60)))
    level, which = random.random() < 0.5, random.randrange(2)
    match random.randrange(10):
        case 0:
            command = (
                vector | random.choice((0, 0, 0x100, 0x400)) | random.randrange(4) << 18 | random.choice((0, 0x800))
            )
            destination = random.choice((cpu, 0xFF, random.getrandbits(8)))
            return lambda side: side.send(cpu, command, destination)
        case 1:
            return lambda side: side.pins[which].set(level)
        case 2:
            line = vector | random.choice((0, 0x8000)) | random.choice((0, 0, 1 << 16)) | cpu << 56
            return lambda side: side.redirect((3, 5)[which], line)
        case 3:
            return lambda side: (side.apics[cpu].lint1 if which else side.apics[cpu].lint0).set(level)
        case 4:
            at, value = random.choice((
                (TPR, random.choice((0, vector))), (LINT0, entry(random)), (LINT1, entry(random)), (ESR, 0),
                (ERROR, vector), (SVR, random.choice((0x1FF, 0x1FF, 0x1FF, 0x11FF, vector))),
                (SVR, 0x100 | vector), (ICR, vector | 0x4_0000),
            ))  # fmt: skip
            return lambda side: side.put(cpu, at, value)
        case 5:
            at, value = random.choice((
                (LVT_TIMER, vector | random.choice((0, 1 << 17))), (INITIAL, random.randrange(2000)), (DIVIDE, 0xB),
            ))  # fmt: skip
            return lambda side: side.put(cpu, at, value)
        case 6:
            time = random.choice((1, 100, 5000))
            return lambda side: side.machine.advance(time)
        case 7:
            priority = random.choice((0, 0, vector))
            return lambda side: side.put(cpu, TPR, priority)
        case 8 if level and which:  # a local APIC that is disabled, and enabled again
            base = random.choice((PAGE, PAGE | 0x800, PAGE | 0x800))

            def switch(side: Side) -> None:
                side.apics[cpu].write_msr(IA32_APIC_BASE, base)
                side.enable()

            return switch
        case _:
            message = random.choice((0x700, vector)), cpu << 12
            return lambda side: side.bus.msi(message[1], message[0], 0)


def states(side: Side) -> list[object]:
    return [device.save() for device in side.machine.devices.values()]


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_it_does_the_same(seed: int, direct: bool) -> None:
    random = Random(seed)
    sides = Side(native=True, direct=direct), Side(native=False)
    taken = rose = 0
    for step in range(STEPS):
        itself = random.random() < 0.4
        do = (of_cpu if itself else operation)(random)
        before = [list(side.rises) for side in sides]
        results = [do(side) for side in sides]
        assert results[0] == results[1], step
        taken += isinstance(results[0], int) and results[0] is not True
        if random.random() < 0.005:
            change(random, sides)
            before = [list(side.rises) for side in sides]
        for cpu in range(COUNT):
            assert sides[0].asks(cpu) == sides[1].asks(cpu), step
            rises = [side.rises[cpu] - was[cpu] for side, was in zip(sides, before, strict=True)]
            if not direct:
                assert rises[0] == rises[1], step
            elif rises[1] and not itself:  # a CPU that has ended an interrupt looks itself at what waits
                assert rises[0], step
            rose += rises[0]
        if step % 10 == 0:
            assert states(sides[0]) == states(sides[1]), step
    assert [side.pic for side in sides] == [sides[0].pic] * 2
    assert taken > STEPS // 5
    assert rose > 200
    assert sides[0].pic > 0x28
    assert [events.seen for events in sides[0].events] == [events.seen for events in sides[1].events]


def change(random: Random, sides: tuple[Side, Side]) -> None:
    """A reset, or states that go from one side to the other, or INIT."""
    match random.randrange(4):
        case 0:
            for side in sides:
                side.machine.reset()
                side.enable()
        case 1 | 2:
            saved = [side.machine.save() for side in sides]
            for side, state in zip(sides, reversed(saved), strict=True):
                side.machine.restore(state)
        case _:
            for side in sides:
                side.apics[1].on_init()
                side.enable()


@pytest.mark.parametrize("native", [True, False])
def test_restored_states_may_have_requests_of_an_apic_that_is_disabled(native: bool) -> None:
    side = Side(native=native)
    apic = side.apics[0]
    saved = apic.save()
    saved["state"]["base"] = PAGE
    saved["state"]["requested"] = [0xFFFF_FFFF] * 8
    apic.restore(saved)
    assert not apic.intr.level
    apic.lint0.set(True)
    assert (apic.intr.level, apic.acknowledge(), apic.requested[7]) == (True, 0x21, 0xFFFF_FFFF)
    saved["state"]["base"] |= 0x800
    apic.restore(saved)
    assert (apic.intr.level, apic.acknowledge(), apic.requested[7]) == (True, 0xFF, 0x7FFF_FFFF)


def test_the_word_and_the_flags_that_a_native_cpu_gets() -> None:
    side = Side(native=True, direct=True)
    apic: LocalApic = side.apics[0]
    assert apic.shared
    words = apic.shared.words
    assert (words[OFFERED], apic.shared.end(), apic.shared.acknowledge() & 0xFF) == (NOTHING, NOTHING, 0xFF)
    side.put(0, LVT_TIMER, 0x55)
    for vector, level in ((0x41, False), (0x55, False), (0x62, True)):
        apic.accept(vector, level=level)
    assert words[OFFERED] == 0x62 | ASKS
    assert apic.shared.acknowledge() == 0x62
    assert words[OFFERED] & VECTOR == NOTHING  # 0x55 is less urgent than what runs
    assert apic.shared.end() == 0x62 | LEVEL
    assert apic.shared.acknowledge() == 0x55 | TIMER
    assert apic.shared.end() == 0x55
    assert side.bits(0, 0x200) == {0x41}  # the registers show what is in the struct
    rises = side.rises[0]
    assert apic.shared.acknowledge() == 0x41
    apic.accept(0x91, level=False)  # the line was never told that 0x41 is taken: now it falls and rises
    assert (side.rises[0], apic.intr.level) == (rises + 1, True)
    side.put(0, LINT0, 0x700)
    apic.lint0.set(True)
    assert apic.shared.acknowledge() == 0x91
    assert words[OFFERED] == NOTHING | ASKS
    assert apic.shared.acknowledge() == EXTERNAL
    assert apic.acknowledged(EXTERNAL) == 0x21
    assert apic.base & ~0xFFF == PAGE


def test_without_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "load", lambda: None)
    builtin.builtins.cache_clear()
    try:
        cpus = Cpus(1)
    finally:
        builtin.builtins.cache_clear()
    assert cpus.apics[0].shared is None
