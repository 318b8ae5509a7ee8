"""HPET: drivers from the specification, and random ones against QEMU's while its time stands still."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.machine.devices.hpet import Hpet
from dbt.machine.errors import MapError
from dbt.machine.lines import Line
from dbt.machine.log import GUEST_ERROR
from dbt.machine.machine import Machine

from tests.machine.fuzzing import fuzz
from tests.machine.qtest import X86, Bus, agree, qemu

if TYPE_CHECKING:
    from dbt.machine.device import Device

BASE = 0xFED0_0000
CONF, STATUS, COUNT = BASE + 0x10, BASE + 0x20, BASE + 0xF0
LEVEL, ENABLED, PERIODIC, VAL_SET, BITS32, FSB = 2, 4, 8, 0x40, 0x100, 0x4000


def timer(n: int) -> int:
    return BASE + 0x100 + 0x20 * n


class Board:
    """A machine with an HPET, and what its lines and messages did."""

    def __init__(self, *, timers: int = 3, routes: int = 0xFF0104, fsb: bool = True) -> None:
        self.machine = Machine()
        self.rises: list[tuple[int, int]] = []  # (input, time); 100 and 108: the legacy ones
        self.lines: dict[int, Line] = {}
        self.messages: list[tuple[int, int, int]] = []
        self.hpet = Hpet(
            "hpet", self.machine, timers=timers, routes=routes, route=self.line, irq0=self.line(100),
            irq8=self.line(108), fsb=fsb,
        )  # fmt: skip
        self.machine.msi.add(0xFEE0_0000, 0x10_0000, self.message)
        self.machine.place(self.hpet, BASE)
        self.machine.reset()

    def line(self, number: int) -> Line:
        def changed(level: bool) -> None:
            if level:
                self.rises.append((number, self.machine.clock.now))

        self.lines[number] = Line(f"in{number}", changed)
        return self.lines[number]

    def message(self, offset: int, value: int, requester: int) -> None:
        self.messages.append((offset, value, self.machine.clock.now - requester))

    def get(self, address: int, size: int = 8) -> int:
        return self.machine.memory.read(address, size)

    def put(self, address: int, value: int, size: int = 8) -> None:
        self.machine.memory.write(address, size, value)


def play(seed: int, steps: int, bus: Bus) -> None:
    random = Random(seed)

    def look() -> None:
        for address in (BASE, CONF, STATUS, COUNT, *(timer(n) + at for n in range(3) for at in (0, 8, 0x10))):
            bus.read(address, 8)
            bus.read(address, 4)
            bus.read(address + 4, 4)
        bus.read(timer(5), 4)

    look()
    small = [0, 1, 1000, 0x7FFF_FFFF]
    narrow = [False] * 3  # QEMU does not cut off the upper half that a 32-bit timer is given
    halves = [False] * 3  # nor does VAL_SET reach the upper half of a write of both
    running = False
    for _ in range(steps):
        n = random.randrange(3)
        match random.randrange(7):
            case 0 if random.random() < 0.4:
                running = not running
                bus.write(CONF, int(running) | random.choice((0, 2)), random.choice((4, 8)))
            case 1 if not running:
                bus.write(COUNT, random.getrandbits(56), 8)  # QEMU's nanoseconds have 63 bits
                bus.write(COUNT + random.choice((0, 4)), random.getrandbits(24), 4)
            case 2 | 3:
                config = random.choice((0, ENABLED, PERIODIC, PERIODIC | VAL_SET, BITS32, PERIODIC | BITS32 | VAL_SET))
                halves[n] = bool(config & VAL_SET)
                narrow[n] = bool(config & BITS32)
                bus.write(timer(n), config | random.choice((0, LEVEL)) | random.randrange(32) << 9, 4)
            case 4 | 5 if halves[n] or random.random() < 0.5:
                halves[n] = False
                bus.write(timer(n) + 8, random.choice(small), 4)
            case 4 | 5:
                bus.write(timer(n) + 8, random.choice(small) << (0 if narrow[n] else random.choice((0, 20))), 8)
            case 6:
                bus.write(timer(n) + 0x10, random.getrandbits(32), 4)
                bus.write(timer(n) + 0x14, random.getrandbits(32), 4)
        look()


@pytest.mark.needs("qemu-system-x86_64")
@pytest.mark.parametrize("fsb", [False, True])
def test_random_drivers_agree_with_qemu(fsb: bool) -> None:
    for seed in range(2):
        with qemu(*X86, "-global", f"hpet.msi={'on' if fsb else 'off'}") as theirs:
            board = Board(routes=1 << 2, fsb=fsb)
            assert agree(lambda bus, seed=seed: play(seed, 60, bus), board.machine, theirs) > 2000  # type: ignore[misc]


def test_the_counter_stops_and_goes_on() -> None:
    board = Board()
    board.put(COUNT, 0xFFFF_FFFF_FFFF_FFF0)
    board.machine.advance(1000)
    assert board.get(COUNT) == 0xFFFF_FFFF_FFFF_FFF0
    board.put(CONF, 1)
    board.machine.advance(205)
    assert board.get(COUNT) == 4
    board.put(COUNT, 0)
    assert board.machine.log.counts[GUEST_ERROR] == 1
    board.put(CONF, 0)
    board.machine.advance(1000)
    assert (board.get(COUNT, 4), board.get(COUNT + 4, 4)) == (4, 0)


def test_one_shots_are_edges_or_levels_on_their_route() -> None:
    board = Board()
    board.put(timer(0), ENABLED | 16 << 9)
    board.put(timer(0) + 8, 100)
    board.put(timer(1), ENABLED | LEVEL | 17 << 9)
    board.put(timer(1) + 8, 200)
    board.put(timer(2), LEVEL | 18 << 9)  # status without interrupts
    board.put(timer(2) + 8, 200)
    board.put(CONF, 1)
    board.machine.advance(1999)
    assert (board.rises, board.get(STATUS)) == ([(16, 1000)], 0)
    board.machine.advance(1)
    assert (board.rises[1:], board.get(STATUS), board.lines[17].level) == ([(17, 2000)], 6, True)
    board.put(STATUS, 2)
    assert (board.get(STATUS), board.lines[17].level) == (4, False)
    levels = []
    for address, value in ((timer(2), LEVEL | ENABLED | 18 << 9), (CONF, 0)):
        board.put(address, value)
        levels.append(board.lines[18].level)
    assert levels == [True, False]
    board.machine.advance(10**12)
    assert len(board.rises) == 3


def test_periods_and_their_first_match() -> None:
    board = Board()
    board.put(timer(0), ENABLED | PERIODIC | VAL_SET | 16 << 9, 4)
    board.put(timer(0) + 8, 5000)
    board.put(timer(0) + 8, 2000)  # without VAL_SET: the period
    assert (board.get(timer(0)) & VAL_SET, board.get(timer(0) + 8)) == (0, 5000)
    board.put(CONF, 1)
    board.machine.advance(130_000)
    assert board.rises == [(16, at) for at in (50_000, 70_000, 90_000, 110_000, 130_000)]
    assert board.get(timer(0) + 8) == 15_000
    other = Board()
    other.machine.restore(board.machine.save())
    other.machine.advance(20_000)
    assert other.rises == [(16, 150_000)]
    board.put(timer(0), ENABLED | PERIODIC | LEVEL | 16 << 9, 4)
    board.machine.advance(1_000_000)
    assert (len(board.rises), board.lines[16].level, board.get(STATUS)) == (6, True, 1)
    assert board.get(timer(0) + 8) == 115_000
    board.put(STATUS, 1)
    board.machine.advance(20_000)
    assert len(board.rises) == 7
    board.put(timer(0), ENABLED | PERIODIC | VAL_SET | 16 << 9, 4)
    board.put(STATUS, 1)
    count = board.get(COUNT)
    board.put(timer(0) + 8, count + 1)
    board.put(timer(0) + 8, 1)
    board.rises.clear()
    board.machine.advance(10_000_000)  # 10 ns are too much for a host
    assert 900 <= len(board.rises) <= 1001


@pytest.mark.parametrize("before", [0, ENABLED | PERIODIC | VAL_SET])
def test_one_shots_are_exact_however_soon(before: int) -> None:
    """Only periods are held back, also where the timer has had one."""
    board = Board()
    board.put(timer(0), before | 16 << 9, 4)
    board.put(timer(0) + 8, 1 << 40)
    board.put(timer(0) + 8, 1)
    board.put(CONF, 1)
    board.machine.advance(1000)
    board.put(timer(0), ENABLED | 16 << 9, 4)
    board.put(timer(0) + 8, 101)
    board.machine.advance(9)
    assert board.rises == []
    board.machine.advance(1)
    assert board.rises == [(16, 1010)]


def test_32_bits_match_at_each_wrap() -> None:
    board = Board()
    board.put(COUNT, 0x7_0000_0010)
    board.put(timer(1), ENABLED | BITS32 | 20 << 9)
    board.put(timer(1) + 8, 0x9_0000_0020)
    assert board.get(timer(1) + 8) == 0x20
    board.put(CONF, 1)
    board.machine.advance(160 + (10 << 32))
    assert board.rises == [(20, 160), (20, 160 + (10 << 32))]


def test_legacy_replacement_takes_the_inputs_of_timer_and_clock() -> None:
    board = Board()
    board.hpet.pit.pulse()
    board.hpet.rtc.set(True)
    assert ([number for number, _ in board.rises], board.lines[108].level) == ([100, 108], True)
    board.put(timer(0), ENABLED)
    board.put(timer(0) + 8, 10)
    board.put(timer(1), ENABLED | LEVEL)
    board.put(timer(1) + 8, 20)
    board.put(CONF, 3)
    levels = [board.lines[108].level]
    board.rises.clear()
    board.hpet.pit.pulse()
    board.machine.advance(1000)
    assert board.rises == [(100, 100), (108, 200)]
    board.put(STATUS, 2)
    board.put(CONF, 1)
    assert [*levels, board.lines[108].level] == [False, True]  # the clock's again


def test_messages_and_more_timers() -> None:
    board = Board(timers=8)
    assert board.get(BASE) >> 8 & 31 == 7
    board.put(timer(7), ENABLED | FSB | LEVEL | PERIODIC | VAL_SET)
    board.put(timer(7) + 8, 2000)
    board.put(timer(7) + 0x10, 0xFEE0_1000 << 32 | 0x41)
    board.put(CONF, 1)
    board.machine.advance(40_000)
    assert board.messages == [(0x1000, 0x41, 20_000), (0x1000, 0x41, 40_000)]
    assert (board.rises, board.get(STATUS)) == ([], 0)
    with pytest.raises(MapError, match="3 to 8"):
        Board(timers=9)


def test_random_traffic() -> None:
    def make(machine: Machine) -> Device:
        return Hpet("hpet", machine, timers=5, routes=0xFF0104, fsb=True)

    def also(device: Device, random: Random) -> None:
        assert isinstance(device, Hpet)
        random.choice((device.pit, device.rtc)).set(random.random() < 0.5)

    fuzz(make, 80, also=also)
