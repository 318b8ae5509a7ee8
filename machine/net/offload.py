"""Checksums and segmentation that a guest leaves to its card, and the card to its back end.

An Offload says what is still to be done to a frame, with the meaning of `virtio_net_hdr` (virtio 1.2, 5.1.6): a
checksum from `csum_start` to the end, stored at `csum_offset` from there, over a pseudo-header's sum that is there
already; and segmentation of a packet that is larger than the network's. `segment` does it. What an Offload says is the
guest's word: `segment` checks it against the frame's own headers, and BadOffload is what devices log and drop.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from dbt.errors import GuestError

# Kinds of segmentation, as virtio numbers them.
GSO_NONE, GSO_TCPV4, GSO_UDP, GSO_TCPV6, GSO_UDP_L4, GSO_ECN = 0, 1, 3, 4, 5, 0x80

# What a back end, or a device, takes in whole.
CSUM, TSO4, TSO6, ECN, UFO, USO = 1, 2, 4, 8, 16, 32
NEEDS = {GSO_NONE: 0, GSO_TCPV4: TSO4, GSO_UDP: UFO, GSO_TCPV6: TSO6, GSO_UDP_L4: USO}

MAX_FRAME = 14 + 8 + 65535  # with two VLAN tags
MAX_SEGMENTS = 2048  # 64 KiB in the smallest segments that TCP allows are 1,366
IPV4, IPV6, TCP, UDP, FRAGMENT = 0x0800, 0x86DD, 6, 17, 44
TAGS = (0x8100, 0x88A8, 0x9100)
FIN, PSH, CWR = 0x01, 0x08, 0x80
HEADER = struct.Struct("<BBHHHH")  # virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
F_NEEDS_CSUM, F_DATA_VALID = 1, 2

Buffer = bytes | bytearray | memoryview


class BadOffload(GuestError):
    """What a guest asks for does not fit the frame that it gives."""


class Offload(NamedTuple):
    """What is to be done to a frame. Nobody relies on `hdr_len`, a hint; `data_valid`: checksums were checked."""

    needs_csum: bool = False
    csum_start: int = 0
    csum_offset: int = 0
    gso_type: int = GSO_NONE
    gso_size: int = 0
    hdr_len: int = 0
    ecn: bool = False
    data_valid: bool = False

    @property
    def needs(self) -> int:
        """What a receiver has to take to be given this in whole. BadOffload if there is no such thing."""
        if self.gso_type not in NEEDS:
            raise BadOffload(f"segmentation of kind {self.gso_type:#x}")
        return NEEDS[self.gso_type] | (CSUM if self.needs_csum else 0) | (ECN if self.ecn else 0)

    def pack(self) -> bytes:
        """As virtio_net_hdr without num_buffers, 10 bytes."""
        flags = (F_NEEDS_CSUM if self.needs_csum else 0) | (F_DATA_VALID if self.data_valid else 0)
        kind = self.gso_type | (GSO_ECN if self.ecn else 0)
        return HEADER.pack(flags, kind, self.hdr_len, self.gso_size, self.csum_start, self.csum_offset)


NO_HEADER = bytes(HEADER.size)


def unpack(header: Buffer) -> Offload | None:
    """What a virtio_net_hdr says; None if nothing is to be done."""
    if header[:2] == b"\0\0":
        return None
    flags, kind, hdr_len, gso_size, csum_start, csum_offset = HEADER.unpack_from(header)
    return Offload(
        bool(flags & F_NEEDS_CSUM), csum_start, csum_offset, kind & ~GSO_ECN, gso_size, hdr_len,
        bool(kind & GSO_ECN), bool(flags & F_DATA_VALID),
    )  # fmt: skip


def ones_sum(data: Buffer, start: int = 0) -> int:
    """The ones' complement sum of 16-bit words (RFC 1071), with `start`; an odd byte is padded with zero."""
    number = int.from_bytes(data, "big")  # 2**16 is 1 modulo 65535: the whole is as its words
    if len(data) & 1:
        number <<= 8
    number += start
    return number % 0xFFFF or (0xFFFF if number else 0)


def checksum(data: Buffer, start: int = 0) -> int:
    """The Internet checksum."""
    return ones_sum(data, start) ^ 0xFFFF


def pseudo_sum(source: Buffer, target: Buffer, protocol: int, length: int) -> int:
    """The sum of the pseudo-header of IPv4 (RFC 9293, 3.1) or IPv6 (RFC 8200, 8.1)."""
    return ones_sum(source) + ones_sum(target) + protocol + (length >> 16) + (length & 0xFFFF)


def network_offset(frame: Buffer) -> tuple[int, int]:
    """(ethertype, offset of what is in the frame), behind up to two VLAN tags."""
    at = 12
    while at < 20 and len(frame) >= at + 2:
        kind = frame[at] << 8 | frame[at + 1]
        if kind not in TAGS:
            return kind, at + 2
        at += 4
    if len(frame) < at + 2:
        raise BadOffload("a frame without a type")
    return frame[at] << 8 | frame[at + 1], at + 2


def complete(frame: Buffer, offload: Offload) -> bytes:
    """The frame with its checksum."""
    start = offload.csum_start
    at = start + offload.csum_offset
    if at + 2 > len(frame):
        raise BadOffload(f"a checksum at {at} in a frame of {len(frame)} bytes")
    data = bytearray(frame)
    struct.pack_into(">H", data, at, checksum(memoryview(data)[start:]) or 0xFFFF)
    return bytes(data)


def segment(frame: Buffer, offload: Offload) -> list[bytes]:
    """The frames that the network sees: as large as it takes, with all checksums. BadOffload if it cannot be done."""
    kind = offload.gso_type
    if kind == GSO_NONE:
        return [complete(frame, offload) if offload.needs_csum else bytes(frame)]
    if kind not in NEEDS:
        raise BadOffload(f"segmentation of kind {kind:#x}")
    if len(frame) > MAX_FRAME or not offload.gso_size:
        raise BadOffload(f"{len(frame)} bytes in segments of {offload.gso_size}")
    headers = _Headers(frame, kind)
    if offload.needs_csum and offload.csum_start != headers.transport:
        raise BadOffload(f"the checksum starts at {offload.csum_start}, the transport's header at {headers.transport}")
    if (len(frame) - headers.end) > offload.gso_size * MAX_SEGMENTS:
        raise BadOffload(f"more than {MAX_SEGMENTS} segments")
    if kind == GSO_UDP:
        return _fragments(bytes(frame), headers, offload.gso_size & ~7)
    return _segments(frame, headers, offload.gso_size)


class _Headers:
    """Where the headers of a frame are: `network`, `transport`, and the `end` of both."""

    __slots__ = ("addresses", "end", "network", "protocol", "transport", "version")

    def __init__(self, frame: Buffer, kind: int) -> None:
        ethertype, at = network_offset(frame)
        self.network = at
        if ethertype == IPV4 and kind != GSO_TCPV6:
            self.version, length, source = 4, 4 * (frame[at] & 15) if len(frame) > at else 0, 12
            if len(frame) < at + 20 or frame[at] >> 4 != 4 or length < 20:
                raise BadOffload("a damaged IPv4 header")
            self.protocol, size = frame[at + 9], 4
            if frame[at + 6] & 0x3F or frame[at + 7]:
                raise BadOffload("a fragment that is to be segmented")
        elif ethertype == IPV6 and kind != GSO_TCPV4:
            self.version, length, source = 6, 40, 8
            if len(frame) < at + 40 or frame[at] >> 4 != 6:
                raise BadOffload("a damaged IPv6 header")
            self.protocol, size = frame[at + 6], 16
        else:
            raise BadOffload(f"segmentation of kind {kind} of a frame of type {ethertype:#06x}")
        wanted = TCP if kind in {GSO_TCPV4, GSO_TCPV6} else UDP
        if self.protocol != wanted:  # extension headers of IPv6 are among what is refused
            raise BadOffload(f"segmentation of kind {kind} of protocol {self.protocol}")
        self.transport = at + length
        self.addresses = ones_sum(frame[at + source : at + source + 2 * size])
        self.end = self.transport + 8
        if wanted == TCP:
            if len(frame) < self.transport + 20 or frame[self.transport + 12] < 0x50:
                raise BadOffload("a damaged TCP header")
            self.end = self.transport + 4 * (frame[self.transport + 12] >> 4)
        if len(frame) < self.end:
            raise BadOffload("a frame that ends within its headers")


def _length(header: bytearray, headers: _Headers, total: int, identity: int) -> None:
    """Set the length of the network header for a frame of `total` bytes, and IPv4's identification and checksum."""
    at = headers.network
    length = total - at - (40 if headers.version == 6 else 0)
    if length > 0xFFFF:  # a frame has room for two tags; without them it may be longer than any packet
        raise BadOffload(f"a packet of {total - at} bytes")
    if headers.version == 6:
        struct.pack_into(">H", header, at + 4, length)
        return
    struct.pack_into(">HH", header, at + 2, length, identity & 0xFFFF)
    header[at + 10 : at + 12] = b"\0\0"
    struct.pack_into(">H", header, at + 10, checksum(header[at : headers.transport]))


def _segments(frame: Buffer, headers: _Headers, size: int) -> list[bytes]:
    """TCP: sequence numbers and flags go on. UDP: datagrams of their own."""
    view = memoryview(frame)
    at, end = headers.transport, headers.end
    header = bytearray(view[:end])
    identity = struct.unpack_from(">H", header, headers.network + 4)[0]
    tcp = headers.protocol == TCP
    field = at + (16 if tcp else 6)
    sequence = struct.unpack_from(">I", header, at + 4)[0]
    flags = header[at + 13] if tcp else 0
    frames: list[bytes] = []
    for start in range(end, max(len(frame), end + 1), size):
        data = view[start : start + size]
        total = end + len(data)
        _length(header, headers, total, identity + len(frames))
        if tcp:
            struct.pack_into(">I", header, at + 4, sequence + start - end & 0xFFFF_FFFF)
            last = start + size >= len(frame)
            header[at + 13] = flags & ~(0 if last else FIN | PSH) & ~(CWR if frames else 0)
        else:
            struct.pack_into(">H", header, at + 4, total - at)
        header[field : field + 2] = b"\0\0"
        piece = header + data
        value = checksum(memoryview(piece)[at:], headers.addresses + headers.protocol + total - at)
        struct.pack_into(">H", piece, field, value or 0xFFFF)
        frames.append(bytes(piece))
    return frames


def _fragments(frame: bytes, headers: _Headers, size: int) -> list[bytes]:
    """A UDP datagram with its checksum, in fragments of IPv4 or IPv6 (RFC 8200, 4.5)."""
    if not size:
        raise BadOffload("fragments of less than 8 bytes")
    at = headers.transport
    datagram = bytearray(frame[at:])
    struct.pack_into(">HH", datagram, 4, len(datagram), 0)
    value = checksum(datagram, headers.addresses + UDP + len(datagram))
    struct.pack_into(">H", datagram, 6, value or 0xFFFF)
    header = bytearray(frame[:at])
    identity = struct.unpack_from(">H", header, headers.network + 4)[0]
    if headers.version == 6 and len(datagram) > size:
        header[headers.network + 6] = FRAGMENT
        identity = value << 16 | len(datagram)  # any number that is not soon used again between the two
    frames: list[bytes] = []
    for start in range(0, len(datagram), size):
        data = datagram[start : start + size]
        more = start + size < len(datagram)
        if headers.version == 6:
            if len(datagram) > size:
                data = bytearray(struct.pack(">BBHI", UDP, 0, start | more, identity)) + data
        else:
            struct.pack_into(">H", header, headers.network + 6, start >> 3 | (0x2000 if more else 0))
        _length(header, headers, at + len(data), identity)
        frames.append(bytes(header + data))
    return frames
