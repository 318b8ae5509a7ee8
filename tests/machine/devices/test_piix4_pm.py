"""PIIX4 power management: a driver of ACPI's fixed hardware and of the SMBus, also on QEMU's; random traffic."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.machine.devices.piix4_pm import Piix4Pm
from dbt.machine.log import UNIMPLEMENTED
from dbt.machine.machine import PORTS, Machine
from dbt.machine.pci import PciBus
from dbt.machine.power import PowerKind

from tests.machine.fuzzing import fuzz
from tests.machine.pci import Config, machine, poke
from tests.machine.qtest import X86, Bus, Ours, agree, qemu

if TYPE_CHECKING:
    from dbt.machine.device import Device
    from dbt.machine.devices.piix4_smbus import SmbusDevice

PM, SMB, GPE, APMC = 0xB000, 0xB100, 0xAFE0, 0xB2
FUNCTION = (0, 1, 3)


class Eeprom:
    """256 bytes, and what was done to them."""

    def __init__(self) -> None:
        self.data = bytearray(range(256))
        self.pointer = 0

    def transfer(self, command: int | None, data: bytes, count: int) -> bytes | None:
        if command is not None:
            self.pointer = command
        elif data:
            self.pointer = data[0]
            return b""
        self.data[self.pointer : self.pointer + len(data)] = data
        return bytes(self.data[self.pointer : self.pointer + (count if command != 0x80 else 4)])


def build() -> tuple[Machine, Piix4Pm]:
    made, bus = machine()
    pm = Piix4Pm("pm", made, bus=bus, slot=1)
    made.place(pm, GPE, PORTS, "GPE0")
    made.place(pm, APMC, PORTS, "APM")
    made.reset()
    return made, pm


def enable(bus: Bus) -> Config:
    config = Config(bus)
    config.write(FUNCTION, 0x04, 1, 2)
    config.write(FUNCTION, 0x40, PM | 1)
    config.write(FUNCTION, 0x80, 1, 1)
    config.write(FUNCTION, 0x90, SMB | 1)
    config.write(FUNCTION, 0xD2, 9, 1)
    bus.out(PM, 0xFFFF, 2)  # QEMU's timer has overflowed when it starts
    return config


def play(seed: int, bus: Bus) -> None:
    config = enable(bus)
    random = Random(seed)
    for offset in (0, 4, 8, 0x2C, 0x40, 0x90, 0x3C):
        config.read(FUNCTION, offset)
    for _ in range(80):
        match random.randrange(7):
            case 0:
                bus.out(PM + 2, random.getrandbits(16) & 0x521, 2)
            case 1:
                bus.out(PM + 4, random.getrandbits(13) & 0x1C03, 2)
            case 2:
                bus.out(PM, random.getrandbits(16) & 0x8D31, 2)
            case 3:
                bus.out(APMC, random.choice((0xF0, 0xF1, 0x12)))
                bus.out(APMC + 1, random.getrandbits(8))
            case 4:
                bus.out(GPE + 2, random.getrandbits(8))
                bus.out(GPE, 0xFF)
            case 5:
                for at in (3, 5, 6):
                    bus.out(SMB + at, random.getrandbits(8))
                bus.out(SMB + 4, random.choice((0x40, 0x41, 0x90)))  # there is nobody
                bus.out(SMB + 2, 0x41 | random.choice((0, 4, 8, 0xC)))
            case 6:
                bus.out(SMB, 0x1E)
        # QEMU answers with whole registers to odd bytes
        for offset, size in ((0, 2), (2, 2), (4, 2), (2, 1), (4, 1), (8, 4), (0, 4), (0x14, 1)):
            bus.inp(PM + offset, size)
        for port in (APMC, APMC + 1, GPE, GPE + 2, SMB, SMB + 3, SMB + 4, SMB + 5, SMB + 6):
            bus.inp(port)
        bus.inp(SMB + 2, mask=0xBF)


@pytest.mark.needs("qemu-system-x86_64")
def test_random_drivers_agree_with_qemu() -> None:
    for seed in range(2):
        with qemu(*X86) as theirs:
            assert agree(lambda bus, seed=seed: play(seed, bus), build()[0], theirs) > 1200  # type: ignore[misc]


def test_events_are_interrupts() -> None:
    made, pm = build()
    bus = Ours(made)
    enable(bus)
    assert bus.inp(PM + 8, 4) == 0
    bus.out(PM + 2, 0x101, 2)
    made.power.button.pulse()
    assert (pm.sci.level, pm.smi.level, bus.inp(PM, 2)) == (False, True, 0x100)
    bus.out(APMC, 0xF1)
    assert (pm.sci.level, pm.smi.level, bus.inp(PM + 4, 2)) == (True, False, 1)
    bus.out(PM, 0x100, 2)
    assert not pm.sci.level
    made.advance(1_000_000_000)
    assert (bus.inp(PM + 8, 4), bus.inp(PM, 2)) == (3_579_545, 0)
    made.advance(1_343_500_000)  # 2**23 ticks
    assert (pm.sci.level, bus.inp(PM, 2)) == (True, 1)
    other, copy = build()
    other.restore(made.save())
    assert (copy.sci.level, Ours(other).inp(PM, 2)) == (True, 1)
    bus.out(PM, 1, 2)
    made.advance(2_343_500_000)
    assert (pm.sci.level, bus.inp(PM + 8, 4)) == (True, 1 << 24 & 0xFF_FFFF | bus.inp(PM + 8, 4))
    bus.out(PM + 2, 0, 2)
    pm.gpe(3)
    assert not pm.sci.level
    bus.out(GPE + 2, 8)
    assert (pm.sci.level, bus.inp(GPE)) == (True, 8)
    bus.out(GPE, 8)
    assert not pm.sci.level


def test_off_and_what_is_not_there() -> None:
    made, _ = build()
    bus = Ours(made)
    assert bus.inp(PM, 2) == 0xFFFF
    config = enable(bus)
    bus.out(PM + 4, 0x2401, 2)
    assert made.log.counts[UNIMPLEMENTED] == 1
    assert made.power.take() is None
    bus.out(PM + 4, 0x2001, 2)
    request = made.power.take()
    assert request is not None
    assert (request.kind, request.source) == (PowerKind.OFF, "pm")
    config.write(FUNCTION, 0x40, 0x600)
    assert (bus.inp(PM + 4, 2), bus.inp(0x604, 2)) == (0xFFFF, 1)
    config.write(FUNCTION, 0x80, 0, 1)
    config.write(FUNCTION, 0xD2, 0, 1)
    assert (bus.inp(0x604, 2), bus.inp(SMB)) == (0xFFFF, 0xFF)
    config.write(FUNCTION, 0x58, 1 << 25)
    edges: list[bool] = []
    device = made.devices["pm"]
    assert isinstance(device, Piix4Pm)
    device.smi.connect(edges.append)
    bus.out(APMC, 0x55)
    assert edges == [True, False]


def test_the_smbus_has_devices() -> None:
    made, pm = build()
    bus = Ours(made)
    enable(bus)
    eeprom: SmbusDevice = Eeprom()
    pm.smbus[0x50] = eeprom

    def transact(protocol: int, direction: int, command: int = 0, data: tuple[int, int] = (0, 0)) -> int:
        bus.out(SMB, 0x1E)
        for at, value in ((3, command), (4, 0xA0 | direction), (5, data[0]), (6, data[1]), (2, 0x41 | protocol << 2)):
            bus.out(SMB + at, value)
        return bus.inp(SMB)

    assert transact(0, 0) == 2
    assert (transact(2, 1, 0x33), bus.inp(SMB + 5)) == (2, 0x33)
    assert (transact(3, 1, 0x44), bus.inp(SMB + 5), bus.inp(SMB + 6)) == (2, 0x44, 0x45)
    assert transact(3, 0, 0x10, (0xAB, 0xCD)) == 2
    assert (transact(1, 0, 0x11), transact(1, 1), bus.inp(SMB + 5)) == (2, 2, 0xCD)
    assert pm.smbus_irq.level
    bus.inp(SMB + 2)
    for value in (1, 2, 3):
        bus.out(SMB + 7, value)
    assert transact(5, 0, 0x20, (3, 0)) == 2
    assert (transact(5, 1, 0x80), bus.inp(SMB + 5)) == (2, 4)
    assert [bus.inp(SMB + 7) for _ in range(5)] == [0x80, 0x81, 0x82, 0x83, 0]
    assert (transact(2, 1, 0x22), bus.inp(SMB + 5)) == (2, 3)
    assert transact(7, 1) == 4
    bus.out(SMB + 2, 2)
    assert bus.inp(SMB) == 0x14


def test_random_traffic() -> None:
    def make(made: Machine) -> Device:
        pm = Piix4Pm("pm", made, bus=PciBus("pci", made))
        for name in ("PM", "SMBUS"):  # the harness places them
            pm.bus.io.remove(pm.regions[name])
        pm.show = lambda *_args, **_more: None  # type: ignore[method-assign]
        for name in ("PM", "SMBUS"):
            pm.regions[name].enabled = True
        pm.smbus[0x10] = Eeprom()
        return pm

    def also(device: Device, random: Random) -> None:
        assert isinstance(device, Piix4Pm)
        poke(device, random)
        device.gpe(random.randrange(16))
        device.machine.power.button.pulse()

    fuzz(make, 7113, also=also)
