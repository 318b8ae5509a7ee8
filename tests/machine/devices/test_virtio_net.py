"""A driver for virtio-net from the specification, over both kinds of rings and all transports, on real networks."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from dbt.machine.devices.virtio_net import VirtioNet, flow_of
from dbt.machine.errors import MapError, SnapshotError
from dbt.machine.log import GUEST_ERROR
from dbt.machine.memory import RAM
from dbt.machine.net.backend import MemoryNet
from dbt.machine.net.offload import CSUM, ECN, GSO_TCPV4, TSO4, TSO6, UFO, Offload, segment
from dbt.machine.net.user.net import UserNet
from dbt.machine.net.user.options import make_options
from dbt.machine.virtio.device import RINGS
from dbt.machine.virtio.mmio import VirtioMmio
from dbt.machine.virtio.packed import PackedRing
from dbt.machine.virtio.spec import DEVICE_NEEDS_RESET, IN_ORDER, RING_PACKED
from dbt.machine.virtio.split import SplitRing

from tests.machine.fuzzing import fuzz, mutated
from tests.machine.net.card import NetDriver
from tests.machine.net.guest import GATEWAY, MAC, SELF, Tcp, packet
from tests.machine.net.test_offload import packet as gso_packet
from tests.machine.virtio import KINDS, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbt.machine.device import Device
    from dbt.machine.machine import Machine
    from dbt.machine.memory import AddressSpace
    from dbt.machine.virtio import VirtQueue

PACKED = RINGS | RING_PACKED | IN_ORDER
PEER = bytes.fromhex("525400abcdef")
ALL = CSUM | TSO4 | TSO6 | ECN | UFO
TEXT = Random(9).randbytes(300_000)


def frame(target: bytes = MAC, length: int = 100, *, vlan: int | None = None) -> bytes:
    tag = b"" if vlan is None else b"\x81\0" + vlan.to_bytes(2, "big")
    return (target + PEER + tag + b"\x88\xb5").ljust(length, b"\xa5")


def build(
    kind: str = "mmio", wanted: int = ~0, *, net: MemoryNet | None = None, pairs: int = 1, buffer: int | None = None,
    **options: Any,
) -> tuple[NetDriver, VirtioNet, MemoryNet]:  # fmt: skip
    net = net or MemoryNet()
    guest, device = connect(kind, lambda machine: VirtioNet("net", machine, net, pairs=pairs, **options))
    assert isinstance(device, VirtioNet)
    return NetDriver(guest, wanted, pairs=pairs, buffer=buffer), device, net


def command_tables(unicast: list[bytes], multicast: list[bytes]) -> bytes:
    return b"".join(len(table).to_bytes(4, "little") + b"".join(table) for table in (unicast, multicast))


@pytest.fixture
def server() -> Iterator[tuple[int, int]]:
    """TCP and UDP ports of this host that echo."""
    listener, datagrams = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", 0))

    def stream() -> None:
        with contextlib.suppress(OSError):
            peer, _ = listener.accept()
            with peer:
                while data := peer.recv(65536):
                    peer.sendall(data)

    def echo() -> None:
        data, peer = datagrams.recvfrom(65536)
        with contextlib.suppress(OSError):
            datagrams.sendto(data, peer)

    threads = [threading.Thread(target=target, daemon=True) for target in (stream, echo)]
    for thread in threads:
        thread.start()
    yield listener.getsockname()[1], datagrams.getsockname()[1]
    for sock in (listener, datagrams):
        with contextlib.suppress(OSError):  # wakes who waits
            sock.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(30)
    listener.close()
    datagrams.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rings", [RINGS, PACKED], ids=["split", "packed"])
@pytest.mark.parametrize("wanted", [~0, (1 << 5) | RINGS | PACKED], ids=["offloads", "plain"])
def test_a_guest_on_the_user_mode_network(kind: str, rings: int, wanted: int, server: tuple[int, int]) -> None:
    nets: list[UserNet] = []

    def make(machine: Machine) -> VirtioNet:
        nets.append(UserNet(machine.lock, make_options(loopback=True)))
        return VirtioNet("net", machine, nets[0], rings=rings)

    guest, device = connect(kind, make)
    driver = NetDriver(guest, wanted)
    stack = driver.stack(device.machine.lock)
    stack.address = bytes(4)
    assert stack.dhcp()["yiaddr"] == SELF
    stack.udp_send(1234, (GATEWAY, server[1]), TEXT[:3000][:1400])
    assert stack.udp_wait(1234) == ((GATEWAY, server[1]), TEXT[:1400])
    count = 60_000
    connection = Tcp(stack, (GATEWAY, server[0]), scale=3).connect()
    connection.send(TEXT[:count])
    assert connection.read(count) == TEXT[:count]
    connection.close()
    connection.read(1)
    assert connection.ended
    assert any(header[:2] != b"\0\0" for header in driver.headers) == (wanted == ~0)
    assert device.machine.log.counts[GUEST_ERROR] == 0
    nets[0].close()


@pytest.mark.parametrize("kind", KINDS)
def test_configuration(kind: str) -> None:
    driver, device, net = build(kind, mtu=9000)
    config = driver.guest.transport.config
    assert bytes(config(at, 1) for at in range(6)) == MAC
    assert (config(6, 2), config(8, 2), config(10, 2)) == (1, 1, 9000)
    driver.guest.transport.interrupt()
    with device.machine.lock:
        net.set_link(up=False)
    assert config(6, 2) == 0
    assert driver.guest.transport.interrupt() == 2
    driver.send(frame())
    assert net.sent == []
    with device.machine.lock:
        net.set_link(up=True)
        device.announce()
    assert config(6, 2) == 3
    assert driver.command(3, 0, b"") == 0
    assert config(6, 2) == 1
    assert driver.command(3, 0, b"") == 1
    driver.guest.transport.set_config(0, 0x54, 1)
    assert config(0, 1) == MAC[0]  # which is for the control queue


def test_a_legacy_driver_sets_the_address() -> None:
    driver, device, _ = build("pci-legacy", wanted=1 << 5)
    for at, byte in enumerate(PEER):
        driver.guest.transport.set_config(at, byte, 1)
    assert bytes(device.mac) == PEER
    assert driver.header == 10
    device.reset()
    assert bytes(device.mac) == MAC


@pytest.mark.parametrize("merge", [True, False])
def test_offloads_both_ways(merge: bool) -> None:
    driver, device, net = build(wanted=~0 if merge else ~(1 << 15), net=MemoryNet(offers=ALL))
    large, start = gso_packet(4, 6, TEXT[:50_000])
    offload = Offload(True, start, 16, GSO_TCPV4, 1448, 54)
    driver.send(large, offload)
    assert (net.sent, net.offloads) == ([large], [offload])
    net.take()
    net.offers = 0
    driver.send(large, offload)
    assert net.take() == segment(large, offload)
    with device.machine.lock:
        assert net.give(large, offload)
    ((header, got),) = driver.raw()
    assert (header[:10], got) == (offload.pack(), large)
    assert not merge or int.from_bytes(header[10:12], "little") == -(-(len(large) + 12) // 2048)
    for wanted, pieces in ((0, 35), (1 << 1, 35), (1 << 1 | 1 << 7, 1)):
        assert driver.command(5, 0, wanted.to_bytes(8, "little")) == 0
        with device.machine.lock:
            net.give(large, offload)
        assert len(driver.raw()) == pieces
    assert driver.command(5, 0, (1 << 15).to_bytes(8, "little")) == 1


@pytest.mark.parametrize("rings", [RINGS, PACKED], ids=["split", "packed"])
def test_buffers_that_are_not_there_yet(rings: int) -> None:
    driver, device, net = build(rings=rings)
    frames = [frame(MAC, 60 + number) for number in range(100)]
    with device.machine.lock:
        for each in frames:
            net.give(each)
    got: list[bytes] = []
    while len(got) < 100:
        got += driver.poll()
    assert got == frames
    large, start = gso_packet(4, 6, TEXT[:50_000])
    offload = Offload(True, start, 16, GSO_TCPV4, 1448, 54)
    with device.machine.lock:
        for _ in range(4):
            net.give(large, offload)  # each needs more than half of the buffers
    assert [driver.raw() for _ in range(5)] == [[(offload.pack() + (25).to_bytes(2, "little"), large)]] * 4 + [[]]


def test_a_back_end_without_room() -> None:
    driver, _, net = build(net=MemoryNet(limit=3))
    ring, guest = driver.transmit[0], driver.guest
    frames = [frame(PEER, 60 + number) for number in range(200)]
    for each in frames:
        at = guest.pool.take(300)
        guest.bus.store(at, bytes(12) + each)
        ring.add([(at, 12 + len(each), False)])
    ring.kick()
    got: list[bytes] = []
    while len(got) < 200:
        assert len(net.sent) <= 3
        got += net.take()
        guest.step()
    assert got == frames


def test_what_the_filters_let_through() -> None:
    driver, device, net = build()
    multicast = bytes.fromhex("01005e000001")
    other = bytes.fromhex("525400000099")
    everybody = b"\xff" * 6

    def passes(target: bytes, vlan: int | None = None) -> bool:
        with device.machine.lock:
            net.give(frame(target, vlan=vlan))
        return bool(driver.raw())

    assert passes(other)  # promiscuous until the driver says otherwise
    assert driver.command(0, 0, b"\0") == 0
    assert [passes(target) for target in (MAC, everybody, multicast, other)] == [True, True, False, False]
    assert driver.command(1, 0, command_tables([other], [multicast])) == 0
    assert [passes(target) for target in (multicast, other, PEER)] == [True, True, False]
    assert driver.command(1, 1, PEER) == 0
    assert [passes(MAC), passes(PEER)] == [False, True]
    for command, target in ((3, multicast), (4, PEER), (5, everybody)):
        assert driver.command(0, command, b"\1") == 0
        assert not passes(target)
        assert driver.command(0, command, b"\0") == 0
        assert passes(target)
    assert driver.command(1, 0, command_tables([], [])) == 0
    assert [passes(multicast), passes(other)] == [False, False]
    for command, target in ((1, multicast), (2, other)):
        assert driver.command(0, command, b"\1") == 0
        assert passes(target)
        assert driver.command(0, command, b"\0") == 0
    many = [bytes((2, 0, 0, 0, 0, number)) for number in range(65)]
    assert driver.command(1, 0, command_tables(many, [])) == 0
    assert passes(other)  # too many to know
    assert not passes(multicast)
    assert [passes(PEER), passes(PEER, 5)] == [True, False]
    assert driver.command(2, 0, (5).to_bytes(2, "little")) == 0
    assert [passes(PEER, 5), passes(PEER, 6)] == [True, False]
    assert driver.command(2, 1, (5).to_bytes(2, "little")) == 0
    assert not passes(PEER, 5)
    for kind, command, data in (
        (0, 6, b"\1"), (0, 0, b""), (1, 0, b"\1\0\0\0"), (1, 0, command_tables([], []) + b"x"),
        (1, 1, b"x"), (1, 2, b""), (2, 0, b"\0\x10"), (2, 2, b"\0\0"), (4, 0, b"\1\0"), (5, 0, b""), (9, 0, b""),
        (1, 0, b"\xff" * 8),
    ):  # fmt: skip
        assert driver.command(kind, command, data) == 1


def test_several_queues() -> None:
    driver, device, net = build("pci", pairs=4)
    assert driver.guest.transport.config(8, 2) == 4
    assert driver.command(4, 0, b"\5\0") == 1
    assert driver.command(4, 0, b"\0\0") == 1
    assert driver.command(4, 0, b"\4\0") == 0

    def flow(port: int, *, back: bool) -> bytes:
        ends = (
            (struct.pack(">HH", port, 80), SELF, GATEWAY) if not back else (struct.pack(">HH", 80, port), GATEWAY, SELF)
        )
        return MAC + PEER + b"\x08\0" + packet(ends[1], ends[2], 6, ends[0] + bytes(16))

    assert flow_of(flow(99, back=True)) == flow_of(flow(99, back=False))
    for pair in range(4):
        driver.send(flow(1000 + pair, back=False), pair=pair)
    for pair in range(4):
        with device.machine.lock:
            net.give(flow(1000 + pair, back=True))
        used = [len(ring.used()) for ring in driver.receive]
        assert used == [int(number == pair) for number in range(4)]
    assert len(net.sent) == 4
    with pytest.raises(MapError):
        VirtioNet("other", device.machine, pairs=9)


def test_without_many_queues_the_third_is_for_control() -> None:
    guest, device = connect("mmio", lambda machine: VirtioNet("net", machine, pairs=4))
    driver = NetDriver(guest, ~(1 << 22))
    assert driver.control is not None
    assert driver.control.index == 2
    assert driver.command(0, 1, b"\1") == 0
    assert isinstance(device, VirtioNet)
    assert device.allmulti == 1


def test_frames_and_buffers_that_cannot_be() -> None:
    driver, device, net = build(wanted=~(1 << 15 | 0x780 | 3 << 54), buffer=100)
    errors = device.machine.log.counts
    for length in (0, 13):
        driver.send(bytes(length + 1)[:length] or b"\0")
    driver.send(frame(length=2000), Offload(True, 1990, 30))
    driver.send(frame(length=2000), Offload(True, 34, 16, GSO_TCPV4, 0))
    driver.send(frame(length=2000), Offload(gso_type=77))
    assert errors[GUEST_ERROR] == 5
    assert net.sent == []
    with device.machine.lock:
        net.give(frame(length=500))
        net.give(frame(length=80))
    assert [len(data) for _, data in driver.raw()] == [80]
    assert errors[GUEST_ERROR] == 6
    assert driver.control is not None
    driver.control.add([(driver.out, 1, False)])
    driver.control.kick(always=True)
    assert device.status & DEVICE_NEEDS_RESET
    with device.machine.lock:
        assert net.give(frame())


def test_a_saved_card_goes_on() -> None:
    net = MemoryNet(limit=1)
    driver, device, _ = build(net=net, rings=PACKED)
    assert driver.command(0, 0, b"\0") == 0
    assert driver.command(1, 0, command_tables([PEER], [])) == 0
    assert driver.command(2, 0, b"\5\0") == 0
    assert driver.command(5, 0, b"\2\0\0\0\0\0\0\0") == 0
    driver.send(frame(length=60))
    ring, bus = driver.transmit[0], driver.guest.bus
    bus.store(driver.out, bytes(12) + frame(length=70))
    ring.add([(driver.out, 82, False)])
    ring.kick()
    assert len(net.sent) == 1
    saved = json.loads(json.dumps(device.save()))
    with device.machine.lock:
        device.restore(saved)
    assert device.save() == saved
    net.take()
    device.machine.advance(0)
    assert [len(each) for each in net.sent] == [70]
    assert driver.guest.transport.config(6, 2) == 3  # let the network know
    with device.machine.lock:
        for target, vlan in ((PEER, None), (PEER, 5), (PEER, 6), (bytes(6), None)):
            net.give(frame(target, vlan=vlan))
    assert len(driver.raw()) == 2
    assert device.accepts == CSUM
    random = Random(3)
    for _ in range(100):
        with pytest.raises(SnapshotError):
            device.restore(mutated(saved, random))


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
