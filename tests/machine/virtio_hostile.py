"""A driver that does much right and some things wrong, for `also` of `fuzz`: rings in 64 KiB of RAM at 1 GiB.

Queues are in the first 16 KiB, indirect tables in the next, buffers in the second half.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.memory import DmaPort
from dbt.machine.virtio.packed import PackedRing
from dbt.machine.virtio.spec import (
    AVAIL,
    EVENT_IDX,
    IN_ORDER,
    INDIRECT,
    INDIRECT_DESC,
    NEXT,
    RING_PACKED,
    USED,
    WRITE,
)
from dbt.machine.virtio.transport import QueueSetup

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from dbt.machine.device import Device
    from dbt.machine.memory import AddressSpace
    from dbt.machine.virtio import VirtioDevice, VirtQueue

AT, LENGTH = 0x4000_0000, 0x1_0000
TABLES, BUFFERS = AT + 0x4000, AT + 0x8000
DRIVER, DEVICE, STRIDE = 0x100, 0x200, 0x400
SIZE = 16
OPTIONAL = (INDIRECT_DESC, EVENT_IDX, RING_PACKED, IN_ORDER)
REFUSED = 1 << 3  # by the device of test_virtio.py


def place(queue: VirtQueue) -> tuple[int, int, int]:
    """Where the three areas are."""
    base = AT + STRIDE * (queue.index % 16)
    return base, base + DRIVER, base + DEVICE


def usual(queue: VirtQueue) -> bool:
    """Whether it is as `begin` leaves it: random registers may have been written since."""
    return queue.ready and (queue.descriptors, queue.driver, queue.device) == place(queue) and queue.size <= SIZE


def begin(device: VirtioDevice, random: Random) -> None:
    """Reset, negotiate, enable all queues."""
    chosen = sum(feature for feature in OPTIONAL if random.random() < 0.5)
    features = device.features & (chosen | ~sum(OPTIONAL)) & ~REFUSED
    device.set_status(0)
    device.set_status(3)
    device.accept_word(0, features & 0xFFFF_FFFF)
    device.accept_word(1, features >> 32)
    device.set_status(11)
    for queue in device.queues:
        queue.size = min(SIZE, queue.maximum)
        queue.descriptors, queue.driver, queue.device = place(queue)
        queue.enable()
        for word in range(0, 0x300, 8):
            device.machine.memory.write(queue.descriptors + word, 8, 0)
    device.set_status(15)


def buffers(random: Random, content: bytes, memory: AddressSpace) -> list[tuple[int, int, int]]:
    """(address, length, flags) of a chain; `content` is what its first buffers have."""
    found = []
    while content:
        count = random.choice((len(content), len(content), random.randrange(1, len(content) + 1)))
        address = BUFFERS + random.randrange(0x7000)
        DmaPort("driver", memory).dma_write(address, content[:count])
        found.append((address, count, 0))
        content = content[count:]
    for flags in [0] * random.randrange(2) + [WRITE] * random.choice((0, 1, 1, 1, 2, 2)):
        length = random.choice((1, 8, 20, 512, 513, 4096, random.randrange(0x1000)))
        found.append((BUFFERS + random.randrange(0x7000), length, flags))
    if random.random() < 0.05:
        random.shuffle(found)
    if random.random() < 0.03:
        found.append((random.getrandbits(64), random.getrandbits(32), random.choice((0, WRITE))))
    return found or [(BUFFERS, 1, WRITE)]


def offer(queue: VirtQueue, random: Random, content: bytes) -> None:
    """Make one chain available."""
    device, ring = queue.owner, queue.ring
    memory, size = device.machine.memory, queue.size
    chain = buffers(random, content, memory)[:size]
    packed = isinstance(ring, PackedRing)

    def put(at: int, address: int, length: int, flags: int, other: int) -> None:
        """`other`: the next descriptor, or the identifier."""
        tail = other | flags << 16 if packed else flags | other << 16
        memory.write(at, 8, address)
        memory.write(at + 8, 8, length | tail << 32)

    if device.has(INDIRECT_DESC) and random.random() < 0.4:
        table = TABLES + 16 * random.randrange(0x200)
        for number, (address, length, flags) in enumerate(chain):
            more = number + 1 < len(chain)
            put(
                table + 16 * number,
                address,
                length,
                flags | (0 if packed or not more else NEXT),
                0 if packed else number + 1,
            )
        chain = [(table, 16 * len(chain), INDIRECT)]
    if isinstance(ring, PackedRing):
        index, wrap = ring.next_avail, ring.avail_wrap
        for number, (address, length, flags) in enumerate(chain):
            flag = flags | (NEXT if number + 1 < len(chain) else 0) | (AVAIL if wrap else USED)
            put(queue.descriptors + 16 * index, address, length, flag, random.randrange(size))
            index += 1
            if index == size:
                index, wrap = 0, wrap ^ 1
        return
    assert ring is not None
    first = random.randrange(size)
    for number, (address, length, flags) in enumerate(chain):
        linked = NEXT if number + 1 < len(chain) else 0
        put(
            queue.descriptors + 16 * ((first + number) % size),
            address,
            length,
            flags | linked,
            (first + number + 1) % size,
        )
    index = memory.read(queue.driver + 2, 2)
    memory.write(queue.driver + 4 + 2 * (index % size), 2, first)
    memory.write(queue.driver + 2, 2, (index + 1) & 0xFFFF)


def drive(transport: Device, random: Random, fill: Callable[[VirtQueue], bytes] = lambda _: b"") -> None:
    """A few chains in some queue; `fill` says what the first buffers of a chain have."""
    assert isinstance(transport, QueueSetup)
    device, memory = transport.device, transport.machine.memory
    assert device is not None
    if not all(map(usual, device.queues)) or not device.running or random.random() < 0.01:
        begin(device, random)
    if not device.running:
        return
    queue = random.choice(device.queues)
    for _ in range(random.randrange(1, 3)):
        offer(queue, random, fill(queue))
        if random.random() < 0.5:
            device.notified(queue.index)
    if random.random() < 0.05:
        memory.write(AT + 8 * random.randrange(LENGTH // 8), 8, random.getrandbits(64))
    if random.random() < 0.05:
        memory.write(queue.driver + 2 * random.randrange(24), 2, random.getrandbits(16))
    device.notified(queue.index)
    if random.random() < 0.3:
        device.machine.advance(0)
