"""Segmentation and checksums against an arithmetic of their own, and against hostile headers."""

from __future__ import annotations

import struct
from random import Random
from typing import Any

import pytest
from dbt.machine.net.backend import MemoryNet, NetBackend, Sink
from dbt.machine.net.offload import (
    CSUM,
    GSO_ECN,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP,
    GSO_UDP_L4,
    MAX_FRAME,
    MAX_SEGMENTS,
    NO_HEADER,
    TSO4,
    BadOffload,
    Offload,
    checksum,
    pseudo_sum,
    segment,
    unpack,
)  # fmt: skip

TAG = bytes.fromhex("8100 0005")
MACS = bytes.fromhex("525400123456 525400123457")
V4, V6 = (bytes([10, 0, 2, 15]), bytes([10, 0, 2, 2])), (bytes(range(16)), bytes(range(16, 32)))


def slow_sum(data: bytes) -> int:
    """RFC 1071, 4.1, as it is written there."""
    total = 0
    for at in range(0, len(data) - 1, 2):
        total += data[at] << 8 | data[at + 1]
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet(version: int, protocol: int, payload: bytes, *, tags: int = 0, options: bytes = b"") -> tuple[bytes, int]:
    """A frame as drivers give it for offload: a pseudo-header's sum as checksum; and where the transport starts."""
    source, target = V4 if version == 4 else V6
    if protocol == 6:
        words = (5 + len(options) // 4) << 12 | 0x80 | 0x19  # CWR ACK PSH FIN
        transport = struct.pack(">HHIIHHHH", 1000, 80, 0xFFFF_FF00, 7, words, 500, 0, 0) + options
        field = 16
    else:
        transport = struct.pack(">HHHH", 1000, 53, 8 + len(payload), 0)
        field = 6
    length = len(transport) + len(payload)
    body = bytearray(transport + payload)
    total = pseudo_sum(source, target, protocol, length)
    struct.pack_into(">H", body, field, total % 0xFFFF)
    if version == 4:
        head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + length & 0xFFFF, 0xFFFF, 0, 64, protocol, 0, source, target)
        kind = b"\x08\x00"
    else:
        head = struct.pack(">IHBB16s16s", 6 << 28, length & 0xFFFF, protocol, 64, source, target)
        kind = b"\x86\xdd"
    start = MACS + TAG * tags + kind + head
    return start + bytes(body), len(start)


def check(frame: bytes, tags: int) -> tuple[Any, bytes]:
    """The headers of a finished frame, all of its checksums looked at, and its payload."""
    at = 14 + 4 * tags
    if frame[at] >> 4 == 4:
        assert slow_sum(frame[at : at + 20]) == 0
        total, identity = struct.unpack_from(">HH", frame, at + 2)
        assert total == len(frame) - at
        protocol, source, target, body = frame[at + 9], frame[at + 12 : at + 16], frame[at + 16 : at + 20], at + 20
    else:
        length, protocol = struct.unpack_from(">HB", frame, at + 4)
        assert length == len(frame) - at - 40
        identity, source, target, body = 0, frame[at + 8 : at + 24], frame[at + 24 : at + 40], at + 40
    transport = frame[body:]
    pseudo = source + target + struct.pack(">II", len(transport), protocol)
    assert slow_sum(pseudo + transport) == 0
    if protocol == 6:
        sequence, flags = struct.unpack_from(">I", transport, 4)[0], transport[13]
        return (identity, sequence, flags), transport[4 * (transport[12] >> 4) :]
    assert struct.unpack_from(">H", transport, 4)[0] == len(transport)
    return (identity, 0, 0), transport[8:]


def test_checksums_are_those_of_the_rfc() -> None:
    random = Random(1)
    for length in (0, 1, 2, 3, 19, 20, 1499, 1500):
        for data in (random.randbytes(length), bytes(length), b"\xff" * length):
            assert checksum(data) == slow_sum(data)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tags", [0, 1, 2])
@pytest.mark.parametrize("options", [b"", bytes.fromhex("0101080a") + bytes(8)])
@pytest.mark.parametrize("size", [1, 100, 1448, 1460, 60_000])
def test_tcp_segments(version: int, tags: int, options: bytes, size: int) -> None:
    payload = Random(size).randbytes(min(size * 40 + 7, 60_000))
    frame, start = packet(version, 6, payload, tags=tags, options=options)
    kind = GSO_TCPV4 if version == 4 else GSO_TCPV6
    pieces = segment(memoryview(frame), Offload(True, start, 16, kind, size, ecn=True))
    got = bytearray()
    for number, piece in enumerate(pieces):
        (identity, sequence, flags), data = check(piece, tags)
        assert sequence == (0xFFFF_FF00 + len(got)) & 0xFFFF_FFFF
        assert identity == ((0xFFFF + number) & 0xFFFF if version == 4 else 0)
        last = number == len(pieces) - 1
        assert flags == 0x10 | (0x80 if number == 0 else 0) | (0x09 if last else 0)
        assert len(data) == size or last
        got += data
    assert got == payload


@pytest.mark.parametrize("version", [4, 6])
def test_udp_segments_and_fragments(version: int) -> None:
    payload = Random(version).randbytes(5000)
    frame, start = packet(version, 17, payload)
    pieces = segment(frame, Offload(True, start, 6, GSO_UDP_L4, 1200))
    assert [len(check(piece, 0)[1]) for piece in pieces] == [1200] * 4 + [200]
    assert b"".join(check(piece, 0)[1] for piece in pieces) == payload
    fragments = segment(frame, Offload(True, start, 6, GSO_UDP, 1484))
    body = 14 + (20 if version == 4 else 40)
    datagram = bytearray()
    for fragment in fragments:
        if version == 4:
            assert slow_sum(fragment[14:34]) == 0
            place, data = struct.unpack_from(">H", fragment, 20)[0], fragment[body:]
            offset, more = (place & 0x1FFF) * 8, bool(place & 0x2000)
        else:
            following, place = struct.unpack_from(">BxH", fragment, body)
            assert (fragment[20], following) == (44, 17)
            offset, more, data = place & ~7, bool(place & 1), fragment[body + 8 :]
        assert offset == len(datagram)
        assert more == (fragment is not fragments[-1])
        assert len(data) == 1480 or not more
        datagram += data
    source, target = V4 if version == 4 else V6
    assert slow_sum(source + target + struct.pack(">II", len(datagram), 17) + datagram) == 0
    assert datagram[8:] == payload


def test_a_checksum_alone() -> None:
    frame, start = packet(4, 17, b"hello")
    (finished,) = segment(frame, Offload(True, start, 6))
    assert check(finished[:24] + checksum(finished[14:34]).to_bytes(2, "big") + finished[26:], 0)[1] == b"hello"
    with pytest.raises(BadOffload):
        segment(frame, Offload(True, len(frame), 0))


def test_headers_as_virtio_has_them() -> None:
    assert unpack(NO_HEADER) is None
    offload = Offload(True, 34, 16, GSO_TCPV4, 1460, 54, ecn=True, data_valid=True)
    assert offload.pack() == bytes([3, GSO_TCPV4 | GSO_ECN, 54, 0, 0xB4, 5, 34, 0, 16, 0])
    assert unpack(offload.pack()) == offload


def test_what_guests_say_is_not_believed() -> None:
    random = Random(3)
    good = [packet(version, protocol, bytes(3000)) for version in (4, 6) for protocol in (6, 17)]
    refused = done = 0
    for _ in range(20_000):
        frame, start = random.choice(good)
        mutated = bytearray(frame[: random.choice((len(frame), len(frame), random.randrange(60)))])
        for _ in range(random.randrange(3)):
            if mutated:
                mutated[random.randrange(min(len(mutated), 80))] = random.randrange(256)
        kind = random.choice((0, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4, random.randrange(128)))
        size = random.choice((0, 1, 7, 1000, 65535))
        try:
            pieces = segment(bytes(mutated), Offload(True, random.choice((start, 0, 65535)), 16, kind, size))
        except BadOffload:
            refused += 1
        else:
            assert 0 < len(pieces) <= MAX_SEGMENTS + 1
            done += 1
    assert min(refused, done) > 1000


@pytest.mark.parametrize("kind", [GSO_TCPV4, GSO_UDP, GSO_UDP_L4])
def test_a_segment_is_no_longer_than_a_packet(kind: int) -> None:
    protocol, size = (6 if kind == GSO_TCPV4 else 17), 65528
    frame = packet(4, protocol, b"")[0].ljust(MAX_FRAME, b"\0")  # which has room for two tags, and has none
    with pytest.raises(BadOffload, match="a packet of 655"):
        segment(frame, Offload(gso_type=kind, gso_size=size))
    tagged = packet(4, protocol, b"", tags=2)[0].ljust(MAX_FRAME, b"\0")
    assert len(b"".join(segment(tagged, Offload(gso_type=kind, gso_size=size)))) >= MAX_FRAME


class Card:
    """Takes as many frames as it has buffers."""

    def __init__(self, buffers: int, accepts: int = 0) -> None:
        self.accepts = accepts
        self.buffers = buffers
        self.got: list[bytes] = []
        self.errors: list[str] = []
        self.told = 0

    def receive(self, frame: bytes | bytearray | memoryview, offload: Offload | None = None) -> bool:
        if not self.buffers:
            return False
        assert offload is None or self.accepts
        self.buffers -= 1
        self.got.append(bytes(frame))
        return True

    def ready(self) -> None:
        self.told += 1

    def link_changed(self) -> None:
        self.told += 1

    def guest_error(self, thing: str, detail: str = "") -> None:
        self.errors.append(thing + detail)


def test_neither_side_loses_segments() -> None:
    frame, start = packet(4, 6, bytes(5000))
    offload = Offload(True, start, 16, GSO_TCPV4, 1000)
    whole = segment(frame, offload)
    net, card = MemoryNet(limit=2), Card(3)
    net.attach(card)
    assert net.send(frame, offload)
    assert not net.send(b"next" * 4)
    taken = net.take()
    told = [card.told]
    for _ in range(2):
        taken += net.take()
        told.append(card.told)
    assert (taken, told) == (whole, [0, 1, 2])
    assert net.give(frame, offload)
    assert not net.give(b"last" * 4)
    card.buffers = 9
    net.resume()
    assert card.got == [*whole, b"last" * 4]


def test_what_is_offered_goes_in_whole() -> None:
    frame, start = packet(4, 6, bytes(5000))
    offload = Offload(True, start, 16, GSO_TCPV4, 1000)
    net, card = MemoryNet(offers=CSUM | TSO4), Card(9, CSUM | TSO4)
    net.attach(card)
    net.send(frame, offload)
    net.give(frame, offload)
    assert (net.sent, net.offloads, card.got) == ([frame], [offload], [frame])
    assert net.send(frame, offload._replace(gso_type=GSO_UDP))
    assert card.errors == ["a frame whose offload cannot be done: segmentation of kind 3 of protocol 6"]
    with pytest.raises(ValueError, match="one device"):
        net.attach(card)


def test_a_link_that_is_down_loses_frames() -> None:
    sink, card = Sink(), Card(9)
    sink.attach(card)
    sink.set_link(up=False)
    assert sink.send(b"frame")
    assert sink.offer(b"frame")
    sink.set_link(up=True)
    assert sink.send(b"frame")
    assert (sink.frames, sink.octets, card.got, card.told) == (1, 5, [], 2)
    assert NetBackend().send(b"frame")
