"""virtio over PCI, by the device of test_virtio.py: modern and legacy drivers, INTx and MSI-X, configuration access."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from dbt.machine.log import GUEST_ERROR
from dbt.machine.memory import RAM
from dbt.machine.pci import PciBus
from dbt.machine.virtio.pci import VirtioPci
from dbt.machine.virtio.spec import EVENT_IDX, INDIRECT_DESC, RING_PACKED, RING_RESET

from tests.machine.fuzzing import fuzz
from tests.machine.pci import COMMAND, ECAM, RAM_AT, Config, Function, Messages, machine, poke
from tests.machine.qtest import Ours
from tests.machine.virtio import Guest, PciLegacy, PciModern, Pool
from tests.machine.virtio_echo import ALL, Echo
from tests.machine.virtio_hostile import drive

if TYPE_CHECKING:
    from random import Random

    from dbt.machine.device import Device
    from dbt.machine.machine import Machine

NO_VECTOR = 0xFFFF


class Echo2(Echo):
    """With an ID that legacy drivers know."""

    DEVICE_ID = 2


class Card:
    def __init__(self, *, transitional: bool = True) -> None:
        self.machine, self.bus = machine()
        self.device = Echo2("echo", self.machine, rings=ALL)
        self.pci = VirtioPci("echo.pci", self.machine, self.device, bus=self.bus, slot=3, transitional=transitional)
        self.machine.reset()
        self.ours = Ours(self.machine)
        self.function = Function(Config(self.ours, ECAM), (0, 3, 0))
        self.wire = self.bus.intx[3]

    def guest(self, transport: PciModern | PciLegacy, wanted: int) -> Guest:
        guest = Guest(transport, Pool(RAM_AT, 4 << 20), lambda: self.machine.advance(0))
        guest.begin(wanted & ~(1 << 3))
        return guest


@pytest.mark.parametrize("transitional", [True, False])
@pytest.mark.parametrize("packed", [0, RING_PACKED], ids=["split", "packed"])
def test_a_modern_driver(packed: int, transitional: bool) -> None:
    card = Card(transitional=transitional)
    function = card.function
    assert function.read(0) == (0x1001_1AF4 if transitional else 0x1042_1AF4)
    assert function.read(8) == (0x0100_0000 if transitional else 0x0100_0001)
    bars = function.place()
    assert {index: length for index, (_, length) in bars.items()} == (
        {0: 64, 1: 4096, 4: 0x4000} if transitional else {1: 4096, 4: 0x4000}
    )
    transport = PciModern(function)
    assert transport.read(0x12, 2) == 2
    guest = card.guest(transport, packed | EVENT_IDX | INDIRECT_DESC)
    queue, second = guest.queue(0, 16), guest.queue(1, 8)
    assert transport.most(2) == 0
    guest.go()
    for _ in range(40):
        assert guest.request(queue, [b"abc", b"de"], [2, 9]) == (5, b"edcba" + b"\xee" * 6)
        assert guest.request(second, [b"abc"], [9])[0] == 3
        assert card.wire.level
        assert transport.interrupt() == 1
        assert not card.wire.level
    assert transport.config(0, 8) == 0x1122_3344_5566_7788
    transport.set_config(8, 77, 4)
    assert card.device.mode == 77
    card.device.config_changed()
    assert transport.read(0x15, 1) == 1
    assert transport.interrupt() == 2
    assert card.machine.log.counts[GUEST_ERROR] == 0
    assert transport.most(1) == 8
    for offset, value in ((0x18, 4), (0x20, 0x1000), (0x1C, 0)):  # not while it is enabled
        transport.write(offset, value, 4 if offset == 0x20 else 2)
    assert transport.read(0x18, 2) == 8
    assert card.machine.log.counts[GUEST_ERROR] == 3


def test_messages() -> None:
    card = Card()
    function = card.function
    messages = Messages()
    card.machine.msi.add(0xFEE0_0000, 0x1000, messages)
    function.place()
    function.enable_msix([(0xFEE0_0010, 0x100), (0xFEE0_0020, 0x200), (0xFEE0_0030, 0x300)])
    transport = PciModern(function)
    guest = card.guest(transport, 0)
    assert transport.set_vector(None, 0) == 0
    assert transport.set_vector(0, 3) == NO_VECTOR
    assert transport.set_vector(0, 1) == 1
    assert transport.set_vector(1, 2) == 2
    queues = [guest.queue(index, 8) for index in range(2)]
    guest.go()
    for queue in queues:
        guest.request(queue, [b"a"], [1])
    card.device.config_changed()
    requester = 3 << 3
    assert messages.seen == [(0x20, 0x200, requester), (0x30, 0x300, requester), (0x10, 0x100, requester)]
    assert not card.wire.level
    saved = json.loads(json.dumps(card.machine.save()))
    twin = Card()
    twin.machine.restore(saved)
    assert twin.machine.save() == saved
    assert twin.device.queues[1].vector == 2
    guest.reset()
    assert transport.set_vector(1, NO_VECTOR) == NO_VECTOR


def test_a_legacy_driver() -> None:
    card = Card()
    card.function.place()
    transport = PciLegacy(card.function)
    guest = card.guest(transport, EVENT_IDX | INDIRECT_DESC)
    assert guest.accepted == EVENT_IDX | INDIRECT_DESC
    assert card.device.driver_features == EVENT_IDX | INDIRECT_DESC
    queue = guest.queue(0, 64)
    guest.request(queue, [b"ab"], [2])  # legacy drivers may begin before DRIVER_OK
    guest.go()
    for _ in range(100):
        assert guest.request(queue, [b"abc", b"de"], [2, 9])[0] == 5
    assert card.wire.level
    assert transport.interrupt() == 1
    assert transport.config(4, 4) == 0x1122_3344
    card.function.enable_msix([(0, 0)])
    transport.space = 24
    assert transport.config(4, 4) == 0x1122_3344
    card.ours.out(transport.base + 20, 1, 2)
    assert card.ours.inp(transport.base + 20, 2) == 1
    card.ours.out(transport.base + 22, 9, 2)
    assert card.ours.inp(transport.base + 22, 2) == NO_VECTOR
    assert card.ours.inp(transport.base + 14, 2) == 0
    assert card.ours.inp(transport.base + 4, 4) == guest.accepted
    assert card.ours.inp(transport.base + 8, 4) == queue.places[0] >> 12
    card.ours.out(transport.base + 8, 0, 4)
    assert not card.device.queues[0].ready
    assert card.machine.log.counts[GUEST_ERROR] == 0


def test_access_through_configuration_space() -> None:
    card = Card()
    card.function.place()
    transport = PciModern(card.function)
    function, at = card.function, transport.window

    def point(offset: int, length: int, bar: int = 4) -> None:
        function.write(at + 4, bar, 1)
        function.write(at + 8, offset)
        function.write(at + 12, length)

    point(0x2000, 4)
    assert function.read(at + 16) == 0x5566_7788
    point(0x2008, 4)
    function.write(at + 16, 0x1234)
    assert card.device.mode == 0x1234
    point(0x12, 2)
    assert function.read(at + 16, 2) == 2
    before = card.machine.log.counts[GUEST_ERROR]
    for offset, length, bar in ((0x2001, 4, 4), (0, 3, 4), (0x4000, 4, 4), (0, 4, 2), (0xFFFF_FFFC, 4, 4)):
        point(offset, length, bar)
        function.read(at + 16)
        function.write(at + 16, 1)
    assert card.machine.log.counts[GUEST_ERROR] == before + 10


def test_what_is_there_waits_for_the_bus_master() -> None:
    card = Card()
    card.function.place()
    transport = PciModern(card.function)
    guest = card.guest(transport, RING_RESET)
    queue = guest.queue(0, 8)
    guest.go()
    card.function.enable(master=False)
    queue.add(guest.buffers([b"ab"], [2]))
    queue.kick()
    assert queue.used() == []
    card.function.write(COMMAND, 7, 2)
    assert len(queue.used()) == 1
    transport.write(0x3A, 1, 2)
    assert transport.read(0x3A, 2) == 0
    assert transport.read(0x1C, 2) == 0


def test_random_traffic() -> None:
    def make(made: Machine) -> Device:
        made.system.place(RAM("ram", 0x1_0000), 0x4000_0000)
        bus = PciBus("pci", made)
        return VirtioPci("pci", made, Echo2("echo", made, rings=ALL), bus=bus, slot=1)

    def also(device: Device, random: Random) -> None:
        assert isinstance(device, VirtioPci)
        poke(device, random)
        drive(device, random, lambda _: random.randbytes(random.randrange(20)))

    fuzz(make, 1210, also=also)
