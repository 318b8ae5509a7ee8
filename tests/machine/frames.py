"""Frames that drivers of network cards send and get, built byte by byte."""

from __future__ import annotations

import struct

MAC = bytes.fromhex("525400123456")
OTHER = bytes.fromhex("020000000001")


def checksum(data: bytes) -> int:
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ethernet(kind: int, payload: bytes, target: bytes = MAC, source: bytes = OTHER, tag: int | None = None) -> bytes:
    extra = b"" if tag is None else struct.pack(">HH", 0x8100, tag)
    return target + source + extra + struct.pack(">H", kind) + payload


def pseudo(packet: bytes, protocol: int, length: int) -> bytes:
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    return addresses + struct.pack(">IHH", length, 0, protocol)


def ip4(payload: bytes, protocol: int, *, length: int | None = None, summed: bool = True) -> bytes:
    total = 20 + len(payload) if length is None else length
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, total, 0x1234, 0x4000, 64, protocol, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    if summed:
        header = header[:10] + struct.pack(">H", checksum(header)) + header[12:]
    return header + payload


def ip6(payload: bytes, protocol: int, *, length: int | None = None) -> bytes:
    total = len(payload) if length is None else length
    return (
        struct.pack(">IHBB16s16s", 6 << 28, total, protocol, 64, b"\xfe" + b"\1" * 15, b"\xfe" + b"\2" * 15) + payload
    )


def tcp(payload: bytes, flags: int = 0x19, sequence: int = 0xFFFF_FF00) -> bytes:
    return struct.pack(">HHIIBBHHH", 1000, 80, sequence, 7, 0x50, flags, 512, 0, 0) + payload


def udp(payload: bytes, *, length: int | None = None) -> bytes:
    return struct.pack(">HHHH", 1000, 53, 8 + len(payload) if length is None else length, 0) + payload


def summed(packet: bytes, *, good: bool = True) -> bytes:
    """An IP packet with the checksum of its TCP or UDP."""
    start, protocol = (20, packet[9]) if packet[0] >> 4 == 4 else (40, packet[6])
    field = start + (16 if protocol == 6 else 6)
    value = checksum(pseudo(packet, protocol, len(packet) - start) + packet[start:]) or 0xFFFF
    return packet[:field] + struct.pack(">H", value ^ (0 if good else 0x0100)) + packet[field + 2 :]


def half_summed(packet: bytes, *, whole: bool) -> bytes:
    """With the pseudo-header's sum where the checksum goes; its length is left out for segmentation."""
    start, protocol = (20, packet[9]) if packet[0] >> 4 == 4 else (40, packet[6])
    field = start + (16 if protocol == 6 else 6)
    value = checksum(pseudo(packet, protocol, len(packet) - start if whole else 0)) ^ 0xFFFF
    return packet[:field] + struct.pack(">H", value) + packet[field + 2 :]
