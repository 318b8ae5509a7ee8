"""Rings of both kinds, native and in Python, by a device that gives back what it gets, and a driver beside them."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.machine.errors import SnapshotError
from dbt.machine.log import GUEST_ERROR
from dbt.machine.memory import RAM, DirtyTracker
from dbt.machine.virtio.spec import (
    DEVICE_NEEDS_RESET,
    EVENT_IDX,
    IN_ORDER,
    INDIRECT_DESC,
    RING_PACKED,
    VERSION_1,
)

from tests.machine.qtest import Ours
from tests.machine.virtio import Split
from tests.machine.virtio_echo import BASE, MEMORY, SIZE, build, drive

if TYPE_CHECKING:
    from dbt.machine.machine import Machine

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
        monkeypatch.setattr("dbt.machine.virtio.device.builtins", lambda: None)


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
    assert len(queue.used()) == 22
    assert device.waiting == 1
    machine.advance(0)
    assert len(queue.used()) == 64 - 22
    assert device.waiting == 0


@pytest.mark.usefixtures("rings")
@pytest.mark.parametrize("kind", [INDIRECT_DESC, INDIRECT_DESC | RING_PACKED], ids=["split", "packed"])
def test_a_part_has_as_many_buffers_of_hostile_chains_as_of_others(kind: int) -> None:
    """A thousand buffers in each chain: one chain to a part, and the device's queues share a part."""
    machine, device, _ = build()
    guest = drive(machine, kind)
    queues = guest.queue(0, 64), guest.queue(1, 16)
    guest.go()
    device.hold = True
    place = guest.buffers([], [1])[0]
    for queue in queues:
        for _ in range(4):
            queue.add([place] * 1024, indirect=True)
    queues[0].kick()
    queues[1].kick()
    assert [queue.index for queue, _ in device.held] == [0, 1]
    assert len(device.held[0][1].writable) == 1024
    assert device.waiting == 3
    served = [len(device.held)]
    for _ in range(6):
        machine.run_timers()
        served.append(len(device.held))
    assert served == [2, 3, 4, 5, 6, 7, 8]
    order = [queue.index for queue, _ in device.held]
    assert sorted(order[:4]) == [0, 0, 1, 1]  # each in its turn


def test_what_is_left_is_saved_and_is_nothing_after_a_reset() -> None:
    machine, device, _ = build()
    guest = drive(machine, INDIRECT_DESC)
    queue = guest.queue(0, 64)
    guest.go()
    places = guest.buffers([b"ab"], [2])
    for _ in range(64):
        queue.add(places, indirect=True)
    queue.kick()
    first = len(queue.used())
    saved = machine.save()
    guest.transport.set_status(0)
    assert (device.waiting, device.work.waiting) == (0, False)
    machine.restore(saved)
    assert (device.waiting, device.work.waiting) == (1, True)
    machine.advance(0)
    assert first + len(queue.used()) == 64


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
    device.machine.advance(0)  # a long chain has used up the budget, so this comes later
    assert device.broken


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
