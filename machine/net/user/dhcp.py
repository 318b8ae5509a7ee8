"""The DHCP server (RFC 2131, 2132): addresses from the first on, one for each hardware address, for a day.

Leases are forgotten oldest first when all addresses are taken; plain BOOTP (RFC 951) is answered too.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from dbt.machine.net.user.packets import BROADCAST, EVERYBODY, NOBODY, UDP, Malformed, udp

if TYPE_CHECKING:
    from dbt.machine.net.user.net import UserNet

SERVER, CLIENT = 67, 68
LEASES = 64
SECONDS = 86400
COOKIE = b"\x63\x82\x53\x63"
FIXED = struct.Struct(">BBBBIHH4s4s4s4s16s64x128x")
BOOTREQUEST, BOOTREPLY = 1, 2
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)
PAD, MASK, ROUTER, DNS, REQUESTED, LEASE, TYPE, SERVER_ID, END = 0, 1, 3, 6, 50, 51, 53, 54, 255


def options(data: memoryview) -> dict[int, bytes]:
    """The options of a message; the first of each kind."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != END:
        if data[at] == PAD:
            at += 1
            continue
        if at + 2 > len(data) or at + 2 + data[at + 1] > len(data):
            raise Malformed("a DHCP option beyond the end")
        found.setdefault(data[at], bytes(data[at + 2 : at + 2 + data[at + 1]]))
        at += 2 + data[at + 1]
    return found


class DhcpServer:
    """See the module. `leases`: hardware address to address, the oldest first."""

    def __init__(self, net: UserNet) -> None:
        self.net = net
        self.leases: dict[bytes, bytes] = {}
        self._declined: set[bytes] = set()

    def _pool(self) -> range:
        options_ = self.net.options
        last = options_.network | ~options_.mask & 0xFFFF_FFFF
        first = int.from_bytes(options_.first, "big")
        return range(first, min(last, first + LEASES))

    def _free(self, address: bytes, client: bytes) -> bool:
        taken = {lease for hardware, lease in self.leases.items() if hardware != client}
        reserved = {self.net.options.gateway, self.net.options.dns}
        return (
            int.from_bytes(address, "big") in self._pool() and address not in taken | reserved | self._declined
        )  # fmt: skip

    def _choose(self, client: bytes, wanted: bytes | None) -> bytes | None:
        for address in (self.leases.get(client), wanted):
            if address is not None and self._free(address, client):
                return address
        for number in self._pool():
            if self._free(number.to_bytes(4, "big"), client):
                return number.to_bytes(4, "big")
        if self.leases:
            return self.leases.pop(next(iter(self.leases)))
        self._declined.clear()
        return None

    def receive(self, message: memoryview) -> None:
        """A datagram to the server's port."""
        if len(message) < FIXED.size:
            raise Malformed("a short DHCP message")
        op, kind, length, _, xid, _, flags, ciaddr, _, _, _, chaddr = FIXED.unpack_from(message)
        if op != BOOTREQUEST or kind != 1 or length != 6:
            raise Malformed("a DHCP message that is no request from Ethernet")
        given = options(message[FIXED.size + 4 :]) if message[FIXED.size : FIXED.size + 4] == COOKIE else {}
        client = chaddr[:6]
        what = given.get(TYPE, b"\0")[:1]
        gateway = self.net.options.gateway
        if given.get(SERVER_ID, gateway) != gateway:
            return  # the client has chosen another server
        wanted = given.get(REQUESTED) or (ciaddr if ciaddr != NOBODY else None)
        if wanted is not None and len(wanted) != 4:
            raise Malformed("a DHCP option of a wrong length")
        reply, address = NAK, NOBODY
        match what[0] if what else 0:
            case 1:
                chosen = self._choose(client, wanted)
                if chosen is None:
                    return
                self.leases[client] = chosen
                reply, address = OFFER, chosen
            case 0:
                chosen = self._choose(client, None)
                if chosen is None:
                    return
                self.leases[client] = chosen
                reply, address = 0, chosen
            case 3:
                asked = wanted or self.leases.get(client)
                if asked is not None and self._free(asked, client):
                    self.leases.pop(client, None)
                    while len(self.leases) >= LEASES:
                        del self.leases[next(iter(self.leases))]
                    self.leases[client] = asked
                    reply, address = ACK, asked
            case 4:
                if (lost := self.leases.pop(client, None)) is not None and len(self._declined) < LEASES:
                    self._declined.add(lost)
                return
            case 7:
                self.leases.pop(client, None)
                return
            case 8:
                reply = ACK
            case _:
                raise Malformed("a DHCP message of an unknown type")
        self._answer(reply, address, (xid, flags, ciaddr, chaddr))

    def _answer(self, kind: int, address: bytes, request: tuple[int, int, bytes, bytes]) -> None:
        xid, flags, ciaddr, chaddr = request
        net = self.net.options
        body = b""
        if kind:
            body += bytes((TYPE, 1, kind, SERVER_ID, 4)) + net.gateway
        if kind != NAK:
            body += bytes((MASK, 4)) + net.mask.to_bytes(4, "big")
            if not net.restrict:
                body += bytes((ROUTER, 4)) + net.gateway + bytes((DNS, 4)) + net.dns
            if address != NOBODY:
                body += struct.pack(">BBI", LEASE, 4, SECONDS)
        data = FIXED.pack(
            BOOTREPLY, 1, 6, 0, xid, 0, flags, ciaddr if kind != NAK else NOBODY, address, net.gateway, NOBODY, chaddr
        ) + COOKIE + body + bytes((END,))  # fmt: skip
        data += bytes(max(300 - len(data), 0))  # the least that relays and old clients take
        renewal = ciaddr != NOBODY and kind != NAK
        target = ciaddr if renewal else EVERYBODY
        datagram = udp(net.gateway, target, (SERVER, CLIENT), data)
        self.net.give_ip(net.gateway, target, UDP, datagram, chaddr[:6] if renewal else BROADCAST)
