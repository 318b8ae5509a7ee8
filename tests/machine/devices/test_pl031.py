"""A driver for the PL031 from DDI 0224, on our device and on QEMU's."""

from __future__ import annotations

import pytest
from dbt.machine.devices.pl031 import PL031
from dbt.machine.machine import Machine

from tests.machine.fuzzing import fuzz
from tests.machine.qtest import ARM, Bus, agree, qemu

BASE = 0x0901_0000
DR, MR, LR, CR, IMSC, RIS, MIS, ICR = (BASE + 4 * n for n in range(8))
SECOND = 1_000_000_000
EPOCH = 1_577_836_800  # 2020-01-01


def build() -> tuple[Machine, PL031]:
    machine = Machine(epoch=EPOCH)
    rtc = PL031("rtc", machine)
    machine.place(rtc, BASE)
    machine.reset()
    return machine, rtc


def script(bus: Bus) -> None:
    """Time stands still: QEMU's guest does not run."""
    everything = (DR, MR, LR, CR, IMSC, RIS, MIS, *(BASE + 0xFE0 + 4 * n for n in range(8)))

    def look() -> None:
        for register in everything:
            bus.read(register)

    look()
    for register, value in (
        (IMSC, 1), (MR, EPOCH), (ICR, 1), (MR, EPOCH + 100), (LR, 5), (MR, 4), (MR, 5), (IMSC, 0), (ICR, 1), (CR, 1),
        (LR, 0xFFFFFFFF), (MR, 0xFFFFFFFF), (ICR, 1),
    ):  # fmt: skip
        bus.write(register, value)
        look()


@pytest.mark.needs("qemu-system-aarch64")
def test_it_agrees_with_qemu() -> None:
    with qemu(*ARM, "-nodefaults", "-rtc", "base=2020-01-01T00:00:00,clock=vm") as theirs:
        assert agree(script, build()[0], theirs) > 100


def test_the_match_raises_the_interrupt() -> None:
    machine, rtc = build()
    bus = machine.memory
    bus.write(IMSC, 4, 1)
    bus.write(MR, 4, EPOCH + 3)
    machine.advance(3 * SECOND - 1)
    assert (bus.read(DR, 4), rtc.irq.level) == (EPOCH + 2, False)
    machine.advance(1)
    assert (bus.read(DR, 4), bus.read(MIS, 4), rtc.irq.level) == (EPOCH + 3, 1, True)
    bus.write(ICR, 4, 1)
    assert not rtc.irq.level


def test_a_time_that_was_set_runs_on_and_wraps() -> None:
    machine, rtc = build()
    bus = machine.memory
    machine.advance(SECOND // 2)
    bus.write(LR, 4, 0xFFFFFFFF)
    bus.write(MR, 4, 1)
    bus.write(IMSC, 4, 1)
    machine.advance(SECOND)
    assert (bus.read(DR, 4), rtc.irq.level) == (0, False)
    other, copy = build()
    other.restore(machine.save())
    other.advance(SECOND)
    assert (other.memory.read(DR, 4), copy.irq.level) == (1, True)


def test_random_traffic() -> None:
    fuzz(lambda machine: PL031("rtc", machine), 31)
