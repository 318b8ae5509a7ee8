"""Rings, negotiation and the MMIO transport, by a device that gives back what it gets, and a driver beside them."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.machine.errors import MapError, SnapshotError
from dbt.machine.log import GUEST_ERROR
from dbt.machine.machine import Machine
from dbt.machine.memory import RAM, DirtyTracker
from dbt.machine.registers import RO, RW, Register, Window
from dbt.machine.virtio import CONFIG_SIZES, VirtioDevice
from dbt.machine.virtio.device import RINGS
from dbt.machine.virtio.mmio import VirtioMmio
from dbt.machine.virtio.spec import (
    DEVICE_NEEDS_RESET,
    EVENT_IDX,
    IN_ORDER,
    INDIRECT_DESC,
    RING_PACKED,
    RING_RESET,
    VERSION_1,
)
from dbt.machine.virtio.transport import QueueSetup

from tests.machine.fuzzing import fuzz
from tests.machine.qtest import Ours
from tests.machine.virtio import Guest, Mmio, Pool, Split

if TYPE_CHECKING:
    from dbt.machine.device import Device
    from dbt.machine.virtio import Chain, VirtQueue

BASE, MEMORY, SIZE = 0x0A00_0000, 0x4000_0000, 0x40_0000
ALL = RINGS | RING_PACKED | IN_ORDER
KINDS = [
    pytest.param(packed | event | indirect | VERSION_1, id=f"{kind}{'-event' if event else ''}{more}")
    for packed, kind in ((0, "split"), (RING_PACKED, "packed"))
    for event in (0, EVENT_IDX)
    for indirect, more in ((0, ""), (INDIRECT_DESC, "-indirect"))
]


@pytest.fixture(params=[True, False], ids=["native", "python"])
def rings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both makes of rings."""
    if not request.param:
        monkeypatch.setattr("dbt.machine.virtio.device.functions", lambda: None)


class Echo(VirtioDevice):
    """Gives back what it gets, backwards; or holds chains until `finish`."""

    DEVICE_ID = 42
    FEATURES = 1 << 3
    CONFIG = Window(16, CONFIG_SIZES, partial=True, placed=False)
    length = Register(0, RO, "a number", size=8, reset=0x1122_3344_5566_7788)
    mode = Register(8, RW, "another")

    def __init__(self, name: str, machine: Machine, *, rings: int = ALL) -> None:
        super().__init__(name, machine, (64, 16), rings=rings)
        self.hold = False
        self.held: list[tuple[VirtQueue, Chain]] = []

    def refuses(self, features: int) -> str:
        return "" if not features & 1 << 3 else "of no reason"

    def on_notify(self, queue: VirtQueue) -> None:
        for chain in self.chains(queue, 20):
            if self.hold:
                self.held.append((queue, chain))
            else:
                self.answer(queue, chain)
        queue.notify()

    @staticmethod
    def answer(queue: VirtQueue, chain: Chain) -> None:
        queue.push(chain, chain.write(0, chain.read(0, 1 << 20)[::-1]))


def build(**options: int) -> tuple[Machine, Echo, VirtioMmio]:
    machine = Machine()
    machine.place(RAM("ram", SIZE), MEMORY)
    device = Echo("echo", machine, **options)
    mmio = VirtioMmio("echo.mmio", machine, device=device)
    machine.place(mmio, BASE)
    machine.reset()
    return machine, device, mmio


def drive(machine: Machine, wanted: int, *, legacy: bool = False) -> Guest:
    guest = Guest(Mmio(Ours(machine), BASE, legacy=legacy), Pool(MEMORY, SIZE), lambda: machine.advance(0))
    guest.begin(wanted & ~(1 << 3))
    return guest


@pytest.mark.usefixtures("rings")
@pytest.mark.parametrize("kind", KINDS)
def test_requests_of_all_shapes(kind: int) -> None:
    machine, device, mmio = build()
    guest = drive(machine, kind)
    queue = guest.queue(0, 64)
    guest.go()
    random = Random(kind)
    for number in range(300):  # several times around the ring
        out = [random.randbytes(random.choice((1, 7, 100))) for _ in range(random.randrange(4))]
        into = [random.choice((1, 50, 300)) for _ in range(random.randrange(1, 4))]
        written, data = guest.request(queue, out, into)
        sent = b"".join(out)[::-1]
        assert written == min(len(sent), sum(into))
        assert data == sent[:written] + b"\xee" * (sum(into) - written), number
        assert guest.transport.interrupt() == 1
        assert not mmio.irq.level
    assert device.queues[0].in_flight == 0
    assert machine.log.counts[GUEST_ERROR] == 0


@pytest.mark.usefixtures("rings")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [0, IN_ORDER], ids=["", "in-order"])
def test_many_in_flight_in_any_order(kind: int, order: int) -> None:
    machine, device, _ = build()
    guest = drive(machine, kind | order)
    queue = guest.queue(1, 16)
    guest.go()
    random = Random(kind)
    device.hold = True
    buffers = [guest.buffers([bytes([number]) * 8], [8]) for number in range(16)]
    indirect = bool(guest.accepted & INDIRECT_DESC)
    for _ in range(40):
        chains = [queue.add(buffer, indirect=indirect) for buffer in buffers[: 16 if indirect else 8]]
        queue.kick()
        assert len(device.held) == len(chains)
        shuffled, device.held = device.held[:], []
        random.shuffle(shuffled)
        for held in shuffled:
            device.answer(*held)
        device.queues[1].notify()
        back = queue.used()
        assert sorted(chain for chain, _ in back) == sorted(chains)
        if order:
            assert [chain for chain, _ in back] == chains
        for buffer in buffers[: len(chains)]:
            assert machine.memory.peek(buffer[1][0], 8) == machine.memory.peek(buffer[0][0], 8)
    assert queue.kicks == 40 or not guest.accepted & EVENT_IDX


@pytest.mark.usefixtures("rings")
def test_interrupts_and_notifications_are_suppressed() -> None:
    for packed in (0, RING_PACKED):
        machine, device, mmio = build()
        guest = drive(machine, EVENT_IDX | packed)
        queue = guest.queue(0, 8)
        guest.go()
        device.hold = True
        places = guest.buffers([b"x"], [1])
        queue.add(places)
        queue.kick()
        queue.add(places)
        queue.kick()
        assert queue.kicks == 2  # the device had seen the end
        for held in device.held:
            device.answer(*held)
        device.queues[0].notify()
        assert mmio.irq.level
        assert guest.transport.interrupt() == 1
        assert len(queue.used()) == 2
        # The driver asks for an interrupt after three more: two do not give one.
        if packed:
            machine.memory.write(queue.places[1], 4, 2 << 16)  # two descriptors each: the first of the next round
        else:
            machine.memory.write(queue.places[1] + 4 + 16, 2, 4)
        device.held.clear()
        for number in range(3):
            queue.add(places)
            queue.kick()
            device.answer(*device.held.pop())
            device.queues[0].notify()
            assert mmio.irq.level == (number == 2)


@pytest.mark.usefixtures("rings")
def test_flags_keep_interrupts_away() -> None:
    for packed in (0, RING_PACKED):
        machine, _, mmio = build()
        guest = drive(machine, packed)
        queue = guest.queue(0, 8)
        guest.go()
        machine.memory.write(queue.places[1], 4, 0x1_0000 if packed else 1)
        guest.request(queue, [b"x"], [1])
        assert not mmio.irq.level
        machine.memory.write(queue.places[1], 2 if not packed else 4, 0)
        guest.request(queue, [b"x"], [1])
        assert mmio.irq.level


def test_a_long_queue_is_done_in_parts() -> None:
    machine, device, _ = build()
    guest = drive(machine, INDIRECT_DESC)
    queue = guest.queue(0, 64)
    guest.go()
    places = guest.buffers([b"ab"], [2])
    for _ in range(64):
        queue.add(places, indirect=True)
    queue.kick()
    assert len(queue.used()) == 20
    assert device.waiting == 1
    machine.advance(0)
    assert len(queue.used()) == 44
    assert device.waiting == 0


@pytest.mark.usefixtures("rings")
def test_what_the_driver_may_not_do_ends_in_a_reset() -> None:
    def run(kind: int, *descriptors: tuple[int, int, int, int], available: int = 1) -> Machine:
        machine, device, mmio = build()
        guest = drive(machine, kind)
        queue = guest.queue(0, 8)
        guest.go()
        for slot, (address, length, flags, following) in enumerate(descriptors):
            tail = [following, flags] if kind & RING_PACKED else [flags, following]
            data = address.to_bytes(8, "little") + length.to_bytes(4, "little")
            data += b"".join(word.to_bytes(2, "little") for word in tail)
            guest.bus.store(queue.places[0] + 16 * slot, data)
        if not kind & RING_PACKED:
            machine.memory.write(queue.places[1] + 2, 2, available)
        guest.transport.notify(0)
        assert guest.transport.status() & DEVICE_NEEDS_RESET
        assert (mmio.irq.level, mmio.InterruptStatus) == (True, 2)
        guest.transport.notify(0)  # nothing any more
        machine.log.counts[GUEST_ERROR] -= 1
        assert machine.log.counts[GUEST_ERROR] in {0, 1}  # the second is the port's own
        # And it works again afterwards.
        guest.begin(kind & ~(1 << 3))
        assert not mmio.irq.level
        again = guest.queue(0, 8)
        guest.go()
        assert guest.request(again, [b"abc"], [3])[1] == b"cba"
        assert device.broken == 0
        return machine

    ram = MEMORY + 0x10_0000
    run(0, (ram, 4, 1, 0))  # a loop of one
    run(0, (ram, 4, 1, 1), (ram, 4, 1, 0))
    run(0, (ram, 4, 1, 9))  # beyond the table
    run(0, (ram, 4, 2 | 1, 1), (ram, 4, 0, 0))  # readable behind writable
    run(0, (ram, 16, 4, 0))  # indirect without the feature
    run(INDIRECT_DESC, (ram, 17, 4, 0))
    run(INDIRECT_DESC, (ram, 0, 4, 0))
    run(INDIRECT_DESC, (ram, 16 * 1025, 4, 0))
    run(INDIRECT_DESC, (ram, 16, 5, 0))
    run(0, (BASE, 4, 2, 0))  # a device, not memory
    run(0, (0, 4, 0, 0))
    run(0, (MEMORY + SIZE - 2, 4, 0, 0))
    run(0, ((1 << 64) - 1, 4, 0, 0))
    run(0, available=9)  # more than there are entries
    mine = 0x80
    run(RING_PACKED, *[(ram, 4, 1 | mine, 0)] * 8)  # all in one chain, and on
    run(RING_PACKED, (ram, 4, 3 | mine, 0), (ram, 4, mine, 0))
    run(RING_PACKED, (ram, 16, 4 | mine, 0))
    run(RING_PACKED | INDIRECT_DESC, (ram, 24, 4 | mine, 0))
    run(RING_PACKED | INDIRECT_DESC, (ram, 4, 1 | mine, 0), (ram, 16, 4 | mine, 0))
    run(RING_PACKED, (BASE, 4, 2 | mine, 0))


@pytest.mark.usefixtures("rings")
def test_chains_below_others_are_bounded() -> None:
    """An indirect table in an indirect table, a table that loops, and one that is as long as may be."""
    machine, device, _ = build()
    guest = drive(machine, INDIRECT_DESC)
    queue = guest.queue(0, 8)
    assert isinstance(queue, Split)
    guest.go()
    table, at = MEMORY + 0x10_0000, MEMORY + 0x20_0000

    def entry(slot: int, address: int, length: int, flags: int, following: int) -> None:
        guest.bus.store(
            table + 16 * slot,
            address.to_bytes(8, "little") + length.to_bytes(4, "little")
            + flags.to_bytes(2, "little") + following.to_bytes(2, "little"),
        )  # fmt: skip

    for slot in range(1024):
        entry(slot, at + slot, 1, 2 | (slot < 1023), slot + 1)
    queue.add([(at, 4, False)])
    guest.bus.store(
        queue.places[0] + 16 * 7,
        table.to_bytes(8, "little") + (16 * 1024).to_bytes(4, "little") + b"\4\0\0\0",
    )
    queue.kick()
    assert queue.used() == [(7, 0)]
    assert device.broken == 0
    entry(1023, at, 1, 3, 0)
    queue.free = [6]
    queue.add([(at, 4, False)])
    guest.bus.store(
        queue.places[0] + 16 * 6,
        table.to_bytes(8, "little") + (16 * 1024).to_bytes(4, "little") + b"\4\0\0\0",
    )
    queue.kick()
    assert device.broken


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


@pytest.mark.usefixtures("rings")
@pytest.mark.parametrize("kind", KINDS)
def test_save_and_restore_in_the_middle_of_work(kind: int) -> None:
    machine, device, _ = build()
    guest = drive(machine, kind)
    queue = guest.queue(0, 64)
    guest.go()
    for number in range(70):
        guest.request(queue, [bytes([number])], [2])
    places = guest.buffers([b"abc"], [3])
    for _ in range(30 if kind & INDIRECT_DESC else 15):
        queue.add(places, indirect=bool(kind & INDIRECT_DESC))
    queue.kick()
    device.hold = True
    token = None
    if not kind & INDIRECT_DESC:
        queue.add(places)
        queue.kick()
        ((_, held),) = device.held
        token = held.token
    saved = json.loads(json.dumps(machine.save()))
    content = machine.memory.peek(MEMORY, SIZE)

    other, twin, _ = build()
    Ours(other).store(MEMORY, content)
    other.restore(saved)
    if token is not None:
        again = twin.queues[0].again(token)
        assert again is not None
        twin.answer(twin.queues[0], again)
        twin.queues[0].notify()
        total = 16
    else:
        assert twin.waiting
        other.advance(0)
        total = 30
    queue.bus = guest.bus = guest.transport.bus = Ours(other)
    guest.step = lambda: other.advance(0)
    assert len(queue.used()) == total
    assert guest.request(queue, [b"123"], [3]) == (3, b"321")
    for change in ("next_used", "next_avail"):
        bad = json.loads(json.dumps(saved))
        bad["devices"]["echo"]["queues"][0]["ring"][change] = 1 << 20
        with pytest.raises(SnapshotError, match="16 bits"):
            other.restore(bad)
    bad = json.loads(json.dumps(saved))
    bad["devices"]["echo"]["queues"].pop()
    with pytest.raises(SnapshotError, match="other queues"):
        other.restore(bad)


@pytest.mark.usefixtures("rings")
def test_writes_are_told_to_observers_of_memory() -> None:
    for packed in (0, RING_PACKED):
        machine, _, _ = build()
        ram = next(region for region in machine.system.below() if region.name == "ram")
        assert isinstance(ram, RAM)
        guest = drive(machine, packed)
        queue = guest.queue(0, 8)
        guest.go()
        tracker = DirtyTracker(ram.memory)
        places = [(MEMORY + 0x10_0000, 100, False), (MEMORY + 0x20_0000, 0x3000, True)]
        queue.add(places)
        queue.kick()
        dirty = dict(tracker.collect())
        assert dirty[0x20_0000] == 4096  # 100 bytes were written
        assert 0x10_0000 not in dirty
        place = queue.places[0 if packed else 2] - MEMORY
        assert any(at <= place < at + length for at, length in dirty.items())


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
        scribble(device, random, random.choice((0, RING_PACKED)))

    fuzz(make, 1200, also=also)


def scribble(transport: Device, random: Random, packed: int) -> None:
    """Random rings in memory, and now and then a driver that begins well."""
    assert isinstance(transport, QueueSetup)
    memory, device = transport.machine.memory, transport.device
    assert device is not None
    for _ in range(random.randrange(8)):
        at = MEMORY + random.randrange(0x100) * 8
        memory.write(at, 8, random.choice((
            MEMORY + random.randrange(0x2000), random.getrandbits(64), random.getrandbits(16),
            random.randrange(16) | random.choice((0, 1 << 47, 1 << 55)) | random.randrange(8) << 48,
        )))  # fmt: skip
    if random.random() < 0.2:
        device.set_status(0)
        device.set_status(3)
        device.accept_word(0, random.choice((0, INDIRECT_DESC, INDIRECT_DESC | EVENT_IDX)))
        device.accept_word(1, (VERSION_1 | packed) >> 32)
        device.set_status(11)
        for queue in device.queues:
            queue.size = random.choice((1, 2, 8, 16))
            queue.descriptors, queue.driver, queue.device = (
                MEMORY + 16 * random.randrange(0x20) for _ in range(3)
            )  # fmt: skip
            queue.enable()
        device.set_status(15)
    elif random.random() < 0.5:
        device.notified(random.randrange(len(device.queues)))
