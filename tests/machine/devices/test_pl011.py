"""A driver for the PL011 from DDI 0183, on our device and on QEMU's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from dbt.machine.chardev import MemoryChar
from dbt.machine.devices.pl011 import PL011
from dbt.machine.log import GUEST_ERROR
from dbt.machine.machine import Machine

from tests.machine.fuzzing import fuzz, type_and_take
from tests.machine.qtest import ARM, Bus, Ours, agree, qemu

if TYPE_CHECKING:
    from dbt.machine.device import Device

BASE = 0x0900_0000
DR, RSR, FR, IBRD, FBRD, LCR_H, CR, IFLS, IMSC, RIS, MIS, ICR = (
    BASE + offset for offset in (0, 4, 0x18, 0x24, 0x28, 0x2C, 0x30, 0x34, 0x38, 0x3C, 0x40, 0x44)
)


def build() -> tuple[Machine, PL011, MemoryChar]:
    machine, chars = Machine(), MemoryChar()
    uart = PL011("uart", machine, chars=chars)
    machine.place(uart, BASE)
    machine.reset()
    return machine, uart, chars


def up(uart: PL011) -> bool:
    return uart.irq.level


def script(bus: Bus) -> None:
    """Everything that does not depend on characters from outside."""
    everything = (DR, RSR, FR, IBRD, FBRD, LCR_H, CR, IFLS, IMSC, RIS, MIS, BASE + 0x20, BASE + 0x48)
    for register in (*everything, *(BASE + 0xFE0 + 4 * n for n in range(8))):
        bus.read(register)
    for register, value in ((IBRD, 13), (FBRD, 1), (LCR_H, 0x60), (IFLS, 0x0A), (IMSC, 0x7FF), (CR, 0x301)):
        bus.write(register, value)
        for other in everything:
            bus.read(other)
    bus.write(LCR_H, 0x70)
    for character in b"hello":
        bus.write(DR, character)
        for register in (FR, RIS, MIS):
            bus.read(register)
    for mask in (0x20, 0x7FF):
        bus.write(ICR, mask)
        bus.read(RIS)
    bus.write(IMSC, 0)
    bus.write(DR, 0x21)
    bus.read(RIS)
    bus.read(MIS)
    bus.write(RSR, 0xFF)
    bus.read(RSR)


@pytest.mark.needs("qemu-system-aarch64")
def test_it_agrees_with_qemu() -> None:
    with qemu(*ARM, "-nodefaults", "-serial", "null") as theirs:
        assert agree(script, build()[0], theirs) > 100


def test_it_sends() -> None:
    machine, _, chars = build()
    script(Ours(machine))
    assert chars.take() == b"hello!"
    assert machine.log.counts[GUEST_ERROR] == 7  # UARTDR was read while empty
    chars.type(b"x")
    assert machine.memory.read(DR, 1) == ord("x")


def test_a_back_end_that_takes_no_more_fills_the_fifo() -> None:
    machine, uart, chars = build()
    bus = machine.memory
    chars.limit = 2
    bus.write(LCR_H, 4, 0x70)
    bus.write(CR, 4, 0x301)
    bus.write(IMSC, 4, 0x20)
    sent = bytearray()
    for character in b"abcdefghijklmnopqrstuvwxyz":
        if bus.read(FR, 4) & 0x20:
            break
        bus.write(DR, 4, character)
        sent.append(character)
    assert len(sent) == 18
    assert bus.read(FR, 4) & 0xA8 == 0x28  # TXFF, BUSY, not TXFE
    bus.write(DR, 4, 0)  # lost, and said so
    assert machine.log.counts[GUEST_ERROR] == 1
    bus.write(ICR, 4, 0x7FF)
    assert not up(uart)
    got = b""
    while part := chars.take():
        got += part
    assert got == sent
    assert up(uart)
    assert bus.read(FR, 4) & 0xA8 == 0x80


def test_reception_level_timeout_and_overrun() -> None:
    machine, uart, chars = build()
    bus = machine.memory
    for register, value in ((IBRD, 13), (FBRD, 1), (LCR_H, 0x70), (IFLS, 0x12), (CR, 0x301), (IMSC, 0x450)):
        bus.write(register, 4, value)
    chars.type(b"1234567")
    assert not up(uart)
    assert bus.read(RIS, 4) == 0
    machine.advance(32 * 1_000_000_000 // 115_200 - 10_000)
    assert bus.read(RIS, 4) == 0
    machine.advance(20_000)
    assert bus.read(MIS, 4) == 0x40
    assert up(uart)
    chars.type(b"8")
    assert bus.read(RIS, 4) == 0x50
    assert bytes(bus.read(DR, 4) for _ in range(8)) == b"12345678"
    assert bus.read(RIS, 4) == 0
    assert bus.read(FR, 4) & 0x50 == 0x10
    chars.type(bytes(range(20)))  # 16 fit, 4 wait behind the port: none is lost
    assert bus.read(FR, 4) & 0x50 == 0x40
    assert bytes(bus.read(DR, 4) for _ in range(20)) == bytes(range(20))
    bus.write(CR, 4, 0x381)  # loopback has no such patience
    for character in range(18):
        bus.write(DR, 4, character)
    assert bus.read(RIS, 4) & 0x400
    assert [bus.read(DR, 4) for _ in range(16)] == list(range(16))
    bus.write(DR, 4, 99)
    assert bus.read(DR, 4) == 0x800 | 99
    assert bus.read(RSR, 4) == 8
    assert not chars.take()


def test_a_restored_port_goes_on() -> None:
    machine, _, chars = build()
    bus = machine.memory
    for register, value in ((LCR_H, 0x70), (CR, 0x301), (IMSC, 0x10), (IFLS, 0)):
        bus.write(register, 4, value)
    chars.type(b"abc")
    other, port, _ = build()
    other.restore(machine.save())
    other.advance(0)
    assert up(port)
    assert [other.memory.read(DR, 4) for _ in range(3)] == list(b"abc")
    assert not up(port)


def test_random_traffic() -> None:
    def make(machine: Machine) -> Device:
        return PL011("uart", machine, chars=MemoryChar(limit=100))

    fuzz(make, 11, also=type_and_take)
