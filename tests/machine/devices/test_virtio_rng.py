"""A driver for the virtio entropy device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from dbt.machine.devices.virtio_rng import MOST, VirtioRng
from dbt.machine.log import GUEST_ERROR
from dbt.machine.memory import RAM
from dbt.machine.virtio.device import RINGS
from dbt.machine.virtio.mmio import VirtioMmio
from dbt.machine.virtio.spec import RING_PACKED

from tests.machine.fuzzing import fuzz
from tests.machine.virtio import KINDS, connect
from tests.machine.virtio_hostile import drive

if TYPE_CHECKING:
    from random import Random

    from dbt.machine.device import Device
    from dbt.machine.machine import Machine


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rings", [RINGS, RINGS | RING_PACKED], ids=["split", "packed"])
def test_bytes_come(kind: str, rings: int) -> None:
    asked: list[int] = []

    def source(count: int) -> bytes:
        asked.append(count)
        return b"\x99" * count

    guest, device = connect(kind, lambda machine: VirtioRng("rng", machine, source, rings=rings))
    guest.begin()
    queue = guest.queue(0, 8)
    guest.go()
    assert guest.request(queue, [], [16, 48]) == (64, b"\x99" * 64)
    written, data = guest.request(queue, [], [3 * MOST])
    assert (written, len(data)) == (MOST, 3 * MOST)
    assert data == b"\x99" * MOST + b"\xee" * 2 * MOST
    assert asked == [64, MOST]
    assert device.machine.log.counts[GUEST_ERROR] == 0
    assert guest.request(queue, [b"data"], [4])[0] == 4
    assert device.machine.log.counts[GUEST_ERROR] == 1
    assert guest.transport.interrupt() == 1


def test_the_hosts_bytes_differ() -> None:
    guest, _ = connect("mmio", lambda machine: VirtioRng("rng", machine))
    guest.begin()
    queue = guest.queue(0, 8)
    guest.go()
    assert guest.request(queue, [], [32]) != guest.request(queue, [], [32])


def test_random_traffic() -> None:
    def make(machine: Machine) -> Device:
        machine.place(RAM("ram", 0x1_0000), 0x4000_0000)
        device = VirtioRng("rng", machine, bytes, rings=RINGS | RING_PACKED)
        return VirtioMmio("mmio", machine, device=device)

    def also(device: Device, random: Random) -> None:
        drive(device, random)

    fuzz(make, 1250, also=also)
