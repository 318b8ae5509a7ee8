"""82441FX: firmware copies itself into shadow RAM and protects it, and opens and locks SMRAM (Intel 290549, 3.2)."""

from __future__ import annotations

from random import Random

from dbt.machine.devices.i440fx import SEGMENTS, I440fx
from dbt.machine.log import Log
from dbt.machine.machine import PORTS, Machine
from dbt.machine.memory import RAM, ROM, Unassigned
from dbt.machine.pci import ConfigPorts, PciBus

from tests.machine.pci import Config
from tests.machine.qtest import Ours

HOST = (0, 0, 0)


def build() -> tuple[Machine, Config, I440fx]:
    """Below 1 MiB the bus has 0x11, 0x22 … in the ROM, and RAM its address."""
    machine = Machine(unassigned=Unassigned.ONES, log=Log(lambda _kind, _line: None))
    bus = PciBus("pci", machine, io=machine.io)
    ram, rom = RAM("ram", 2 << 20), ROM("rom", 0x40000)
    for at in range(0, rom.size, 0x4000):
        rom.memory.view[at : at + 0x4000] = bytes([0x11 + at // 0x4000]) * 0x4000
    machine.place(ram, 0)
    machine.system.place(bus.memory, 0, -1)
    bus.memory.place(rom, 0xC0000)
    host = I440fx("host", machine, bus=bus, ram=ram)
    ports = ConfigPorts("config", machine, bus)
    machine.place(ports, 0xCF8, PORTS, "ADDRESS")
    machine.place(ports, 0xCFC, PORTS, "DATA")
    machine.reset()
    return machine, Config(Ours(machine)), host


def test_firmware_shadows_itself() -> None:
    machine, config, _ = build()
    memory = machine.memory
    assert (memory.read(0xF0000, 1), memory.read(0xFFFFF, 1), memory.read(0x9FFFF, 1)) == (0x1D, 0x20, 0)
    config.write(HOST, 0x59, 0x20, 1)  # writes to RAM, reads from the bus
    for at in range(0xF0000, 0x100000, 0x1000):
        memory.write(at, 8, memory.read(at, 8))
    memory.write(0xF0008, 8, 0x42)
    assert memory.read(0xF0008, 8) == 0x1D1D1D1D1D1D1D1D
    config.write(HOST, 0x59, 0x10, 1)  # reads from RAM, writes nowhere
    assert (memory.read(0xF0000, 8), memory.read(0xF0008, 8)) == (0x1D1D1D1D1D1D1D1D, 0x42)
    memory.write(0xF0008, 8, 0x43)
    assert memory.read(0xF0008, 8) == 0x42
    config.write(HOST, 0x59, 0x30, 1)
    memory.write(0xF0008, 8, 0x44)
    assert memory.read(0xF0008, 8) == 0x44
    saved = machine.save()
    machine.reset()
    assert memory.read(0xF0008, 8) == 0x1D1D1D1D1D1D1D1D
    machine.restore(saved)
    assert memory.read(0xF0008, 8) == 0x44
    assert not memory.view.sections[0].region.name.startswith("host")


def test_each_segment_has_its_attribute() -> None:
    machine, config, host = build()
    memory, random = machine.memory, Random(4)
    attributes = dict.fromkeys(range(len(SEGMENTS)), 0)
    ram = dict.fromkeys(attributes, 0)
    for _ in range(300):
        number = random.randrange(len(SEGMENTS))
        _, _, register, shift = SEGMENTS[number]
        attributes[number] = random.randrange(4)
        old = config.read(HOST, 0x59 + register, 1)
        config.write(HOST, 0x59 + register, old & ~(0xF << shift) | attributes[number] << shift, 1)
        for segment, (at, size, _, _) in enumerate(SEGMENTS):
            where = at + size - 16
            value = random.randrange(256)
            memory.write(where, 1, value)
            if attributes[segment] & 2:
                ram[segment] = value
            rom = 0x11 + (where - 0xC0000) // 0x4000
            assert memory.read(where, 1) == (ram[segment] if attributes[segment] & 1 else rom)
    assert host.config.data[0x59] & 0x0F == 0


def test_smram_opens_until_it_is_locked() -> None:
    machine, config, _ = build()
    memory = machine.memory
    assert memory.read(0xA0000, 1) == 0xFF
    config.write(HOST, 0x72, 0x4A, 1)
    memory.write(0xA0000, 1, 5)
    config.write(HOST, 0x72, 0x0A, 1)
    assert memory.read(0xA0000, 1) == 0xFF
    config.write(HOST, 0x72, 0x42, 1)  # open, but not enabled
    assert memory.read(0xA0000, 1) == 0xFF
    config.write(HOST, 0x72, 0x5A, 1)  # locked
    config.write(HOST, 0x72, 0x4A, 1)
    assert (config.read(HOST, 0x72, 1), memory.read(0xA0000, 1)) == (0x1A, 0xFF)
    machine.reset()
    config.write(HOST, 0x72, 0x4A, 1)
    assert (config.read(HOST, 0x72, 1), memory.read(0xA0000, 1)) == (0x4A, 5)


def test_hostile_configuration() -> None:
    random = Random(8)
    machine, _, host = build()
    for _ in range(100_000):
        size = random.choice((1, 2, 4))
        offset = random.randrange(0x100) & -size
        host.config_write(offset, size, random.getrandbits(32) & (1 << 8 * size) - 1)
        if not random.randrange(8):
            at, size = random.choice((0xA0000, 0xC0000, random.randrange(1 << 20))), random.choice((1, 2, 4, 8))
            machine.memory.write(at, size, random.getrandbits(64))
            machine.memory.read(at, size)
        if not random.randrange(500):
            machine.reset()
    assert len(machine.memory.view.sections) < 60
