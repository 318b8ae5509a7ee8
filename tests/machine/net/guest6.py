"""What guest.py is for IPv4, as far as tests need it for IPv6."""

from __future__ import annotations

import struct

from tests.machine.net.guest import Guest, internet_sum

PREFIX = bytes.fromhex("fec0000000000000")
GATEWAY6, DNS6 = PREFIX + bytes(7) + b"\2", PREFIX + bytes(7) + b"\3"
LINK_LOCAL, ROUTER = (
    bytes.fromhex("fe80000000000000505400fffe123456"),
    bytes.fromhex("fe800000000000000000000000000002"),
)
SELF6 = PREFIX + LINK_LOCAL[8:]
ALL_ROUTERS = bytes.fromhex("ff020000000000000000000000000002")
ICMP6 = 58


def packet6(source: bytes, target: bytes, protocol: int, payload: bytes, hops: int = 64) -> bytes:
    return struct.pack(">IHBB16s16s", 6 << 28, len(payload), protocol, hops, source, target) + payload


def with_sum6(source: bytes, target: bytes, protocol: int, data: bytes, field: int) -> bytes:
    pseudo = source + target + struct.pack(">II", len(data), protocol)
    return data[:field] + (internet_sum(pseudo + data) or 0xFFFF).to_bytes(2, "big") + data[field + 2 :]


def icmp6(source: bytes, target: bytes, kind: int, body: bytes, *, hops: int = 255, code: int = 0) -> bytes:
    message = bytes((kind, code, 0, 0)) + body
    return packet6(source, target, ICMP6, with_sum6(source, target, ICMP6, message, 2), hops)


def udp6(source: tuple[bytes, int], target: tuple[bytes, int], data: bytes) -> bytes:
    bare = struct.pack(">HHHH", source[1], target[1], 8 + len(data), 0) + data
    return packet6(source[0], target[0], 17, with_sum6(source[0], target[0], 17, bare, 6))


def tcp6(source: tuple[bytes, int], target: tuple[bytes, int], numbers: tuple[int, int], flags: int) -> bytes:
    bare = struct.pack(">HHIIBBHHH", source[1], target[1], *numbers, 0x50, flags, 0xFFFF, 0, 0)
    return packet6(source[0], target[0], 6, with_sum6(source[0], target[0], 6, bare, 16))


def solicitation(target: bytes, source: bytes = SELF6, mac: bytes = b"\x52\x54\0\x12\x34\x56") -> bytes:
    group = bytes.fromhex("ff0200000000000000000001ff") + target[13:]
    return icmp6(source, group, 135, bytes(4) + target + b"\1\1" + mac)


def send6(guest: Guest, packet: bytes) -> None:
    target = packet[24:40]
    multicast = b"\x33\x33" + target[12:]
    guest.send(packet, 0x86DD, multicast if target[0] == 0xFF else b"\x52\x56\0\0\0\2")


def wait6(guest: Guest, protocol: int, kind: int | None = None) -> tuple[bytes, bytes, bytes]:
    """(source, target, payload) of the next packet of that protocol and kind of message, its checksum checked."""

    def wanted(frame: bytes) -> bool:
        return frame[12:14] == b"\x86\xdd" and frame[20] == protocol and (kind is None or frame[54] == kind)

    frame = guest.wait(wanted)
    source, target, payload = frame[22:38], frame[38:54], frame[54:]
    assert struct.unpack_from(">H", frame, 18)[0] == len(payload)
    assert internet_sum(source + target + struct.pack(">II", len(payload), protocol) + payload) == 0
    return source, target, payload


def nd_options(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        found[data[0]] = data[2 : 8 * data[1]]
        data = data[8 * data[1] :]
    return found
