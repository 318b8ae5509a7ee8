"""What the 82540EM's receiver finds out about a frame: packet types and checksums (3.2.9), filters' hash (13.5.1)."""

from __future__ import annotations

from dbt.machine.net.offload import Buffer, ones_sum, pseudo_sum

IXSM, TCPCS, IPCS = 1 << 2, 1 << 5, 1 << 6  # status
TCPE, IPE = 1 << 5, 1 << 6  # errors
TCP, UDP = 6, 17
IPV4, IPV6, VLAN = b"\x08\x00", b"\x86\xdd", b"\x81\x00"
SNAP = b"\xaa\xaa\x03\x00\x00\x00"


def multicast_hash(address: bytes, offset: int) -> int:
    """The 12 bits of an address that MTA is looked up with, by RCTL.MO (table 13-89)."""
    return (address[5] << 8 | address[4]) >> (4, 3, 2, 0)[offset] & 0xFFF


def inspect(frame: Buffer, ip: bool, transport: bool) -> tuple[int, int]:
    """Status and errors of a frame's checksums, as RXCSUM asks for them."""
    at = 12
    if frame[at : at + 2] == VLAN:
        at += 4
    kind = bytes(frame[at : at + 2])
    if kind <= b"\x05\xdc" and bytes(frame[at + 2 : at + 8]) == SNAP:
        at += 8
        kind = bytes(frame[at : at + 2])
    at += 2
    if kind == IPV4 and len(frame) >= at + 20 and frame[at] >> 4 == 4:
        return _ipv4(frame, at, ip, transport)
    if kind == IPV6 and len(frame) >= at + 40 and frame[at] >> 4 == 6 and transport:
        length = int.from_bytes(frame[at + 4 : at + 6], "big")
        source, target = frame[at + 8 : at + 24], frame[at + 24 : at + 40]
        return _transport(frame, at + 40, length, frame[at + 6], pseudo_sum(source, target, frame[at + 6], length))
    return IXSM, 0


def _ipv4(frame: Buffer, at: int, ip: bool, transport: bool) -> tuple[int, int]:
    header = 4 * (frame[at] & 15)
    length = int.from_bytes(frame[at + 2 : at + 4], "big")
    if header < 20 or length < header or at + length > len(frame):
        return IXSM, 0
    status = errors = 0
    if ip:
        status = IPCS
        errors = 0 if ones_sum(frame[at : at + header]) == 0xFFFF else IPE
    if transport and not int.from_bytes(frame[at + 6 : at + 8], "big") & 0x3FFF:  # no fragment
        start, size, protocol = at + header, length - header, frame[at + 9]
        pseudo = pseudo_sum(frame[at + 12 : at + 16], frame[at + 16 : at + 20], protocol, size)
        more, wrong = _transport(frame, start, size, protocol, pseudo)
        status, errors = status | more & TCPCS, errors | wrong
    return status or IXSM, errors


def _transport(frame: Buffer, at: int, length: int, protocol: int, pseudo: int) -> tuple[int, int]:
    """TCP or UDP of `length` bytes at `at`."""
    field = at + (16 if protocol == TCP else 6)
    if protocol not in {TCP, UDP} or at + length > len(frame) or field + 2 > at + length:
        return IXSM, 0
    if protocol == UDP and not any(frame[field : field + 2]):
        return IXSM, 0  # sent without one
    return TCPCS, 0 if ones_sum(frame[at : at + length], pseudo) == 0xFFFF else TCPE
