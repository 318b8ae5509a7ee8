"""Whoever observes memory (dirty pages, translated code) is told of all that devices write there."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from dbt.machine.block import Disk, open_image
from dbt.machine.devices.ich9_ahci import Ich9Ahci
from dbt.machine.devices.virtio_blk import VirtioBlk
from dbt.machine.devices.virtio_net import VirtioNet
from dbt.machine.devices.virtio_rng import VirtioRng
from dbt.machine.memory import RAM, Memory
from dbt.machine.net.backend import MemoryNet
from dbt.machine.virtio.spec import RING_PACKED

from tests.machine import ata_machines, e1000, pci
from tests.machine.ahci_driver import Ahci
from tests.machine.ata_driver import Ata
from tests.machine.qtest import Ours
from tests.machine.virtio import KINDS, Guest, Ring, connect

if TYPE_CHECKING:
    from dbt.machine.machine import Machine

PAGE = 4096
Watch = Callable[[], object]


def pages(memory: Memory) -> dict[int, bytes]:
    """What is in pages that were ever touched."""
    return {
        at: bytes(memory.view[at : at + PAGE])
        for start, end in memory.extents()
        for at in range(start // PAGE * PAGE, end, PAGE)
    }


@contextmanager
def watched(machine: Machine, least: int = 1) -> Iterator[None]:
    """Bytes that change meanwhile, at least so many, are among those that observers are told of."""
    memories = {section.memory for section in machine.memory.view.sections if section.writes_direct}
    before = {memory: (Told(memory), pages(memory)) for memory in memories if memory}
    yield
    changed = 0
    for memory, (told, old) in before.items():
        memory.forget(told)
        for at, data in pages(memory).items():
            was = old.get(at, bytes(PAGE))
            new = [at + n for n in range(PAGE) if data[n] != was[n]] if data != was else []
            assert told.bytes.issuperset(new)
            changed += len(new)
    assert changed >= least


class Told:
    """An observer that remembers each byte."""

    def __init__(self, memory: Memory) -> None:
        self.bytes: set[int] = set()
        memory.observe(self)

    def __call__(self, offset: int, length: int) -> None:
        self.bytes.update(range(offset, offset + length))


def disk() -> Disk:
    made = Disk(open_image({"driver": "memory", "size": 1 << 20}, "raw", writable=True))
    made.write(0, ata_machines.DATA)
    return made


def kicked(guest: Guest, queue: Ring) -> Watch:
    """What comes after the driver has everything in memory."""

    def go() -> None:
        queue.kick()
        guest.wait(queue, 1)

    return go


def blk(guest: Guest) -> Watch:
    queue = guest.queue(0, 256)
    queue.add(guest.buffers([struct.pack("<IIQ", 0, 0, 0)], [9000, 512 * 64 - 9000, 1]))
    return kicked(guest, queue)


def rng(guest: Guest) -> Watch:
    queue = guest.queue(0, 256)
    queue.add(guest.buffers([], [3000, 1000]))
    return kicked(guest, queue)


def receive(guest: Guest, net: MemoryNet) -> Watch:
    queue = guest.queue(0, 256)
    for _ in range(4):
        queue.add(guest.buffers([], [2048]))
    queue.kick()
    return lambda: ([net.give(bytes([number]) * 1500) for number in range(4)], guest.wait(queue, 4))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_virtio(kind: str, native: bool, packed: bool) -> None:
    net = MemoryNet()
    cases: tuple[tuple[Callable[[Machine], VirtioBlk | VirtioNet | VirtioRng], Callable[[Guest], Watch]], ...] = (
        (lambda machine: VirtioBlk("disk", machine, disk()), blk),
        (lambda machine: VirtioRng("rng", machine), rng),
        (lambda machine: VirtioNet("net", machine, net), lambda guest: receive(guest, net)),
    )
    for make, work in cases:
        guest, device = connect(kind, make)
        if not native:
            device.native = None
        guest.begin(~0 if packed else ~RING_PACKED)
        guest.go()
        go = work(guest)
        with watched(device.machine, 500):
            go()


def test_e1000() -> None:
    driver, nic, net = e1000.build()
    driver.start()
    with watched(nic.machine, 1000):
        net.give(b"\xff" * 6 + bytes(range(200)))
        net.give(b"\xff" * 6 + bytes(range(250)) * 4)
        driver.send(bytes(14) + b"x" * 100)
        assert len(driver.received(2)) == 2
        assert driver.sent()


def test_ide() -> None:
    machine, _, _, _ = ata_machines.pc()
    bus = Ours(machine)
    ata_machines.start(bus)
    driver = Ata(bus, master=ata_machines.MASTER)
    target = ata_machines.RAM_AT + 0x8000
    with watched(machine, 8000):
        driver.dma(
            0xC8, ata_machines.RAM_AT, [(target, 4096), (target + 0x3000, 4096)], to_memory=True, lba=0, count=16
        )
    assert bus.load(target, 4096) == ata_machines.DATA[:4096]


def test_ahci() -> None:
    machine, bus = pci.machine()
    machine.system.place(RAM("low", 4 << 20), 0x10_0000, 2)
    Ich9Ahci("ahci", machine, bus=bus, slot=2, drives=(ata_machines.hard_disk(machine, disk()),))
    machine.reset()
    ours = Ours(machine)
    function = pci.Config(ours, pci.ECAM).function(0x8086, 0x2922)
    function.place()
    ours.write(function.bars[5][0] + 4, 0x8000_0002)
    port = Ahci(ours, function.bars[5][0])
    port.start()
    target = 0x20_0000
    with watched(machine, 8500):
        assert port.run(0x25, [(target, 8192), (target + 0x4000, 512)], count=17) & 1 == 0
    assert ours.load(target, 8192) == ata_machines.DATA[:8192]
