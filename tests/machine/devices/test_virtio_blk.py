"""A driver for virtio-blk from the specification, over both kinds of rings and all transports, on real images."""

from __future__ import annotations

import json
import os
import struct
import threading
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from dbt.machine.block import Disk, create_image, open_image
from dbt.machine.devices.virtio_blk import VirtioBlk
from dbt.machine.log import GUEST_ERROR, UNIMPLEMENTED
from dbt.machine.memory import RAM
from dbt.machine.virtio.device import RINGS
from dbt.machine.virtio.mmio import VirtioMmio
from dbt.machine.virtio.spec import DEVICE_NEEDS_RESET, IN_ORDER, RING_PACKED

from tests.machine.fuzzing import fuzz
from tests.machine.virtio import KINDS, Guest, Ring, connect
from tests.machine.virtio_hostile import drive

if TYPE_CHECKING:
    from dbt.machine.device import Device
    from dbt.machine.machine import Machine

IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES = 0, 1, 4, 8, 11, 13
SIZE = 4 << 20


def header(kind: int, sector: int = 0) -> bytes:
    return struct.pack("<IIQ", kind, 0, sector)


def segment(sector: int, sectors: int, flags: int = 0) -> bytes:
    return struct.pack("<QII", sector, sectors, flags)


class Driver:
    """What a guest does with the disk; data is cut into buffers in `pieces`."""

    def __init__(self, guest: Guest, queues: int = 1, wanted: int = ~0) -> None:
        self.guest = guest
        guest.begin(wanted)
        self.queues = [guest.queue(index, 256) for index in range(queues)]
        guest.go()
        self.queue = self.queues[0]

    def do(self, kind: int, sector: int, out: list[bytes], into: list[int], queue: Ring | None = None) -> bytes:
        written, data = self.guest.request(queue or self.queue, [header(kind, sector), *out], [*into, 1])
        assert written == len(data) == sum(into) + 1
        return data

    def read(self, sector: int, *lengths: int, queue: Ring | None = None) -> bytes:
        data = self.do(IN, sector, [], list(lengths), queue)
        assert data[-1] == 0
        return data[:-1]

    def write(self, sector: int, *pieces: bytes, queue: Ring | None = None) -> None:
        assert self.do(OUT, sector, list(pieces), [], queue) == b"\0"


def scratch(size: int = SIZE, workers: int = 8) -> Disk:
    return Disk(open_image(f"driver=raw,file.driver=memory,file.size={size}", writable=True), workers=workers)


def disk(path: Path, driver: str = "qcow2", **options: Any) -> Disk:
    create_image(str(path), driver, SIZE, options)
    return Disk(open_image(str(path), driver, writable=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rings", [RINGS, RINGS | RING_PACKED | IN_ORDER], ids=["split", "packed"])
def test_a_driver_over_qcow2(kind: str, rings: int, tmp_path: Path) -> None:
    image = disk(tmp_path / "a.qcow2")
    guest, device = connect(kind, lambda machine: VirtioBlk("disk", machine, image, serial="SN-1", rings=rings))
    driver = Driver(guest)
    transport = guest.transport
    assert transport.config(0, 8) == SIZE // 512
    assert transport.config(0x0C, 4) == 254
    assert transport.config(0x14, 4) == 512
    assert [transport.config(offset, size) for offset, size in ((0x10, 2), (0x12, 1), (0x13, 1))] == [8, 16, 63]
    model = bytearray(SIZE)
    random = Random(7)
    for _ in range(120):
        sector, count = random.randrange(SIZE // 512 - 64), random.randrange(1, 64)
        start, length = 512 * sector, 512 * count
        cut = random.randrange(length)
        match random.randrange(6):
            case 0 | 1:
                data = random.randbytes(length)
                driver.write(sector, data[:cut], data[cut:])
                model[start : start + length] = data
            case 2:
                assert driver.do(FLUSH, 0, [], []) == b"\0"
            case 3 if not transport.legacy:
                flags = random.randrange(2)
                assert driver.do(WRITE_ZEROES, 0, [segment(sector, count, flags)], []) == b"\0"
                model[start : start + length] = bytes(length)
            case 4:
                assert driver.do(DISCARD, 0, [segment(8192 - 128, 128)], []) == b"\0"
                model[-65536:] = bytes(65536)
            case _:
                assert driver.read(sector, cut, length - cut) == model[start : start + length]
    assert driver.do(GET_ID, 0, [], [20])[:20] == b"SN-1".ljust(20, b"\0")
    assert driver.read(0, 8, 500, 4) == model[:512]
    assert device.machine.log.counts[GUEST_ERROR] == 0
    image.close()
    with Disk(open_image(str(tmp_path / "a.qcow2"), "qcow2")) as again:
        assert again.read(0, SIZE) == model
        assert not again.node.check().corruptions  # type: ignore[attr-defined]


def test_queues_and_many_requests(tmp_path: Path) -> None:
    image = disk(tmp_path / "a.raw", "raw")
    guest, device = connect("pci", lambda machine: VirtioBlk("disk", machine, image, queues=4, queue_size=64))
    driver = Driver(guest, queues=4)
    assert guest.transport.config(0x22, 2) == 4
    chains = {}
    for number in range(128):
        queue = driver.queues[number % 4]
        buffers = guest.buffers([header(OUT, number), bytes([number]) * 512], [1])
        chains[queue.index, queue.add(buffers, indirect=True)] = buffers[2][0]
    for queue in driver.queues:
        queue.kick()
    for queue in driver.queues:
        for chain, written in guest.wait(queue, 32):
            assert written == 1
            assert guest.bus.load(chains.pop((queue.index, chain)), 1) == b"\0"
    assert not chains
    for number in range(128):
        assert driver.read(number, 512, queue=driver.queues[number % 3]) == bytes([number]) * 512
    assert not device.busy
    image.close()


def test_the_largest_range(tmp_path: Path) -> None:
    most = (1 << 31) // 512 - 1
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, 1 << 32)  # a hole, which writing zeroes leaves as it is
    image = Disk(open_image(str(path), "raw", writable=True))
    guest, _ = connect("mmio", lambda machine: VirtioBlk("disk", machine, image))
    driver = Driver(guest)
    for kind, flags in ((DISCARD, 0), (WRITE_ZEROES, 1)):
        assert driver.do(kind, 0, [segment(1, most, flags)], []) == b"\0"
        assert driver.do(kind, 0, [segment(1, most + 1, flags)], []) == b"\1"
    image.close()


def test_requests_that_cannot_be() -> None:
    memory = scratch()
    guest, device = connect("mmio", lambda machine: VirtioBlk("disk", machine, memory, block_size=4096))
    driver = Driver(guest)
    end = SIZE // 512
    for kind, sector, out, into, status in (
        (IN, end, [], [512], 1), (IN, end - 8, [], [8192], 1), (IN, 1 << 63, [], [4096], 1), (IN, 0, [], [100], 1),
        (IN, 0, [], [512], 1), (IN, 1, [], [4096], 1), (OUT, end, [bytes(4096)], [], 1), (OUT, 0, [bytes(700)], [], 1),
        (99, 0, [], [], 2), (2, 0, [], [], 2), (DISCARD, 0, [segment(0, 8, 1)], [], 2),
        (DISCARD, 0, [segment(end, 8)], [], 1), (DISCARD, 0, [segment(0, 1)], [], 1), (DISCARD, 0, [b"x"], [], 1),
        (DISCARD, 0, [segment(0, 8) * 2], [], 1), (WRITE_ZEROES, 0, [segment(0, 8, 2)], [], 2),
        (WRITE_ZEROES, 0, [segment((1 << 64) - 1, 8)], [], 1), (WRITE_ZEROES, 0, [segment(0, 1 << 31)], [], 1),
    ):  # fmt: skip
        assert driver.do(kind, sector, out, into)[-1] == status, (kind, sector, out)
    assert device.machine.log.counts[UNIMPLEMENTED] == 2
    assert driver.read(end - 8, 4096) == bytes(4096)
    driver.queue.add(guest.buffers([b"short"], [1]))
    driver.queue.kick()
    assert guest.transport.status() & DEVICE_NEEDS_RESET
    driver = Driver(guest)
    driver.queue.add(guest.buffers([header(IN)], []))
    driver.queue.kick()
    assert guest.transport.status() & DEVICE_NEEDS_RESET
    memory.close()


def test_read_only_and_caches(tmp_path: Path) -> None:
    disk(tmp_path / "a.raw", "raw").close()
    image = Disk(open_image(str(tmp_path / "a.raw"), "raw"))
    guest, _ = connect("mmio", lambda machine: VirtioBlk("disk", machine, image))
    driver = Driver(guest)
    assert guest.accepted >> 5 & 1
    assert not guest.accepted >> 13 & 3
    assert driver.do(OUT, 0, [bytes(512)], []) == b"\1"
    assert driver.do(DISCARD, 0, [segment(0, 8)], []) == b"\2"
    image.close()

    memory = scratch()
    flags: list[int] = []
    node: Any = memory.node
    write = node.write

    def note(offset: int, length: int, vectors: Any, flag: int) -> None:
        flags.append(flag)
        write(offset, length, vectors, flag)

    node.write = note
    guest, device = connect("mmio", lambda machine: VirtioBlk("disk", machine, memory))
    driver = Driver(guest)
    driver.write(0, bytes(512))
    guest.transport.set_config(0x20, 0, 1)
    driver.write(0, bytes(512))
    Driver(guest, wanted=~(1 << 11)).write(0, bytes(512))
    Driver(guest, wanted=~(1 << 11 | 1 << 9)).write(0, bytes(512))
    assert flags == [0, 1, 0, 1]
    guest.transport.set_config(0x20, 0, 1)
    assert device.machine.log.counts[GUEST_ERROR] == 1
    memory.close()


class Slow:
    """A disk whose reads take until they are let go."""

    node: Any

    def __init__(self) -> None:
        self.disk = scratch()
        self.disk.write(0, b"\x11" * 65536)
        self.gate = threading.Event()
        self.node = self.disk.node
        read = self.node.read

        def wait(*arguments: Any) -> None:
            self.gate.wait(20)
            read(*arguments)

        self.node.read = wait
        self.disk._try_read = lambda *_: False


def test_errors_of_the_disk() -> None:
    slow = Slow()
    guest, _ = connect("mmio", lambda machine: VirtioBlk("disk", machine, slow.disk))
    driver = Driver(guest)

    def fail(*_: Any) -> None:
        raise OSError(5, "EIO")

    slow.node.read = fail
    assert driver.do(IN, 0, [], [512])[-1] == 1

    def lack(*_: Any) -> None:
        raise NotImplementedError

    slow.node.discard = lack
    assert driver.do(DISCARD, 0, [segment(0, 8)], []) == b"\2"
    slow.disk.close()


def test_reset_and_snapshot_in_the_middle_of_work() -> None:
    slow = Slow()
    guest, device = connect("pci", lambda machine: VirtioBlk("disk", machine, slow.disk))
    driver = Driver(guest)
    places = [guest.buffers([header(IN, number)], [512, 1]) for number in range(8)]
    for buffers in places:
        driver.queue.add(buffers, indirect=True)
    driver.queue.kick()
    assert device.busy
    guest.transport.set_status(0)
    assert guest.transport.status() == 15  # the disk still writes to the guest's memory
    slow.gate.set()
    guest.until(lambda: guest.transport.status() == 0)
    assert guest.bus.load(places[0][2][0], 1) == b"\xee"  # no status: the memory is not the device's any more
    slow.gate.clear()

    driver = Driver(guest)
    for buffers in places:
        driver.queue.add(buffers, indirect=True)
    driver.queue.kick()
    assert device.busy is True
    threading.Timer(0.05, slow.gate.set).start()
    saved = json.loads(json.dumps(device.machine.save()))  # waits for the disk
    assert len(driver.queue.used()) == 8
    twin, other = connect("pci", lambda machine: VirtioBlk("disk", machine, slow.disk))
    twin.bus.store(0x4000_0000, guest.bus.load(0x4000_0000, 8 << 20))
    other.machine.restore(saved)
    assert other.machine.save() == saved
    driver.guest = twin
    driver.queue.bus, driver.queue.guest, guest.transport.bus = twin.bus, twin, twin.bus
    twin.transport = guest.transport
    assert driver.read(0, 512) == b"\x11" * 512
    slow.gate.clear()
    for buffers in places:
        driver.queue.add(buffers, indirect=True)
    driver.queue.kick()
    threading.Timer(0.05, slow.gate.set).start()
    other.machine.reset()
    assert not other.busy
    slow.disk.close()


def test_another_size() -> None:
    memory = scratch()
    guest, device = connect("mmio", lambda machine: VirtioBlk("disk", machine, memory))
    driver = Driver(guest)
    memory.resize(2 * SIZE)
    assert isinstance(device, VirtioBlk)
    device.resized()
    assert guest.transport.interrupt() == 2
    assert guest.transport.config(0, 8) == 2 * SIZE // 512
    assert driver.read(SIZE // 512, 512) == bytes(512)
    memory.close()


def request(random: Random) -> bytes:
    kind = random.choice((IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES, random.getrandbits(32)))
    data = header(kind, random.choice((0, 1, 127, 128, random.randrange(130), random.getrandbits(64))))
    if kind == OUT:
        data += random.randbytes(512 * random.randrange(3))
    elif kind in {DISCARD, WRITE_ZEROES}:
        data += segment(random.randrange(130), random.randrange(130), random.choice((0, 0, 1, random.getrandbits(32))))
    return data


def test_random_traffic() -> None:
    memory = scratch(65536, workers=1)

    def make(machine: Machine) -> Device:
        machine.place(RAM("ram", 0x1_0000), 0x4000_0000)
        device = VirtioBlk("disk", machine, memory, queues=2, queue_size=16, rings=RINGS | RING_PACKED)
        return VirtioMmio("mmio", machine, device=device)

    def also(device: Device, random: Random) -> None:
        drive(device, random, lambda _: request(random))

    fuzz(make, 1220, also=also, settle=lambda machine: machine.devices["disk"].settle())
    memory.close()
