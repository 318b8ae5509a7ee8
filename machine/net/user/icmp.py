"""ICMP (RFC 792, 4443): echo of our own addresses, echo of others by the host's ping sockets, and errors.

Ping sockets need no rights where net.ipv4.ping_group_range allows them; where it does not the guest is told that the
network cannot be reached.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from dbt.machine.clock import SECOND
from dbt.machine.net.loop import IN
from dbt.machine.net.offload import ones_sum
from dbt.machine.net.user.packets import (
    ECHO,
    ECHO_REPLY,
    HOST,
    ICMP,
    ICMP6,
    NET,
    NOBODY6,
    OFFSET,
    PORT,
    PROHIBITED,
    PROTOCOL,
    TIME_EXCEEDED,
    UNREACHABLE,
    Malformed,
    Packet,
    icmp,
    icmp6,
)

if TYPE_CHECKING:
    from dbt.machine.net.user.net import UserNet

ECHO6, ECHO_REPLY6 = 128, 129
CODES6 = {  # what IPv6 calls what happened
    (UNREACHABLE, NET): (1, 0, 0), (UNREACHABLE, PROHIBITED): (1, 1, 0), (UNREACHABLE, HOST): (1, 3, 0),
    (UNREACHABLE, PORT): (1, 4, 0), (TIME_EXCEEDED, 0): (3, 0, 0),
    (UNREACHABLE, PROTOCOL): (4, 1, 6),  # where its number is in the header
}  # fmt: skip
QUOTE6 = 1280 - 48
FLOWS, IDLE = 32, 30 * SECOND
READS = 16  # at once, under the lock


class _Flow:
    """The echoes of one guest with one identifier."""

    __slots__ = ("guest", "identity", "last", "peers", "sock")

    def __init__(self, guest: bytes, identity: int, sock: socket.socket) -> None:
        self.guest = guest
        self.identity = identity
        self.sock = sock
        self.last = 0
        self.peers: dict[str, bytes] = {}  # what the guest called them


class Icmp:
    """See the module."""

    def __init__(self, net: UserNet) -> None:
        self.net = net
        self.flows: dict[tuple[bytes, int], _Flow] = {}

    def error(self, packet: Packet, kind: int, code: int) -> None:
        """Tell a guest what became of a packet of its own (RFC 1122, 3.2.2: not of all)."""
        if packet.fragment & OFFSET:
            return
        if len(packet.source) == 16:
            self._error6(packet, kind, code)
            return
        if packet.target[0] >= 224 or (packet.protocol == ICMP and kind != UNREACHABLE):
            return
        quote = packet.header + bytes(packet.payload[:8])
        self.net.give_ip(self.net.options.gateway, packet.source, ICMP, icmp(kind, code, 0, quote))

    def _error6(self, packet: Packet, kind: int, code: int) -> None:
        if packet.target[0] == 0xFF or packet.source == NOBODY6:
            return
        head = CODES6.get((kind, code), (1, 0, 0))
        quote = (packet.header + bytes(packet.payload))[:QUOTE6]
        source = self.net.options.gateway6
        self.net.give_ip(source, packet.source, ICMP6, icmp6(source, packet.source, head, quote))

    def receive6(self, packet: Packet) -> None:
        """The same for IPv6; the checksum was looked at."""
        message = packet.payload
        if message[0] != ECHO6 or message[1]:
            return
        rest = struct.unpack_from(">I", message, 4)[0]
        if self.net.ndp.ours(packet.target):
            answer = icmp6(packet.target, packet.source, (ECHO_REPLY6, 0, rest), message[8:])
            self.net.give_ip(packet.target, packet.source, ICMP6, answer)
        elif not self.net.options.restrict:
            self._forward(packet, rest)

    def receive(self, packet: Packet) -> None:
        """A message of a guest's. Only echoes mean anything here."""
        message = packet.payload
        if len(message) < 8:
            raise Malformed("a short ICMP message")
        if ones_sum(message) != 0xFFFF:
            raise Malformed("a wrong ICMP checksum")
        if message[0] != ECHO or message[1]:
            return
        rest = struct.unpack_from(">I", message, 4)[0]
        options = self.net.options
        if packet.target in {options.gateway, options.dns}:
            self.net.give_ip(packet.target, packet.source, ICMP, icmp(ECHO_REPLY, 0, rest, message[8:]))
        elif not options.restrict:
            self._forward(packet, rest)

    def _forward(self, packet: Packet, rest: int) -> None:
        host = self.net.hosts.of_guest(packet.target, 0)
        flow = self._flow(packet.source, rest >> 16) if host else None
        if host is None or flow is None:
            self.error(packet, UNREACHABLE, NET)
            return
        flow.last = self.net.loop.clock.now
        if len(flow.peers) >= FLOWS:
            flow.peers.clear()
        flow.peers[host[0]] = packet.target
        try:
            flow.sock.sendto(packet.payload, (host[0], 0))
        except BlockingIOError:
            return
        except OSError:
            self.error(packet, UNREACHABLE, HOST)

    def _flow(self, guest: bytes, identity: int) -> _Flow | None:
        flow = self.flows.get((guest, identity))
        if flow is not None:
            return flow
        kind = (socket.AF_INET, socket.IPPROTO_ICMP) if len(guest) == 4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
        try:
            sock = socket.socket(kind[0], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, kind[1])
        except OSError as error:
            self.net.count(f"no ping sockets: {error.strerror}")
            return None
        if len(self.flows) >= FLOWS:
            self.close(next(iter(self.flows.values())))
        flow = self.flows[guest, identity] = _Flow(guest, identity, sock)
        self.net.loop.watch(sock.fileno(), IN, lambda _: self._readable(flow))
        return flow

    def _readable(self, flow: _Flow) -> None:
        for _ in range(READS):
            try:
                message, (host, *_) = flow.sock.recvfrom(65536)
            except OSError:  # nothing more, or an error of the network that a ping would not show either
                return
            seen = flow.peers.get(host)
            if seen is None or len(message) < 8 or message[0] not in {ECHO_REPLY, ECHO_REPLY6}:
                continue
            rest = flow.identity << 16 | struct.unpack_from(">H", message, 6)[0]
            if len(seen) == 4:
                self.net.give_ip(seen, flow.guest, ICMP, icmp(ECHO_REPLY, 0, rest, message[8:]))
            else:
                answer = icmp6(seen, flow.guest, (ECHO_REPLY6, 0, rest), message[8:])
                self.net.give_ip(seen, flow.guest, ICMP6, answer)

    def close(self, flow: _Flow) -> None:
        """Forget a flow."""
        self.flows.pop((flow.guest, flow.identity), None)
        self.net.loop.forget(flow.sock.fileno())
        flow.sock.close()

    def sweep(self, now: int) -> None:
        """Close what is idle."""
        for flow in list(self.flows.values()):
            if now - flow.last > IDLE:
                self.close(flow)
