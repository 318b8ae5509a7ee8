"""I/O APIC: random drivers against QEMU's, whose inputs are serial ports; random traffic. More is in test_apic.py."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.machine.devices.apic import LocalApic
from dbt.machine.devices.apic_bus import ApicBus
from dbt.machine.devices.ioapic import IoApic
from dbt.machine.devices.ns16550 import NS16550
from dbt.machine.machine import PORTS, Machine

from tests.machine.fuzzing import fuzz
from tests.machine.qtest import X86, Bus, agree, qemu

if TYPE_CHECKING:
    from dbt.machine.device import Device

BASE = 0xFEC0_0000
SERIAL = {0x3F8: 4, 0x2F8: 3, 0x3E8: 10, 0x2E8: 15}  # port: input
MASKED, LEVEL = 1 << 16, 1 << 15


def build() -> Machine:
    machine = Machine()
    bus = ApicBus()
    LocalApic("apic", machine, number=0, bus=bus)
    ioapic = IoApic("ioapic", machine, bus=bus)
    machine.place(ioapic, BASE)
    for port, number in SERIAL.items():
        machine.place(NS16550(f"serial{port:x}", machine, ioapic.input(number)), port, PORTS)
    machine.reset()
    return machine


def put(bus: Bus, index: int, value: int) -> None:
    bus.write(BASE, index)
    bus.write(BASE + 0x10, value)


def look(bus: Bus) -> None:
    for index in (0, 1, 2, 3, *range(0x10, 0x42)):
        bus.write(BASE, index)
        bus.read(BASE + 0x10)
    bus.read(BASE)


def play(seed: int, steps: int, bus: Bus, serial: dict[int, int] = SERIAL) -> None:
    random = Random(seed)
    levels = dict.fromkeys(serial, False)
    look(bus)
    for port, pin in serial.items():
        bus.out(port + 1, 0)
        put(bus, 0x10 + 2 * pin, MASKED)
    for _ in range(steps):
        port = random.choice(list(serial))
        pin = serial[port]
        match random.randrange(6):
            case 0 | 1:
                levels[port] = random.random() < 0.6
                bus.out(port + 1, 0)
                if levels[port]:
                    bus.out(port + 1, 2)
            case 2 | 3 if not levels[port]:  # QEMU forgets what inputs are while they are edges
                entry = random.choice((0x31, 0x41, 0x71)) | random.choice((0, 1)) << 8 | random.choice((0, 0x800))
                put(bus, 0x10 + 2 * pin, entry | random.choice((0, LEVEL, LEVEL)) | random.choice((0, 0, MASKED)))
                put(bus, 0x11 + 2 * pin, random.getrandbits(8) << 24)
            case 4:
                bus.write(BASE + 0x40, random.choice((0x31, 0x41, 0x71)))
            case 5:
                put(bus, random.choice((0, 1, 2, 3, 0x40)), random.getrandbits(4) << 24)
        look(bus)


@pytest.mark.needs("qemu-system-x86_64")
def test_random_drivers_agree_with_qemu() -> None:
    ports = []
    for number, (port, irq) in enumerate(SERIAL.items()):
        ports += ["-chardev", f"null,id=c{number}", "-device", f"isa-serial,chardev=c{number},iobase={port},irq={irq}"]
    for seed in range(3):
        with qemu(*X86, *ports) as theirs:
            assert agree(lambda bus, seed=seed: play(seed, 60, bus), build(), theirs) > 3000  # type: ignore[misc]


def test_random_traffic() -> None:
    def also(device: Device, random: Random) -> None:
        assert isinstance(device, IoApic)
        device.input(random.randrange(24)).set(random.random() < 0.7)
        device.end(random.getrandbits(8))

    fuzz(lambda machine: IoApic("ioapic", machine, bus=ApicBus()), 82093, also=also)
