"""Drivers for the 8254: what can be read at once, against QEMU's; counting, outputs and gates by the data sheet."""

from __future__ import annotations

import itertools

import pytest
from dbt.machine.devices.i8254 import FREQUENCY, I8254
from dbt.machine.log import GUEST_ERROR
from dbt.machine.machine import PORTS, Machine

from tests.machine.fuzzing import fuzz
from tests.machine.qtest import X86, Bus, agree, qemu

BASE, PORT_B = 0x40, 0x61
SECOND = 1_000_000_000


def build() -> tuple[Machine, I8254]:
    machine = Machine()
    pit = I8254("pit", machine)
    machine.place(pit, BASE, PORTS)
    machine.place(pit, PORT_B, PORTS, window="PORTB")
    machine.reset()
    return machine, pit


def script(bus: Bus) -> None:
    """Time stands still. Outputs of modes 2, 4 and 5 before the first clock are left out: QEMU has them low."""
    for n, mode, access, bcd in itertools.product(range(3), range(6), (1, 2, 3), (0, 1)):
        port = BASE + n
        bus.out(BASE + 3, n << 6 | access << 4 | mode << 1 | bcd)
        for low, high in ((0x34, 0x12), (0x00, 0x00), (0x99, 0x45)):
            for byte in {1: (low,), 2: (high,), 3: (low, high)}[access]:
                bus.out(port, byte)
            for _ in range(3):
                bus.inp(port)
            if access == 3:
                bus.inp(port)
            bus.out(BASE + 3, n << 6)  # latch
            bus.out(BASE + 3, n << 6)
            bus.inp(port)
            bus.inp(port)
            bus.out(BASE + 3, 0xD0 | 2 << n)  # read back the count, then the status, then both
            bus.inp(port)
            if access == 3:
                bus.inp(port)
            bus.out(BASE + 3, 0xE0 | 2 << n)
            bus.inp(port, mask=0xFF if mode in {0, 1, 3} else 0x7F)
            bus.out(BASE + 3, 0xC0 | 2 << n)
            bus.inp(port, mask=0xFF if mode in {0, 1, 3} else 0x7F)
            bus.inp(port)
            if access == 3:
                bus.inp(port)
    for value in (0, 1, 2, 3):
        bus.out(PORT_B, value)
        bus.inp(PORT_B, mask=0x03)


@pytest.mark.needs("qemu-system-x86_64")
def test_it_agrees_with_qemu() -> None:
    with qemu(*X86) as theirs:
        assert agree(script, build()[0], theirs) > 1000


def clocks(machine: Machine, number: int) -> None:
    """Let that many clocks pass since the machine was made, and a little."""
    machine.advance(-(-number * SECOND // FREQUENCY) + 50 - machine.clock.now)


def start(machine: Machine, n: int, mode: int, count: int, bcd: int = 0) -> None:
    machine.ports.write(BASE + 3, 1, n << 6 | 0x30 | mode << 1 | bcd)
    machine.ports.write(BASE + n, 1, count & 0xFF)
    machine.ports.write(BASE + n, 1, count >> 8)


def read(machine: Machine, n: int) -> int:
    machine.ports.write(BASE + 3, 1, n << 6)
    return machine.ports.read(BASE + n, 1) | machine.ports.read(BASE + n, 1) << 8


@pytest.mark.parametrize(
    ("mode", "outputs", "counts"),
    [
        (0, "000011111111", [4, 3, 2, 1, 0, 0xFFFF, 0xFFFE]),
        (2, "111011101110", [4, 3, 2, 1, 4, 3, 2]),
        (3, "110011001100", [4, 2, 4, 2, 4, 2, 4]),
        (4, "111101111111", [4, 3, 2, 1, 0, 0xFFFF, 0xFFFE]),
    ],
)
def test_modes(mode: int, outputs: str, counts: list[int]) -> None:
    machine, pit = build()
    start(machine, 0, mode, 4)
    seen = ""
    for number, output in enumerate(outputs):
        clocks(machine, number)
        seen += "01"[pit.out(0)]
        if number < len(counts):
            assert read(machine, 0) == counts[number]
        assert pit.irq.level == bool(int(output))
    assert seen == outputs


def test_decimal_counts() -> None:
    machine, _ = build()
    start(machine, 0, 2, 0x1000, bcd=1)
    clocks(machine, 1)
    assert read(machine, 0) == 0x0999
    clocks(machine, 999)
    assert read(machine, 0) == 0x0001
    clocks(machine, 1000)
    assert read(machine, 0) == 0x1000


def test_the_gate_of_counter_2() -> None:
    machine, pit = build()
    bus = machine.ports
    start(machine, 2, 0, 100)
    clocks(machine, 50)
    assert read(machine, 2) == 100  # the gate is down
    bus.write(PORT_B, 1, 1)
    clocks(machine, 80)
    assert read(machine, 2) == 70
    bus.write(PORT_B, 1, 0)
    clocks(machine, 500)
    assert (read(machine, 2), bus.read(PORT_B, 1) & 0x20) == (70, 0)
    bus.write(PORT_B, 1, 1)
    clocks(machine, 571)
    assert bus.read(PORT_B, 1) & 0x20
    start(machine, 2, 1, 10)  # one shot: each rising edge starts it again
    assert pit.out(2)
    bus.write(PORT_B, 1, 0)
    bus.write(PORT_B, 1, 1)
    assert not pit.out(2)
    clocks(machine, 582)
    assert pit.out(2)


def test_a_pc_ticks_18_times_a_second() -> None:
    machine, pit = build()
    rises = 0

    def edge(level: bool) -> None:
        nonlocal rises
        rises += level

    start(machine, 0, 2, 0)
    pit.irq.connect(edge)
    rises = 0
    machine.advance(10 * SECOND)
    assert rises == 10 * FREQUENCY // 65536
    other, copy = build()
    other.restore(machine.save())
    assert read(other, 0) == read(machine, 0)
    assert copy.edge.deadline == pit.edge.deadline


def test_a_count_of_one_is_an_error() -> None:
    machine, _ = build()
    start(machine, 0, 2, 1)
    assert machine.log.counts[GUEST_ERROR] == 1
    machine.advance(1_000_000)


def test_random_traffic() -> None:
    fuzz(lambda machine: I8254("pit", machine), 8254)
