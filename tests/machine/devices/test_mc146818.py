"""Drivers for the MC146818: what can be read while time stands still, against QEMU's; time, alarm and periods."""

from __future__ import annotations

import datetime as dt
from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.machine.devices.mc146818 import MC146818, date_of, days_of
from dbt.machine.machine import PORTS, Machine

from tests.machine.fuzzing import fuzz
from tests.machine.qtest import X86, Bus, agree, qemu

if TYPE_CHECKING:
    from dbt.machine.device import Device

INDEX, DATA = 0x70, 0x71
A, B, C, D = range(10, 14)
SECOND = 1_000_000_000
EPOCH = 1_582_934_399  # 2020-02-28 23:59:59


def build(epoch: int = EPOCH) -> tuple[Machine, MC146818]:
    machine = Machine(epoch=epoch)
    rtc = MC146818("rtc", machine)
    machine.place(rtc, INDEX, PORTS)
    machine.reset()
    return machine, rtc


def up(rtc: MC146818) -> bool:
    return rtc.irq.level


def get(machine: Machine, index: int) -> int:
    machine.ports.write(INDEX, 1, index)
    return machine.ports.read(DATA, 1)


def put(machine: Machine, index: int, value: int) -> None:
    machine.ports.write(INDEX, 1, index)
    machine.ports.write(DATA, 1, value)


def script(bus: Bus) -> None:
    def look() -> None:
        for index in (*range(14), 0x32):
            bus.out(INDEX, index)
            bus.inp(DATA)

    def write(index: int, value: int) -> None:
        bus.out(INDEX, index)
        bus.out(DATA, value)

    bus.inp(INDEX)
    for index in (1, 3, 5):
        write(index, 0)
    look()
    for b in (0x02, 0x06, 0x04, 0x00):  # 12 and 24 hours, binary and decimal
        write(B, b)
        look()
        binary = b & 4
        for hour in (0x00, 0x11, 0x12, 0x13, 0x23) if b & 2 else (0x12, 0x01, 0x11, 0x92, 0x81, 0x91):
            write(B, b | 0x80)
            coded = (hour & 0x80 | (hour >> 4 & 7) * 10 + (hour & 15)) if binary else hour
            for index, value in ((0, 0x07), (2, 0x08), (4, coded), (7, 0x09), (8, 0x03), (9, 0x05)):
                write(index, value)
            look()
            write(B, b)
            look()
    write(B, 0x02)
    for index in range(0x40, 0x5A):
        write(index, index ^ 0xFF)
        bus.inp(DATA)
    for value in (0x20, 0x2F, 0x26):
        write(A, value)
        look()
    for value in (0x12, 0x22, 0x42, 0x02):
        write(B, value)
        look()


@pytest.mark.needs("qemu-system-x86_64")
def test_it_agrees_with_qemu() -> None:
    with qemu(*X86, "-rtc", "base=2020-02-28T23:59:59,clock=vm") as theirs:
        assert agree(script, build()[0], theirs) > 500


def test_dates_are_those_of_the_calendar() -> None:
    random = Random(1)
    first = dt.date(1970, 1, 1)
    for _ in range(2000):
        date = dt.date.fromordinal(random.randrange(1, 3_652_059))
        days = (date - first).days
        assert date_of(days) == (date.year, date.month, date.day)
        assert days_of(date.year, date.month, date.day) == days
    for month, day in ((0, 0), (13, 32), (255, 255), (0x99, 0)):
        assert isinstance(days_of(0, month, day), int)


def test_time_goes_on_over_a_leap_day() -> None:
    machine, _ = build()
    assert [get(machine, index) for index in (0, 2, 4, 7, 8, 9, 6, 0x32)] == [
        0x59, 0x59, 0x23, 0x28, 0x02, 0x20, 6, 0x20,
    ]  # fmt: skip
    machine.advance(SECOND - 200_000)
    assert get(machine, A) == 0xA6  # an update is near
    machine.advance(200_000)
    assert get(machine, A) == 0x26
    assert [get(machine, index) for index in (0, 2, 4, 7, 8, 9, 6)] == [0, 0, 0, 0x29, 0x02, 0x20, 7]
    put(machine, B, 0x82)
    machine.advance(10 * SECOND)
    assert get(machine, 0) == 0  # stopped
    put(machine, 0, 0x30)
    put(machine, B, 0x02)
    machine.advance(5 * SECOND)
    assert get(machine, 0) == 0x35


def test_the_alarm_the_update_and_the_period_interrupt() -> None:
    machine, rtc = build()
    for index, value in ((1, 0x05), (3, 0xC0), (5, 0xFF), (B, 0x22)):  # each minute at :05
        put(machine, index, value)
    machine.advance(6 * SECOND - 1)
    assert not up(rtc)
    machine.advance(1)
    assert up(rtc)
    assert get(machine, C) & 0xB0 == 0xB0
    assert (get(machine, C), up(rtc)) == (0, False)
    machine.advance(60 * SECOND)
    assert up(rtc)
    put(machine, B, 0x12)
    get(machine, C)
    machine.advance(SECOND)
    assert (up(rtc), get(machine, C) & 0xB0) == (True, 0x90)
    put(machine, B, 0x42)  # 1,024 times a second
    ticks = 0
    for _ in range(1000):
        machine.advance(SECOND // 1000)
        if up(rtc):
            assert get(machine, C) & 0xC0 == 0xC0
            ticks += 1
    assert ticks == 1000  # 24 of 1,024 came while one was there already
    put(machine, B, 0x02)
    get(machine, C)
    machine.advance(SECOND // 2)
    assert get(machine, C) & 0xC0 == 0x40  # the flag comes, the interrupt does not


def test_an_alarm_that_never_comes_and_a_restored_clock() -> None:
    machine, rtc = build()
    put(machine, 5, 0x25)
    put(machine, B, 0x22)
    machine.advance(2 * 86_400 * SECOND)
    assert not up(rtc)
    put(machine, 1, 0x10)
    put(machine, 3, 0xFF)
    put(machine, 5, 0xFF)
    other, copy = build(0)
    other.restore(machine.save())
    assert [get(other, index) for index in range(10)] == [get(machine, index) for index in range(10)]
    other.advance(11 * SECOND)
    assert copy.irq.level


def test_every_century_can_be_set() -> None:
    machine, _ = build()
    for century, year in ((0x00, 0x01), (0x17, 0x00), (0x24, 0x96), (0x99, 0x98)):
        put(machine, B, 0x82)
        for index, value in ((0x32, century), (9, year), (8, 0x12), (7, 0x31), (4, 0x23), (2, 0x59), (0, 0x59)):
            put(machine, index, value)
        put(machine, B, 0x02)
        machine.advance(SECOND)
        shown = [get(machine, index) for index in (0x32, 9, 8, 7, 4, 2, 0)]
        assert shown == [century + (0x01 if year == 0x99 else 0), year + 1, 1, 1, 0, 0, 0]


def test_a_reset_leaves_the_time_and_the_kept_bytes() -> None:
    machine, rtc = build()
    for index, value in ((0x40, 0x5A), (B, 0x72), (4, 0x05)):
        put(machine, index, value)
    machine.advance(3 * SECOND)
    assert up(rtc)
    machine.reset()
    assert not up(rtc)
    assert [get(machine, index) for index in (0, 4, B, 0x40)] == [0x02, 0x06, 0x02, 0x5A]


def test_random_traffic() -> None:
    def also(device: Device, random: Random) -> None:
        assert isinstance(device, MC146818)
        device.banks["WINDOW"].write(0, 1, random.randrange(16), device.attributes)
        device.banks["WINDOW"].write(1, 1, random.randrange(256), device.attributes)
        if random.random() < 0.05:
            device.machine.advance(random.randrange(3 * SECOND))

    fuzz(lambda machine: MC146818("rtc", machine), 146, also=also)
