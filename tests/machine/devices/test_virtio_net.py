"""A driver for virtio-net from the specification: offloads, filters, queues, saved states."""

from __future__ import annotations

import json
import struct
from random import Random

import pytest
from dbt.machine.devices.virtio_net import VirtioNet, flow_of
from dbt.machine.errors import MapError, SnapshotError
from dbt.machine.log import GUEST_ERROR
from dbt.machine.net.backend import MemoryNet
from dbt.machine.net.offload import CSUM, GSO_TCPV4, Offload, segment
from dbt.machine.virtio.device import RINGS
from dbt.machine.virtio.spec import DEVICE_NEEDS_RESET

from tests.machine.fuzzing import mutated
from tests.machine.net.card import NetDriver
from tests.machine.net.guest import GATEWAY, MAC, SELF, packet
from tests.machine.net.test_offload import packet as gso_packet
from tests.machine.net.virtio_card import ALL, PACKED, PEER, TEXT, build, command_tables, frame
from tests.machine.virtio import KINDS, connect


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
