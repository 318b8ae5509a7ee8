"""Headers of Ethernet, IPv4, IPv6, UDP and ICMP (RFC 894, 791, 8200, 768, 792, 4443), read with checks and made."""

from __future__ import annotations

import struct
from typing import NamedTuple

from dbt.machine.net.offload import FRAGMENT, IPV4, IPV6, Buffer, checksum, ones_sum

ARP, ICMP, TCP, UDP, ICMP6 = 0x0806, 1, 6, 17, 58
ETHER = struct.Struct(">6s6sH")
HEADER = struct.Struct(">BBHHHBBH4s4s")
HEADER6 = struct.Struct(">IHBB16s16s")
UDP_HEADER = struct.Struct(">HHHH")
BROADCAST = b"\xff" * 6
EVERYBODY = b"\xff" * 4
NOBODY = bytes(4)
NOBODY6 = bytes(16)
TTL = 64
MORE, OFFSET = 0x2000, 0x1FFF

UNREACHABLE, TIME_EXCEEDED, ECHO, ECHO_REPLY = 3, 11, 8, 0
NET, HOST, PROTOCOL, PORT, PROHIBITED = 0, 1, 2, 3, 13  # codes of UNREACHABLE


EXTENSIONS = {0, 43, 60}  # of IPv6: hop-by-hop and destination options, routing


class Malformed(Exception):
    """A packet that is not what it says; the text is counted and logged."""


class Packet(NamedTuple):
    """IPv4 or IPv6, as the addresses are. `payload` is a view of the frame; `header` is what ICMP errors quote."""

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


def parse6(view: memoryview, *, checked: bool) -> Packet:
    """The same for IPv6; extension headers are skipped, but for that of fragments."""
    if len(view) < 40:
        raise Malformed("an IPv6 packet of less than 40 bytes")
    first, length, protocol, ttl, source, target = HEADER6.unpack_from(view)
    end = 40 + length
    if first >> 28 != 6 or end > len(view):
        raise Malformed("an IPv6 header that contradicts the frame")
    at, fragment, identity = 40, 0, 0
    for _ in range(8):
        if protocol not in EXTENSIONS and protocol != FRAGMENT:
            return Packet(source, target, protocol, ttl, identity, fragment, view[at:end], bytes(view[:at]), checked)
        if at + 8 > end or fragment:
            break
        following, size, place, number = struct.unpack_from(">BBHI", view, at)
        if protocol == FRAGMENT:
            fragment, identity, size = place >> 3 | (MORE if place & 1 else 0), number, 0
        elif protocol == 43 and view[at + 3]:
            raise Malformed("an IPv6 packet with a route")
        protocol, at = following, at + 8 + 8 * size
        if at > end:
            break
        if fragment:
            return Packet(source, target, protocol, ttl, identity, fragment, view[at:end], bytes(view[:at]), checked)
    raise Malformed("IPv6 extension headers that cannot be")


def ip_header(
    source: bytes, target: bytes, protocol: int, length: int, identity: int = 0, ttl: int = TTL, fragment: int = 0
) -> bytes:
    """A header for `length` bytes of payload."""
    if len(source) == 16:
        return HEADER6.pack(6 << 28, length, protocol, ttl, source, target)
    words = (0x45, 0, 20 + length, identity, fragment, ttl, protocol, 0, source, target)
    return HEADER.pack(*words[:7], checksum(HEADER.pack(*words)), source, target)


def packets(source: bytes, target: bytes, protocol: int, payload: bytes, identity: int, mtu: int) -> list[bytes]:
    """One packet, or its fragments (RFC 791, 3.2; RFC 8200, 4.5)."""
    six = len(source) == 16
    room = mtu - (40 if six else 20)
    if len(payload) <= room:
        return [ip_header(source, target, protocol, len(payload), identity) + payload]
    size = (room - 8 if six else room) & ~7
    found = []
    for start in range(0, len(payload), size):
        data = payload[start : start + size]
        more = start + size < len(payload)
        if six:
            data = struct.pack(">BBHI", protocol, 0, start | more, identity) + data
            header = ip_header(source, target, FRAGMENT, len(data))
        else:
            place = start >> 3 | (MORE if more else 0)
            header = ip_header(source, target, protocol, len(data), identity, fragment=place)
        found.append(header + data)
    return found


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


def icmp6(source: bytes, target: bytes, head: tuple[int, int, int], data: Buffer) -> bytes:
    """The same for IPv6, with the addresses in its checksum. `head`: kind, code, second word."""
    kind, code, rest = head
    bare = struct.pack(">BBHI", kind, code, 0, rest) + bytes(data)
    total = checksum(bare, ones_sum(source + target) + ICMP6 + len(bare))
    return bare[:2] + struct.pack(">H", total) + bare[4:]


def kind_of(address: bytes) -> int:
    """The Ethernet type of packets with such addresses."""
    return IPV4 if len(address) == 4 else IPV6
