"""A driver for the 16550 from National's data sheet, on our device and on QEMU's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from dbt.machine.chardev import MemoryChar
from dbt.machine.devices.ns16550 import NS16550
from dbt.machine.log import GUEST_ERROR
from dbt.machine.machine import PORTS, Machine

from tests.machine.fuzzing import fuzz, type_and_take
from tests.machine.qtest import X86, Bus, Ours, agree, qemu

if TYPE_CHECKING:
    from dbt.machine.device import Device

BASE = 0x3F8
DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR = range(BASE, BASE + 8)
FCR = IIR


def build() -> tuple[Machine, NS16550, MemoryChar]:
    machine, chars = Machine(), MemoryChar()
    uart = NS16550("com1", machine, chars=chars)
    machine.place(uart, BASE, PORTS)
    machine.reset()
    return machine, uart, chars


def up(uart: NS16550) -> bool:
    return uart.irq.level


def script(bus: Bus) -> None:
    """Divisor, FIFO control, loopback, interrupts of the transmitter."""
    bus.out(MCR, 0)

    def look(*ports: int) -> None:
        for port in ports or (IER, IIR, LCR, MCR, LSR, MSR, SCR):
            bus.inp(port)

    look()
    bus.out(LCR, 0x83)
    look(DATA, IER)
    bus.out(DATA, 1)
    bus.out(IER, 0)
    look(DATA, IER)
    bus.out(LCR, 0x03)
    bus.out(SCR, 0x5A)
    for value in (2, 0, 2, 0xFF, 0):
        bus.out(IER, value)
        look()
        look(IIR)
    for value in (0xC7, 0x01, 0x00, 0x87):
        bus.out(FCR, value)
        look()
    bus.out(IER, 2)
    for character in b"abc":
        bus.out(DATA, character)
        look(IIR, IIR, LSR)
    for outputs in range(16):
        bus.out(MCR, 0x10 | outputs)
        look(MSR, MCR)
    bus.out(IER, 7)
    for fifo in (0x00, 0x07):
        bus.out(FCR, fifo)
        for character in b"xy":
            bus.out(DATA, character)
            look(IIR, LSR, DATA, IIR, LSR)
    bus.out(FCR, 0x47)  # four characters raise the interrupt
    look(IIR, IIR)
    for character in b"123456":
        bus.out(DATA, character)
        look(IIR, LSR)
    for _ in range(7):
        look(DATA, LSR, IIR)
    for character in range(18):
        bus.out(DATA, character)
    look(LSR, LSR, IIR, *(DATA,) * 16, LSR, IIR)
    bus.out(FCR, 0)
    bus.out(DATA, 1)
    bus.out(DATA, 2)
    look(LSR, LSR, IIR, DATA, LSR)


@pytest.mark.needs("qemu-system-x86_64")
def test_it_agrees_with_qemu() -> None:
    with qemu(*X86, "-chardev", "null,id=c", "-device", "isa-serial,chardev=c") as theirs:
        assert agree(script, build()[0], theirs) > 150


def test_it_sends_and_receives() -> None:
    machine, uart, chars = build()
    script(Ours(machine))
    assert chars.take() == b"abc"
    bus = machine.ports
    bus.write(MCR, 1, 0)
    bus.write(FCR, 1, 0x87)
    bus.write(IER, 1, 1)
    chars.type(b"hello")
    assert not up(uart)
    machine.advance(400_000)  # four characters of 10 bits at 115,200
    assert up(uart)
    assert bus.read(IIR, 1) == 0xCC
    assert bytes(bus.read(DATA, 1) for _ in range(5)) == b"hello"
    assert not up(uart)
    chars.type(bytes(range(30)))
    assert bus.read(IIR, 1) == 0xC4
    assert bytes(bus.read(DATA, 1) for _ in range(30)) == bytes(range(30))
    assert bus.read(LSR, 1) == 0x60


def test_a_back_end_that_takes_no_more() -> None:
    machine, uart, chars = build()
    bus = machine.ports
    chars.limit = 1
    bus.write(IER, 1, 2)
    assert bus.read(IIR, 1) == 2
    for character in b"abc":
        bus.write(DATA, 1, character)
    assert bus.read(LSR, 1) == 0
    assert machine.log.counts[GUEST_ERROR] == 1
    assert bus.read(IIR, 1) == 1
    other, copy, more = build()
    other.restore(machine.save())
    other.advance(0)
    assert (more.take(), up(copy)) == (b"b", True)
    assert chars.take() == b"a"
    assert (up(uart), bus.read(LSR, 1), bus.read(IIR, 1), bus.read(IIR, 1)) == (True, 0x60, 2, 1)
    assert chars.take() == b"b"


def test_random_traffic() -> None:
    def make(machine: Machine) -> Device:
        return NS16550("com1", machine, chars=MemoryChar(limit=100))

    fuzz(make, 16, also=type_and_take)
