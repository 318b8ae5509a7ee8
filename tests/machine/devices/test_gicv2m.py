"""A driver of GICv2m: messages of a made-up PCI function become interrupts; the same against QEMU's."""

from __future__ import annotations

import pytest
from dbt.machine.boards.arm import interrupts
from dbt.machine.devices.gicv2 import GICv2
from dbt.machine.devices.gicv2m import GICv2m
from dbt.machine.log import GUEST_ERROR
from dbt.machine.machine import Machine

from tests.machine.devices.test_gicv2 import EOIR, GICD, IAR, setup
from tests.machine.fuzzing import fuzz
from tests.machine.qtest import ARM, Bus, agree, qemu

FRAME = 0x0802_0000
SETSPI = FRAME + 0x40


def build() -> Machine:
    machine = Machine()
    interrupts(machine, 2, 1)
    machine.reset()
    return machine


def script(bus: Bus) -> None:
    for offset in (0, 8, 0x40, 0xFCC):
        bus.read(FRAME + offset)
    bus.write(GICD, 1)
    for number in range(80, 144, 16):
        bus.write(GICD + 0xC00 + number // 4, 0xAAAA_AAAA)  # edges
    for number in (80, 81, 100, 143):
        bus.write(SETSPI, number)
        for word in range(5):
            bus.read(GICD + 0x200 + 4 * word)
    bus.write(GICD + 0x280 + 8, 1 << 16)
    bus.write(SETSPI, 82, 2)
    bus.read(GICD + 0x208)


@pytest.mark.needs("qemu-system-aarch64")
def test_frames_agree_with_qemu() -> None:
    with qemu(*ARM, "-nodefaults") as theirs:
        assert agree(script, build(), theirs) == 25


def test_messages_become_interrupts() -> None:
    machine = build()
    setup(machine)
    bus = machine.memory
    bus.write(GICD + 0x108, 4, 0xFFFF_0000)
    bus.write(GICD + 0xC14, 4, 0xAAAA_AAAA)
    assert machine.msi.send(SETSPI, 83, 0x10)
    assert machine.msi.send(SETSPI, 81, 0x18)
    assert [bus.read(IAR, 4), bus.read(IAR, 4)] == [81, 1023]
    bus.write(EOIR, 4, 81)
    assert bus.read(IAR, 4) == 83
    for number in (79, 144, 0):
        assert machine.msi.send(SETSPI, number, 0x18)
    assert machine.log.counts[GUEST_ERROR] == 3
    assert not machine.msi.send(SETSPI + 4, 80, 0x18)


def test_random_traffic() -> None:
    fuzz(
        lambda machine: GICv2m("v2m", machine, GICv2("gic", machine).spi, first=48, count=64),
        402,
    )
