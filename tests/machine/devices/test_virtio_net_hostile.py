"""Hostile drivers of virtio-net: random registers, rings and commands."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.machine.devices.virtio_net import VirtioNet
from dbt.machine.memory import RAM
from dbt.machine.net.backend import MemoryNet
from dbt.machine.net.offload import Offload
from dbt.machine.virtio.device import RINGS
from dbt.machine.virtio.mmio import VirtioMmio
from dbt.machine.virtio.packed import PackedRing
from dbt.machine.virtio.spec import RING_PACKED
from dbt.machine.virtio.split import SplitRing

from tests.machine.fuzzing import fuzz
from tests.machine.net.guest import MAC
from tests.machine.net.test_offload import packet as gso_packet
from tests.machine.net.virtio_card import frame

if TYPE_CHECKING:
    from dbt.machine.device import Device
    from dbt.machine.machine import Machine
    from dbt.machine.memory import AddressSpace
    from dbt.machine.virtio import VirtQueue


@pytest.mark.parametrize("packed", [0, RING_PACKED])
def test_hostile_drivers(packed: int) -> None:
    """Random registers, random rings with buffers in small memory, random commands, frames that come meanwhile."""
    at = 0x4000_0000
    done = {"sent": 0, "taken": 0}

    def make(machine: Machine) -> Device:
        machine.place(RAM("ram", 0x1_0000), at)
        device = VirtioNet("net", machine, MemoryNet(limit=10), pairs=2, rings=RINGS | RING_PACKED)
        return VirtioMmio("mmio", machine, device=device)

    def areas(index: int) -> list[int]:
        return [at + 0x4000 + 0x1000 * index + offset for offset in (0, 0x400, 0x800)]

    def offer(memory: AddressSpace, random: Random, queue: VirtQueue) -> None:
        """Descriptors that may well mean something, in a ring that does."""
        table, available, _ = areas(queue.index)
        ring, size = queue.ring, queue.size
        count = random.randrange(1, size + 1)
        for number in range(count):
            address, length = at + random.randrange(0xC000), random.choice((1, 6, 12, 74, 1526, 3000, 0))
            flags = random.choice((0, 0, 2 * (not queue.index & 1), 1, 2))
            slot = number
            if isinstance(ring, PackedRing):
                slot = (ring.next_avail + number) % size
                wrap = ring.avail_wrap ^ (ring.next_avail + number >= size)
                flags |= 0x80 if wrap else 0x8000
            memory.write(table + 16 * slot, 8, address)
            low = flags << 16 | number if isinstance(ring, PackedRing) else random.randrange(size) << 16 | flags
            memory.write(table + 16 * slot + 8, 8, low << 32 | length)
        if isinstance(ring, SplitRing):
            for number in range(count):
                memory.write(available + 4 + 2 * ((ring.next_avail + number) % size), 2, random.randrange(count))
            memory.write(available + 2, 2, (ring.next_avail + count) & 0xFFFF)

    frames = [(frame(MAC, length), None) for length in (14, 60, 1514)]
    large, start = gso_packet(6, 6, bytes(5000))
    frames.append((large, Offload(True, start, 16, 4, 1000)))  # type: ignore[arg-type]

    def also(device: Device, random: Random) -> None:
        assert isinstance(device, VirtioMmio)
        card = device.device
        assert isinstance(card, VirtioNet)
        memory = device.machine.memory
        for _ in range(random.randrange(8)):
            memory.write(at + random.randrange(0x200) * 8, 8, random.choice((
                at + random.randrange(0x2000), random.getrandbits(64), random.getrandbits(16),
                random.randrange(2048) | random.choice((0, 1 << 55, 1 << 47)) | random.randrange(8) << 48 | 1 << 32,
                random.randrange(6) | random.randrange(3) << 8 | random.randrange(66) << 16,
            )))  # fmt: skip
        choice = random.random()
        if choice < 0.05:
            card.set_status(0)
            card.set_status(3)
            card.accept_word(0, random.getrandbits(30) & card.features)
            card.accept_word(1, (1 << 32 | packed | random.getrandbits(40)) >> 32 & card.features >> 32)
            card.set_status(11)
            for queue in card.queues:
                queue.size = random.choice((1, 2, 8, 16))
                places = random.choice((areas(queue.index), [at + 16 * random.randrange(0x40) for _ in range(3)]))
                queue.descriptors, queue.driver, queue.device = places
                queue.enable()
            card.set_status(15)
        elif choice < 0.7:
            queue = random.choice(card.queues)
            if queue.ready and queue.descriptors == areas(queue.index)[0]:
                offer(memory, random, queue)
            card.notified(queue.index)
        else:
            assert isinstance(card.net, MemoryNet)
            if len(card.net.waiting) < 20:
                done["taken"] += card.running and card.net.give(*random.choice(frames))
            done["sent"] += len(card.net.take())

    fuzz(make, 1510 + bool(packed), also=also)
    assert min(done.values()) > 100
