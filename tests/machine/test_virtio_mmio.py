"""Status, features, configuration space, resets and the registers of the MMIO transport (version 1.2, section 4.2)."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.machine.errors import MapError
from dbt.machine.log import GUEST_ERROR
from dbt.machine.machine import Machine
from dbt.machine.memory import RAM
from dbt.machine.virtio import VirtioDevice
from dbt.machine.virtio.mmio import VirtioMmio
from dbt.machine.virtio.spec import (
    EVENT_IDX,
    INDIRECT_DESC,
    RING_PACKED,
    RING_RESET,
    VERSION_1,
)

from tests.machine.fuzzing import fuzz
from tests.machine.qtest import Ours
from tests.machine.virtio import Mmio
from tests.machine.virtio_echo import ALL, BASE, MEMORY, SIZE, Echo, build, drive
from tests.machine.virtio_hostile import drive as drive_badly

if TYPE_CHECKING:
    from dbt.machine.device import Device


def test_negotiation() -> None:
    machine, device, _ = build()
    bus = Mmio(Ours(machine), BASE)
    assert bus.identity() == (0x7472_6976, 2, 42, 0x554D_4551)
    assert bus.features() == VERSION_1 | ALL | 1 << 3
    for features, good in ((0, False), (VERSION_1, True), (VERSION_1 | 1 << 3, False), (VERSION_1 | 1 << 50, False)):
        bus.set_status(0)
        bus.set_status(3)
        bus.accept(features)
        bus.set_status(11)
        assert (bus.status() == 11) == good
        bus.set_status(15)
        assert (bus.status() == 15) == good
    bus.set_status(0)
    bus.set_status(3)
    bus.accept(VERSION_1)
    bus.set_status(11)
    bus.accept(VERSION_1 | EVENT_IDX)  # too late
    assert device.driver_features == VERSION_1
    bus.set_status(9)  # bits are not taken back
    assert bus.status() == 11
    before = machine.log.counts[GUEST_ERROR]
    bus.notify(0)
    bus.notify(5)
    bus.write(0x30, 7)
    assert bus.read(0x34) == 0
    bus.write(0x44, 1)
    bus.write(0x30, 0)
    bus.write(0x38, 24)
    bus.write(0x44, 1)
    assert bus.read(0x44) == 0
    assert machine.log.counts[GUEST_ERROR] == before + 4


def test_configuration_space() -> None:
    machine, device, mmio = build()
    bus = Mmio(Ours(machine), BASE)
    assert bus.config(0, 8) == 0x1122_3344_5566_7788
    assert bus.config(4, 4) == 0x1122_3344
    assert bus.config(1, 1) == 0x77
    bus.set_config(8, 5, 4)
    assert device.mode == 5
    assert bus.config(16, 4) == 0xFFFF_FFFF
    bus.set_config(0x20, 1, 4)
    assert bus.read(0xFC) == 0
    guest = drive(machine, 0)
    guest.go()
    device.config_changed()
    assert bus.read(0xFC) == 1
    assert mmio.irq.level
    assert bus.interrupt() == 2
    assert not mmio.irq.level


def test_resets_while_requests_are_in_flight() -> None:
    for packed in (0, RING_PACKED):
        machine, device, _ = build()
        guest = drive(machine, packed | RING_RESET)
        queue = guest.queue(0, 8)
        guest.go()
        device.hold = True
        places = guest.buffers([b"xyz"], [3])
        for _ in range(3):
            queue.add(places)
        queue.kick()
        # One queue (section 2.6.1).
        bus = guest.transport
        assert isinstance(bus, Mmio)
        bus.write(0x30, 0)
        bus.write(0xC0, 1)
        assert (bus.read(0xC0), bus.read(0x44)) == (1, 0)
        for held in device.held:
            device.answer(*held)
        device.held.clear()
        assert bus.read(0xC0) == 0
        assert machine.memory.peek(queue.places[2], 4)[2:] == b"\0\0" or packed
        queue = guest.queue(0, 8)
        for _ in range(2):
            queue.add(places)
        queue.kick()
        # All of it (section 2.4): the status is not 0 before nothing of the guest's is used any more.
        guest.transport.set_status(0)
        assert guest.transport.status() == 15
        device.answer(*device.held.pop())
        assert guest.transport.status() == 15
        device.answer(*device.held.pop())
        assert guest.transport.status() == 0
        device.hold = False
        guest.begin(packed)
        queue = guest.queue(0, 8)
        guest.go()
        assert guest.request(queue, [b"abc"], [3]) == (3, b"cba")
        # A driver that does not wait is served, too.
        device.hold = True
        queue.add(places)
        queue.kick()
        guest.transport.set_status(0)
        guest.transport.set_status(1)
        assert guest.transport.status() == 1
        device.answer(*device.held.pop())
        assert guest.transport.status() == 1


def test_legacy_registers() -> None:
    machine = Machine()
    machine.place(RAM("ram", SIZE), MEMORY)
    mmio = VirtioMmio("mmio", machine, device=Echo("echo", machine), legacy=True)
    machine.place(mmio, BASE)
    machine.reset()
    guest = drive(machine, EVENT_IDX | INDIRECT_DESC, legacy=True)
    bus = guest.transport
    assert isinstance(bus, Mmio)
    assert bus.identity()[1] == 1
    assert guest.accepted == EVENT_IDX | INDIRECT_DESC
    bus.write(0x28, 4096)
    queue = guest.queue(0, 16)
    assert bus.read(0x40) == queue.places[0] >> 12
    guest.go()
    for _ in range(40):
        assert guest.request(queue, [b"abc", b"d"], [9])[0] == 4
    assert bus.interrupt() == 1
    bus.write(0x40, 0)
    assert bus.read(0x40) == 0
    bus.write(0x28, 100)
    assert machine.log.counts[GUEST_ERROR] == 1


def test_an_empty_slot() -> None:
    machine = Machine()
    mmio = VirtioMmio("mmio", machine)
    machine.place(mmio, BASE)
    machine.reset()
    bus = Mmio(Ours(machine), BASE)
    assert bus.identity() == (0x7472_6976, 2, 0, 0x554D_4551)
    bus.set_status(1)
    assert (bus.status(), bus.features(), bus.most(0), bus.config(0, 4)) == (0, 0, 0, 0)
    device = Echo("echo", machine)
    mmio.plug(device)
    with pytest.raises(MapError, match="transport"):
        VirtioMmio("other", machine, device=device)
    with pytest.raises(MapError, match="queues"):
        VirtioDevice("none", machine, ())


def test_random_traffic() -> None:
    def make(machine: Machine) -> Device:
        machine.place(RAM("ram", 0x1_0000), MEMORY)
        return VirtioMmio("mmio", machine, device=Echo("echo", machine))

    def also(device: Device, random: Random) -> None:
        drive_badly(device, random, lambda _: random.randbytes(random.randrange(20)))

    fuzz(make, 1200, also=also)
