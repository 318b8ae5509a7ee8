"""A driver for the virtio balloon: pages go to the host and come back as zeroes; statistics; reports of free pages."""

from __future__ import annotations

import json
import os
import struct
from typing import TYPE_CHECKING

import pytest
from dbt.machine.devices.virtio_balloon import PAGE_POISON, VirtioBalloon
from dbt.machine.log import GUEST_ERROR
from dbt.machine.memory import RAM, Memory
from dbt.machine.virtio.device import RINGS
from dbt.machine.virtio.mmio import VirtioMmio
from dbt.machine.virtio.spec import RING_PACKED

from tests.machine.fuzzing import fuzz
from tests.machine.virtio import KINDS, Guest, Ring, connect
from tests.machine.virtio_hostile import drive

if TYPE_CHECKING:
    from random import Random

    from dbt.machine.device import Device
    from dbt.machine.machine import Machine

RAM_AT, HIGH = 0x4000_0000, 0x4080_0000  # the second half is not the driver's own
PAGE = 4096


def make(machine: Machine) -> VirtioBalloon:
    return VirtioBalloon("balloon", machine, rings=RINGS | RING_PACKED)


def memory(device: Device) -> Memory:
    region = next(region for region in device.machine.system.below() if region.name == "ram")
    assert isinstance(region, RAM)
    return region.memory


def numbers(*pages: int) -> bytes:
    return struct.pack(f"<{len(pages)}I", *pages)


def start(guest: Guest, wanted: int = ~0) -> list[Ring]:
    guest.begin(wanted)
    queues = [guest.queue(index, 128) for index in range(4)]
    guest.go()
    return queues


@pytest.mark.parametrize("kind", KINDS)
def test_pages_go_to_the_host(kind: str) -> None:
    guest, device = connect(kind, make)
    ram = memory(device)
    if "legacy" in kind:
        guest.begin()
        queues = [guest.queue(index, (128, 128, 2, 32)[index]) for index in range(4)]
        guest.go()
    else:
        queues = start(guest)
    guest.bus.store(HIGH, b"\x77" * (1 << 20))
    before = os.fstat(ram.fd).st_blocks
    first = HIGH // PAGE
    pages = [first + number for number in range(256) if number % 3]
    assert guest.request(queues[0], [numbers(*pages[:100]), numbers(*reversed(pages[100:]))]) == (0, b"")
    freed = before - os.fstat(ram.fd).st_blocks
    assert -4 <= freed * 512 // PAGE - len(pages) <= 0  # the driver has touched a few of its own
    for number in range(256):
        assert guest.bus.load(HIGH + number * PAGE, 1) == (b"\0" if number % 3 else b"\x77")
    guest.request(queues[1], [numbers(*pages)])
    guest.bus.store(HIGH + PAGE, b"\x78")
    assert guest.bus.load(HIGH + PAGE, 2) == b"\x78\0"
    assert device.machine.log.counts[GUEST_ERROR] == 0
    guest.request(queues[0], [numbers(1, 0xFFFF_FFFF, first) + b"xyz"])  # no memory, and a part of a number
    assert device.machine.log.counts[GUEST_ERROR] == 2
    assert guest.bus.load(HIGH, 1) == b"\0"


def test_the_target() -> None:
    guest, device = connect("mmio", make)
    assert isinstance(device, VirtioBalloon)
    start(guest)
    device.set_target(5 << 20)
    assert guest.transport.interrupt() == 2
    assert guest.transport.config(0, 4) == 1280
    guest.transport.set_config(4, 1000, 4)
    assert device.actual == 1000
    device.set_target(1 << 60)
    assert guest.transport.config(0, 4) == 0xFFFF_FFFF


@pytest.mark.parametrize("rings", [0, RING_PACKED], ids=["split", "packed"])
def test_statistics(rings: int) -> None:
    guest, device = connect("mmio", make)
    assert isinstance(device, VirtioBalloon)
    queues = start(guest, ~RING_PACKED | rings)
    assert not device.ask_statistics()
    text = struct.pack("<HQHQHQ", 4, 1 << 30, 5, 1 << 32, 99, 1)
    buffers = guest.buffers([text], [])
    queues[2].add(buffers)
    queues[2].kick()
    assert device.statistics == {"free": 1 << 30, "total": 1 << 32}
    assert queues[2].used() == []
    saved = json.loads(json.dumps(device.machine.save()))
    other, twin = connect("mmio", make)
    other.bus.store(RAM_AT, guest.bus.load(RAM_AT, 8 << 20))
    twin.machine.restore(saved)
    assert isinstance(twin, VirtioBalloon)
    for which in (twin, device):
        assert which.ask_statistics()
        assert not which.ask_statistics()
    assert len(queues[2].used()) == 1
    queues[2].bus = other.bus
    guest.bus.store(buffers[0][0], struct.pack("<HQ", 4, 77))
    queues[2].bus = guest.bus
    queues[2].add(buffers)
    queues[2].add(buffers)
    queues[2].kick()
    assert device.statistics == {"free": 77, "total": 1 << 32}
    assert len(queues[2].used()) == 1  # one is enough
    guest.reset()
    assert device.held == 0
    queues = start(guest, ~RING_PACKED | rings)
    queues[2].add(buffers)
    queues[2].kick()
    assert device.ask_statistics()


def test_reports_of_free_pages() -> None:
    guest, device = connect("mmio", make)
    ram = memory(device)
    queues = start(guest)
    guest.bus.store(HIGH, b"\x77" * (1 << 20))
    before = os.fstat(ram.fd).st_blocks
    guest.transport.set_config(12, 0xAA, 4)
    places = [(HIGH + 0x800, 0x1800, True), (HIGH + 0x1_0000, 0x8_0000, True)]
    queues[3].add(places)
    queues[3].kick()
    assert len(guest.wait(queues[3], 1)) == 1
    assert os.fstat(ram.fd).st_blocks == before  # poisoned pages are not zeroes
    guest.transport.set_config(12, 0, 4)
    queues[3].add(places)
    queues[3].kick()
    guest.wait(queues[3], 1)
    assert before - os.fstat(ram.fd).st_blocks == (0x8_0000 + PAGE) // 512
    assert guest.bus.load(HIGH + 0x800, 1) == b"\x77"  # only whole pages
    assert guest.bus.load(HIGH + 0x1000, 1) == b"\0"
    assert guest.accepted & PAGE_POISON


def pages(random: Random) -> bytes:
    some = [RAM_AT // PAGE + 8 + random.randrange(8) for _ in range(random.randrange(90))]
    return numbers(*some, *(random.getrandbits(32) for _ in range(random.randrange(2))))


def test_random_traffic() -> None:
    def build(machine: Machine) -> Device:
        machine.place(RAM("ram", 0x1_0000), RAM_AT)
        return VirtioMmio("mmio", machine, device=make(machine))

    def also(device: Device, random: Random) -> None:
        assert isinstance(device, VirtioMmio)
        drive(device, random, lambda _: pages(random))
        balloon = device.device
        assert isinstance(balloon, VirtioBalloon)
        if random.random() < 0.2:
            balloon.ask_statistics()

    fuzz(build, 1240, also=also)
