"""Headers of Ethernet, IPv4, UDP and ICMP (RFC 894, 791, 768, 792), read with checks and made."""

from __future__ import annotations

import struct
from typing import NamedTuple

from dbt.machine.net.offload import IPV4, Buffer, checksum, ones_sum

ARP, ICMP, TCP, UDP = 0x0806, 1, 6, 17
ETHER = struct.Struct(">6s6sH")
HEADER = struct.Struct(">BBHHHBBH4s4s")
UDP_HEADER = struct.Struct(">HHHH")
BROADCAST = b"\xff" * 6
EVERYBODY = b"\xff" * 4
NOBODY = bytes(4)
TTL = 64
MORE, OFFSET = 0x2000, 0x1FFF

UNREACHABLE, TIME_EXCEEDED, ECHO, ECHO_REPLY = 3, 11, 8, 0
NET, HOST, PROTOCOL, PORT, PROHIBITED = 0, 1, 2, 3, 13  # codes of UNREACHABLE


class Malformed(Exception):
    """A packet that is not what it says; the text is counted and logged."""


class Packet(NamedTuple):
    """An IPv4 packet. `payload` is a view of the frame; `header` is what ICMP errors quote."""

    source: bytes
    target: bytes
    protocol: int
    ttl: int
    identity: int
    fragment: int  # flags and offset
    payload: memoryview
    header: bytes
    checked: bool  # the transport's checksum need not be looked at


def parse(view: memoryview, *, checked: bool) -> Packet:
    """The packet behind an Ethernet header. Malformed if it is none."""
    if len(view) < 20:
        raise Malformed("an IPv4 packet of less than 20 bytes")
    first, _, total, identity, fragment, ttl, protocol, _, source, target = HEADER.unpack_from(view)
    length = 4 * (first & 15)
    if first >> 4 != 4 or not 20 <= length <= total <= len(view):
        raise Malformed("an IPv4 header that contradicts the frame")
    header = bytes(view[:length])
    if ones_sum(header) != 0xFFFF:
        raise Malformed("a wrong IPv4 checksum")
    return Packet(source, target, protocol, ttl, identity, fragment, view[length:total], header, checked)


def ip_header(source: bytes, target: bytes, protocol: int, length: int, identity: int) -> bytes:
    """A header for `length` bytes of payload."""
    words = (0x45, 0, 20 + length, identity, 0, TTL, protocol, 0, source, target)
    return HEADER.pack(*words[:7], checksum(HEADER.pack(*words)), source, target)


def ether(target: bytes, source: bytes, kind: int = IPV4) -> bytes:
    """An Ethernet header."""
    return ETHER.pack(target, source, kind)


def udp(source: bytes, target: bytes, ports: tuple[int, int], data: Buffer) -> bytes:
    """A datagram with its checksum."""
    length = 8 + len(data)
    start = ones_sum(source + target) + UDP + length
    bare = UDP_HEADER.pack(*ports, length, 0) + bytes(data)
    return UDP_HEADER.pack(*ports, length, checksum(bare, start) or 0xFFFF) + bare[8:]


def icmp(kind: int, code: int, rest: int, data: Buffer) -> bytes:
    """A message with its checksum; `rest` is the second word."""
    bare = struct.pack(">BBHI", kind, code, 0, rest) + bytes(data)
    return bare[:2] + struct.pack(">H", checksum(bare)) + bare[4:]


def text(address: bytes) -> str:
    """As people write it."""
    return ".".join(map(str, address))
