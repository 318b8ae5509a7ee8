"""Drivers for fw_cfg from QEMU's specification of it, on our device and on QEMU's, by memory and by ports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest
from dbt.machine.devices.fw_cfg import FwCfg
from dbt.machine.errors import MapError
from dbt.machine.log import GUEST_ERROR, UNIMPLEMENTED
from dbt.machine.machine import PORTS, Machine
from dbt.machine.memory import RAM, DmaPort

from tests.machine.fuzzing import fuzz
from tests.machine.qtest import ARM, X86, Bus, Ours, agree, qemu

if TYPE_CHECKING:
    from random import Random

    from dbt.machine.device import Device

BASE, MEMORY = 0x0902_0000, 0x4000_0000
CONTENT = bytes(range(1, 60))
ITEM = ["-fw_cfg", "name=opt/org.example/item,string=" + "".join(map(chr, range(65, 91)))]


class Way(Protocol):
    """How a driver reaches the device."""

    def select(self, bus: Bus, key: int) -> None: ...
    def byte(self, bus: Bus) -> int: ...
    def start(self, bus: Bus, address: int) -> None: ...


class ByMemory:
    ram = MEMORY

    def select(self, bus: Bus, key: int) -> None:
        bus.write(BASE + 8, int.from_bytes(key.to_bytes(2, "big"), "little"), 2)

    def byte(self, bus: Bus) -> int:
        return bus.read(BASE, 1)

    def start(self, bus: Bus, address: int) -> None:
        bus.write(BASE + 16, int.from_bytes(address.to_bytes(8, "big"), "little"), 8)


class ByPorts:
    ram = 0x10_0000

    def select(self, bus: Bus, key: int) -> None:
        bus.out(0x510, key, 2)

    def byte(self, bus: Bus) -> int:
        return bus.inp(0x511)

    def start(self, bus: Bus, address: int) -> None:
        bus.out(0x514, int.from_bytes((address >> 32).to_bytes(4, "big"), "little"), 4)
        bus.out(0x518, int.from_bytes((address & 0xFFFF_FFFF).to_bytes(4, "big"), "little"), 4)


def build(ram: int = MEMORY) -> tuple[Machine, FwCfg]:
    machine = Machine()
    device = FwCfg("fw_cfg", machine)
    machine.place(device, BASE, window="REGISTERS_WINDOW")
    machine.place(device, 0x510, PORTS, window="IO")
    machine.place(device, 0x514, PORTS, window="IO_DMA")
    machine.place(RAM("ram", 0x10000), ram)
    device.add_file("opt/org.example/item", "".join(map(chr, range(65, 91))).encode())
    device.add_file("etc/other", CONTENT)
    machine.reset()
    return machine, device


def find(way: Way, bus: Bus, name: str) -> int:
    """A file's key: the directory is not compared, since QEMU has files of its own."""
    kept = list(bus.log)
    way.select(bus, 0x19)
    count = int.from_bytes(bytes(way.byte(bus) for _ in range(4)), "big")
    for _ in range(count):
        entry = bytes(way.byte(bus) for _ in range(64))
        if entry[8:].rstrip(b"\0").decode() == name:
            bus.log[:] = kept
            return int.from_bytes(entry[4:6], "big")
    raise AssertionError(name)


def transfer(way: Way, bus: Bus, control: int, length: int, target: int, at: int) -> None:
    """A DMA descriptor, its result, and what is at the target."""
    for offset, value, size in ((0, control, 4), (4, length, 4), (8, target, 8)):
        bus.write(at + offset, int.from_bytes(value.to_bytes(size, "big"), "little"), size)
    way.start(bus, at)
    bus.read(at)


def script(way: ByMemory | ByPorts, bus: Bus) -> None:
    for key, count in ((0, 6), (1, 6), (0x1234, 3)):
        way.select(bus, key)
        for _ in range(count):
            way.byte(bus)
    key = find(way, bus, "opt/org.example/item")
    way.select(bus, key)
    for _ in range(30):
        way.byte(bus)
    at, target = way.ram, way.ram + 0x100
    for control, length in (
        (key << 16 | 8 | 2, 10), (2, 10), (4, 3), (2, 10), (key << 16 | 8, 0), (4, 20), (2, 16), (0, 5),
        (key << 16 | 8 | 2, 0),
    ):  # fmt: skip
        for offset in range(0, 16, 8):
            bus.write(target + offset, 0xEEEE_EEEE_EEEE_EEEE, 8)
        transfer(way, bus, control, length, target, at)
        for offset in range(0, 16, 8):
            bus.read(target + offset, 8)
    transfer(way, bus, key << 16 | 8 | 16, 4, target, at)  # not to be written
    transfer(way, bus, 2, 0, target, at)


@pytest.mark.needs("qemu-system-aarch64")
def test_it_agrees_with_qemu_by_memory() -> None:
    way = ByMemory()

    def wide(bus: Bus) -> None:
        script(way, bus)
        way.select(bus, find(way, bus, "opt/org.example/item"))
        for size in (2, 4, 8, 1, 8):
            bus.read(BASE, size)
        bus.read(BASE + 16, 8)

    with qemu(*ARM, "-nodefaults", *ITEM) as theirs:
        assert agree(wide, build()[0], theirs) > 70


@pytest.mark.needs("qemu-system-x86_64")
def test_it_agrees_with_qemu_by_ports() -> None:
    way = ByPorts()

    def ports(bus: Bus) -> None:
        script(way, bus)
        bus.inp(0x514, 4)
        bus.inp(0x518, 4)

    with qemu(*X86, *ITEM) as theirs:
        assert agree(ports, build(way.ram)[0], theirs) > 70


def test_transfers_reach_memory_only() -> None:
    machine, device = build()
    bus = machine.memory
    way, mine = ByMemory(), Ours(machine)
    for length, target in ((0x10000, MEMORY + 0x100), (0xFFFF_FFFF, MEMORY), (4, BASE), (4, 0), (8, (1 << 64) - 4)):
        transfer(way, mine, 2, length, target, MEMORY)
        assert bus.read(MEMORY, 4) == 0x0100_0000
    way.start(mine, BASE)  # no descriptor: nowhere to say so
    way.start(mine, 0)
    assert machine.log.counts[GUEST_ERROR] == 7
    transfer(way, mine, 16, 4, MEMORY + 0x100, MEMORY)
    assert machine.log.counts[UNIMPLEMENTED] == 1
    device.dma.enabled = False
    way.start(mine, MEMORY)
    assert machine.log.counts[GUEST_ERROR] == 8


def test_names_have_limits() -> None:
    _, device = build()
    with pytest.raises(MapError, match="1 to 55"):
        device.add_file("x" * 56, b"")
    with pytest.raises(MapError, match="0x2 to 0x18"):
        device.add(0x19, b"")
    device.add(2, b"ok")
    for number in range(254):
        device.add_file(f"file{number}", b"")
    with pytest.raises(MapError, match="no room"):
        device.add_file("one more", b"")
    device.add_file("file0", b"new")
    assert len(device.items[0x19]) == 4 + 64 * 256


def test_random_traffic() -> None:
    def make(machine: Machine) -> Device:
        machine.place(RAM("ram", 0x1000), 0x40_0000_0000)
        device = FwCfg("fw_cfg", machine, DmaPort("fw_cfg", machine.memory))
        device.add_file("file", bytes(range(100)))
        return device

    def also(device: Device, random: Random) -> None:
        memory = device.machine.memory
        for offset in (0, 4, 8, 12):
            memory.write(0x40_0000_0000 + offset, 4, random.choice((0, 0x40, random.getrandbits(32))))
        memory.write(0x10, 8, int.from_bytes((0x40_0000_0000).to_bytes(8, "big"), "little"))

    fuzz(make, 510, also=also)
