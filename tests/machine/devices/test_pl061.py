"""A driver for the PL061 from DDI 0190, on our device and on QEMU's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from dbt.machine.devices.pl061 import PL061
from dbt.machine.machine import Machine

from tests.machine.fuzzing import fuzz
from tests.machine.qtest import ARM, Bus, agree, qemu

if TYPE_CHECKING:
    from random import Random

    from dbt.machine.device import Device
    from dbt.machine.lines import Line

BASE = 0x0903_0000
DIR, IS, IBE, IEV, IE, RIS, MIS, IC, AFSEL = (BASE + 0x400 + 4 * n for n in range(9))


def build() -> tuple[Machine, PL061, list[Line]]:
    machine = Machine()
    gpio = PL061("gpio", machine)
    machine.place(gpio, BASE)
    machine.reset()
    return machine, gpio, [gpio.input(pin) for pin in range(8)]


def script(bus: Bus) -> None:
    """Directions, address masks, level interrupts; pins are low outside."""

    def look() -> None:
        for register in (DIR, IS, IBE, IEV, IE, RIS, MIS, AFSEL, BASE + 0x3FC, BASE + 4 * 0x5A, BASE):
            bus.read(register)

    look()
    for offset in range(0xFE0, 0x1000, 4):
        bus.read(BASE + offset)
    for register, value in (
        (DIR, 0x0F), (BASE + 0x3FC, 0xFF), (BASE + 4 * 0x33, 0x05), (BASE + 0x3FC, 0), (DIR, 0xF0), (IBE, 0x81),
        (BASE + 4 * 0x81, 0xFF), (IE, 0xF8), (IEV, 0x0F), (IS, 0xFF), (IC, 0xFF), (AFSEL, 0xA5), (IE, 0),
    ):  # fmt: skip
        bus.write(register, value)
        look()


@pytest.mark.needs("qemu-system-aarch64")
def test_it_agrees_with_qemu() -> None:
    with qemu(*ARM, "-nodefaults") as theirs:
        assert agree(script, build()[0], theirs) > 150


@pytest.mark.parametrize(("ibe", "iev", "edges"), [(0, 1, [False, True]), (0, 0, [True, False]), (1, 0, [True, True])])
def test_edges(ibe: int, iev: int, edges: list[bool]) -> None:
    machine, gpio, pins = build()
    bus = machine.memory
    for register, value in ((IBE, ibe << 3), (IEV, iev << 3), (IE, 8)):
        bus.write(register, 4, value)
    pins[3].set(True)
    bus.write(IC, 4, 0xFF)
    seen = []
    for level in (False, True):
        pins[3].set(level)
        seen.append(gpio.irq.level)
        assert bus.read(RIS, 4) == bus.read(MIS, 4) == 8 * seen[-1]
        bus.write(IC, 4, 8)
        assert not gpio.irq.level
    assert seen == edges
    assert bus.read(BASE + 0x3FC, 4) == 8


def test_levels_and_outputs() -> None:
    machine, gpio, pins = build()
    bus = machine.memory
    for register, value in ((IS, 4), (IEV, 4), (IE, 4), (DIR, 1)):
        bus.write(register, 4, value)
    levels = []
    for level in (True, False, True):
        pins[2].set(level)
        levels.append(gpio.irq.level)
    assert levels == [True, False, True]
    bus.write(IC, 4, 4)
    assert gpio.irq.level  # a level is not cleared
    bus.write(BASE + 4, 4, 1)
    assert (gpio.pins[0].level, gpio.levels) == (True, 5)
    other, copy, _ = build()
    other.restore(machine.save())
    assert (copy.irq.level, copy.levels, copy.pins[0].level) == (True, 5, True)
    gpio.reset()
    assert (gpio.irq.level, gpio.levels, gpio.pins[0].level) == (False, 4, False)


def test_random_traffic() -> None:
    def also(device: Device, random: Random) -> None:
        assert isinstance(device, PL061)
        device.input(random.randrange(8)).set(random.random() < 0.5)

    fuzz(lambda machine: PL061("gpio", machine), 61, also=also)
