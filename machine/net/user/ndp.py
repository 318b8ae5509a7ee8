"""Neighbour discovery of IPv6 (RFC 4861) and addresses without a server (RFC 4862), with the name server (RFC 8106).

Addresses are QEMU's: the router is fe80::2 and ::2 of the prefix, the name server ::3. Router advertisements answer
solicitations and come every ten minutes to guests that have spoken IPv6.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from dbt.machine.clock import SECOND
from dbt.machine.net.offload import IPV6, ones_sum
from dbt.machine.net.user.arp import our_mac
from dbt.machine.net.user.packets import ICMP6, NOBODY6, Malformed, Packet, ether, icmp6, ip_header

if TYPE_CHECKING:
    from dbt.machine.net.user.net import UserNet

ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT, SOLICITATION, ADVERTISEMENT = 133, 134, 135, 136
SOURCE_LINK, TARGET_LINK, PREFIX, MTU_OPTION, DNS_OPTION = 1, 2, 3, 5, 25
LINK_LOCAL = bytes.fromhex("fe800000000000000000000000000002")
EVERYBODY6 = bytes.fromhex("ff020000000000000000000000000001")
ROUTER, SOLICITED, OVERRIDE = 1 << 31, 1 << 30, 1 << 29
LIFETIME, VALID, PREFERRED, DNS_LIFETIME = 1800, 86400, 14400, 1200  # seconds
EVERY = 600 * SECOND


class Ndp:
    """See the module."""

    def __init__(self, net: UserNet) -> None:
        self.net = net
        self._last: int | None = None  # when a router advertisement was sent

    def ours(self, address: bytes) -> bool:
        """Whether an address is one of this router's."""
        return address in {self.net.options.gateway6, self.net.options.dns6, LINK_LOCAL}

    def receive(self, packet: Packet, mac: bytes) -> bool:
        """A message of ICMPv6; whether it was one of these."""
        message = packet.payload
        if len(message) < 8:
            raise Malformed("a short ICMPv6 message")
        if ones_sum(message, ones_sum(packet.source + packet.target) + ICMP6 + len(message)) != 0xFFFF:
            raise Malformed("a wrong ICMPv6 checksum")
        kind = message[0]
        if not ROUTER_SOLICITATION <= kind <= ADVERTISEMENT:
            return False
        if packet.ttl != 255 or message[1]:
            raise Malformed("neighbour discovery from another network")
        if kind == ROUTER_SOLICITATION:
            self.advertise(packet.source if packet.source != NOBODY6 else EVERYBODY6)
        elif len(message) < 24:
            raise Malformed("a short message of neighbour discovery")
        elif kind == SOLICITATION:
            self._answer(packet.source, bytes(message[8:24]), mac)
        return True  # who advertises was learned by the packet's addresses

    def _answer(self, source: bytes, target: bytes, mac: bytes) -> None:
        if not self.ours(target):
            return
        flags = ROUTER | OVERRIDE | (SOLICITED if source != NOBODY6 else 0)
        if target == self.net.options.dns6:
            flags &= ~ROUTER
        link = bytes((TARGET_LINK, 1)) + our_mac(target)
        to = source if source != NOBODY6 else EVERYBODY6
        self._send(target, to, (ADVERTISEMENT, 0, flags), target + link, mac if source != NOBODY6 else None)

    def solicit(self, address: bytes) -> None:
        """Ask where a guest is."""
        group = bytes.fromhex("ff0200000000000000000001ff") + address[13:]
        ours = self.net.options.gateway6
        self._send(ours, group, (SOLICITATION, 0, 0), address + bytes((SOURCE_LINK, 1)) + our_mac(ours))

    def advertise(self, target: bytes) -> None:
        """Say what network this is; a restricted one has no router and no name server."""
        self._last = self.net.loop.clock.now
        options = self.net.options
        lifetime = 0 if options.restrict else LIFETIME
        data = bytes(8) + bytes((SOURCE_LINK, 1)) + our_mac(LINK_LOCAL)
        data += struct.pack(">BBBBIII8s8x", PREFIX, 4, 64, 0xC0, VALID, PREFERRED, 0, options.prefix)
        if not options.restrict:
            data += struct.pack(">BBHI16s", DNS_OPTION, 3, 0, DNS_LIFETIME, options.dns6)
        self._send(LINK_LOCAL, target, (ROUTER_ADVERTISEMENT, 0, 64 << 24 | lifetime), data)

    def again(self, now: int) -> None:
        """Advertise from time to time, once somebody wants it."""
        if self._last is not None and now - self._last >= EVERY:
            self.advertise(EVERYBODY6)

    def _send(
        self, source: bytes, target: bytes, head: tuple[int, int, int], data: bytes, mac: bytes | None = None
    ) -> None:
        message = icmp6(source, target, head, data)
        if mac is None:
            mac = b"\x33\x33" + target[12:] if target[0] == 0xFF else self.net.arp.table.get(target)
        if mac is not None:
            packet = ip_header(source, target, ICMP6, len(message), ttl=255) + message
            self.net.give(ether(mac, our_mac(source), IPV6) + packet)
