"""Native rings and those in Python do the same, on random rings in random memory; and there are rings without them."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.machine.machine import Machine
from dbt.machine.memory import RAM, ROM, DirtyTracker
from dbt.machine.native import builtin
from dbt.machine.virtio.mmio import VirtioMmio
from dbt.machine.virtio.native import NativePackedRing, NativeSplitRing
from dbt.machine.virtio.packed import PackedRing
from dbt.machine.virtio.spec import AVAIL, EVENT_IDX, INDIRECT, INDIRECT_DESC, NEXT, RING_PACKED, USED, VERSION_1, WRITE
from dbt.machine.virtio.split import SplitRing

from tests.machine.virtio_echo import ALL, BASE, Echo

if TYPE_CHECKING:
    from dbt.machine.virtio import Chain

AT, HALF, END = 0x4000_0000, 0x8000, 0x1_8000  # RAM, ROM, RAM
SIZE = 8
TABLE, DRIVER, DEVICE, BUFFERS = AT, AT + 0x1000, AT + 0x2000, AT + 0x3000


class Side:
    """One of the two."""

    def __init__(self, features: int, *, native: bool) -> None:
        self.machine = Machine(native=native)
        self.ram = RAM("low", HALF), RAM("high", HALF)
        self.machine.place(self.ram[0], AT)
        self.machine.place(ROM("rom", HALF), AT + HALF)
        self.machine.place(self.ram[1], AT + 2 * HALF)
        self.dirty = [DirtyTracker(ram.memory) for ram in self.ram]
        self.device = Echo("echo", self.machine, rings=ALL)
        self.device.hold = True
        self.mmio = VirtioMmio("mmio", self.machine, device=self.device)
        self.machine.place(self.mmio, BASE)
        self.features = features
        self.begin()

    def begin(self) -> None:
        device = self.device
        for queue, chain in device.held:
            queue.drop(chain)
        device.held.clear()
        device.set_status(0)
        device.set_status(3)
        device.accept_word(0, self.features & 0xFFFF_FFFF)
        device.accept_word(1, self.features >> 32)
        device.set_status(11)
        queue = device.queues[1]
        queue.size, queue.descriptors, queue.driver, queue.device = SIZE, TABLE, DRIVER, DEVICE
        assert queue.enable()
        device.set_status(15)

    def write(self, address: int, value: int, size: int) -> None:
        self.machine.memory.write(address, size, value)

    def seen(self) -> object:
        return (
            self.device.save(), [ram.memory.view.tobytes() for ram in self.ram], self.mmio.InterruptStatus,
            [described(chain) for _, chain in self.device.held],
        )  # fmt: skip

    def told(self) -> set[tuple[int, int]]:
        """Pages that observers were told of."""
        ranges = [(number, at, length) for number, d in enumerate(self.dirty) for at, length in d.collect()]
        return {(number, page) for number, at, length in ranges for page in range(at, at + length, 4096)}


def described(chain: Chain) -> object:
    places = [(memory.name, at, length) for memory, at, length in chain.places]
    readable = [bytes(view) for view in chain.readable]
    lengths = chain.readable_length, chain.writable_length, [len(view) for view in chain.writable]
    return chain.token, chain.identifier, chain.descriptors, places, readable, lengths


def descriptor(random: Random) -> tuple[int, int, int]:
    """(address, length, flags), more often good than not."""
    if random.random() < 0.6:
        return BUFFERS + 0x800 + random.randrange(0x800), random.randrange(100), random.choice((0, WRITE, NEXT))
    address = random.choice((
        BUFFERS + random.randrange(0x1000), BUFFERS + random.randrange(0x1000), AT + random.randrange(END),
        AT + HALF - random.randrange(32), TABLE + 16 * random.randrange(16), random.getrandbits(64),
    ))  # fmt: skip
    length = random.choice((0, 1, 16, 32, 48, random.randrange(200), random.getrandbits(32)))
    flags = random.choice((0, 0, WRITE, WRITE, NEXT, NEXT | WRITE, INDIRECT, random.randrange(8)))
    return address, length, flags


def step(random: Random, sides: tuple[Side, Side], packed: int) -> None:
    ring = sides[1].device.queues[1].ring
    writes: list[tuple[int, int, int]] = []
    for _ in range(random.randrange(6)):
        address, length, flags = descriptor(random)
        if packed and random.random() < 0.7:
            assert isinstance(ring, PackedRing)
            slot = ring.next_avail + random.randrange(3)
            wrap = ring.avail_wrap ^ (slot >= SIZE)
            slot %= SIZE
            flags |= (AVAIL if wrap else USED) if random.random() < 0.9 else 0
            tail = random.randrange(SIZE) | flags << 16
        else:
            slot = random.randrange(2 * SIZE)
            tail = random.randrange(SIZE) << 16 | flags if not packed else flags << 16
        at = (TABLE if random.random() < 0.7 else BUFFERS) + 16 * slot
        writes += [(at, address, 8), (at + 8, length | tail << 32, 8)]
    if not packed:
        assert isinstance(ring, SplitRing)
        added = random.choice((0, 1, 1, 2, 3, SIZE, SIZE + 1 if random.random() < 0.1 else 1))
        for number in range(min(added, SIZE)):
            writes.append((DRIVER + 4 + 2 * ((ring.next_avail + number) % SIZE), random.randrange(SIZE), 2))
        writes.append((DRIVER + 2, (ring.next_avail + added) & 0xFFFF, 2))
        writes.append((DRIVER, random.randrange(2), 2))
        writes.append((DRIVER + 4 + 2 * SIZE, (ring.next_used + random.randrange(-2, 3)) & 0xFFFF, 2))
    else:
        writes.append((DRIVER, random.randrange(SIZE) | random.randrange(2) << 15 | random.randrange(4) << 16, 4))
    for side in sides:
        for write in writes:
            side.write(*write)
        side.device.notified(1)
    for _ in range(random.randrange(4)):
        held = len(sides[0].device.held)
        if not held:
            break
        number, written, back = random.randrange(held), random.randrange(100), random.random() < 0.2
        for side in sides:
            queue, chain = side.device.held.pop(-1 if back else number)
            if back and not side.device.held:
                queue.unpop(chain)
            else:
                queue.push(chain, written)
    if random.random() < 0.7:
        for side in sides:
            side.device.queues[1].notify()


@pytest.mark.parametrize("packed", [0, RING_PACKED], ids=["split", "packed"])
@pytest.mark.parametrize("events", [0, EVENT_IDX], ids=["flags", "events"])
@pytest.mark.parametrize("indirect", [0, INDIRECT_DESC], ids=["direct", "indirect"])
def test_both_do_the_same(packed: int, events: int, indirect: int) -> None:
    features = VERSION_1 | packed | events | indirect
    sides = Side(features, native=True), Side(features, native=False)
    kinds = (NativePackedRing, PackedRing) if packed else (NativeSplitRing, SplitRing)
    assert tuple(type(side.device.queues[1].ring) for side in sides) == kinds
    random = Random(features)
    found = broken = 0
    for number in range(1000):
        step(random, sides, packed)
        found += len(sides[0].device.held)
        first, second = (side.seen() for side in sides)
        assert first == second, number
        assert sides[0].told() >= sides[1].told()
        for side in sides:
            side.mmio.InterruptStatus = 0
        if sides[0].device.broken or number % 50 == 49:
            broken += sides[0].device.broken
            for side in sides:
                side.begin()
                for at in (TABLE, DRIVER, DEVICE):
                    for word in range(0, 0x100, 8):
                        side.write(at + word, 0, 8)
    assert found > 100
    assert broken > 20


def test_without_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    assert builtin.builtins() is not None
    monkeypatch.setattr(builtin, "load", lambda: None)
    builtin.builtins.cache_clear()
    try:
        side = Side(VERSION_1, native=True)
    finally:
        builtin.builtins.cache_clear()
    assert type(side.device.queues[1].ring) is SplitRing
