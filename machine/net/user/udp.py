"""UDP (RFC 768): a socket of the host for each port of a guest (RFC 4787: endpoint-independent mapping).

What comes in from an address to which the guest has sent nothing is dropped, unless the port is forwarded. Errors that
the host's kernel learns of (IP_RECVERR) become ICMP errors for the guest.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING

from dbt.machine.clock import SECOND
from dbt.machine.net.loop import IN
from dbt.machine.net.offload import ones_sum
from dbt.machine.net.user.packets import (
    HOST,
    NET,
    PORT,
    PROHIBITED,
    TTL,
    UDP,
    UDP_HEADER,
    UNREACHABLE,
    Malformed,
    Packet,
    ip_header,
    udp,
)  # fmt: skip

if TYPE_CHECKING:
    from dbt.machine.net.user.net import UserNet

FLOWS, PEERS, READS = 256, 64, 16
IDLE = 240 * SECOND
IP_RECVERR, IPV6_RECVERR = 11, 25
EXTENDED_ERROR = struct.Struct("=IBBBxII")  # linux/errqueue.h: sock_extended_err
FROM_ICMP, FROM_ICMP6 = 2, 3
CODES6 = {0: NET, 1: PROHIBITED, 3: HOST, 4: PORT}  # of ICMPv6's Destination Unreachable
CODES = {errno.ENETUNREACH: NET, errno.EHOSTUNREACH: HOST, errno.EACCES: PROHIBITED, errno.EPERM: PROHIBITED}

RECEIVED = {(socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)}

Guest = tuple[bytes, int]
Host = tuple[str, int]


class Flow:
    """One port of a guest. `peers`: hosts to what the guest calls them; `seen`: the other way."""

    __slots__ = ("forwarded", "guest", "last", "peers", "seen", "six", "sock", "watched")

    def __init__(self, guest: Guest, sock: socket.socket, *, forwarded: bool) -> None:
        self.guest = guest
        self.sock = sock
        self.six = len(guest[0]) == 16
        self.forwarded = forwarded
        self.last = 0
        self.watched = True
        self.peers: dict[Host, Guest] = {}
        self.seen: dict[Guest, Host] = {}

    def know(self, host: Host, seen: Guest) -> None:
        """Remember a peer. The oldest is forgotten, and what else this one was called: its answers have one source."""
        other = self.peers.pop(host, None)
        if other is None and len(self.peers) >= PEERS:
            other = self.peers.pop(next(iter(self.peers)))
        if other is not None:
            del self.seen[other]
        old = self.seen.get(seen)
        if old is not None:
            self.peers.pop(old, None)
        self.peers[host] = seen
        self.seen[seen] = host


class UdpNat:
    """See the module."""

    def __init__(self, net: UserNet) -> None:
        self.net = net
        self.flows: dict[Guest, Flow] = {}

    def receive(self, packet: Packet) -> None:
        """A datagram of a guest's, to somewhere else than the DHCP server."""
        source, target, data = self.read(packet)
        flow = self.flows.get((packet.source, source))
        seen = (packet.target, target)
        host = flow.seen.get(seen) if flow else None
        if host is None:
            ours = self.net.is_ours(packet.target)
            multicast = packet.target[0] >= (224 if len(packet.target) == 4 else 255)
            if self.net.options.restrict or multicast or self.net.hosts.local(packet.target) > ours:
                return
            host = self.net.hosts.of_guest(*seen)
            if host is None:
                self.net.icmp.error(packet, UNREACHABLE, PORT if ours else NET)
                return
            flow = flow or self._open((packet.source, source))
            if flow is None:
                return
            if flow.six and ":" not in host[0]:
                host = ("::ffff:" + host[0], host[1])
            flow.know(host, seen)
        assert flow is not None
        flow.last = self.net.loop.clock.now
        self._send(flow, packet, data, host)

    @staticmethod
    def read(packet: Packet) -> tuple[int, int, memoryview]:
        """(source port, target port, data) of a packet."""
        payload = packet.payload
        if len(payload) < 8:
            raise Malformed("a short UDP header")
        source, target, length, checksum = UDP_HEADER.unpack_from(payload)
        if not 8 <= length <= len(payload):
            raise Malformed("a UDP length that contradicts the packet")
        if not checksum and len(packet.source) == 16:
            raise Malformed("a UDP datagram over IPv6 without a checksum")
        if checksum and not packet.checked:
            start = ones_sum(packet.source + packet.target) + UDP + length
            if ones_sum(payload[:length], start) != 0xFFFF:
                raise Malformed("a wrong UDP checksum")
        return source, target, payload[8:length]

    def _send(self, flow: Flow, packet: Packet, data: memoryview, host: Host) -> None:
        for _ in range(2):
            try:
                flow.sock.sendto(data, host)
            except BlockingIOError:
                self.net.count("UDP: the host has no room")
            except OSError as error:
                if error.errno == errno.ECONNREFUSED:  # of an earlier datagram: it waits in the error queue
                    self._errors(flow)
                    continue
                if error.errno in CODES:
                    self.net.icmp.error(packet, UNREACHABLE, CODES[error.errno])
                self.net.count(f"UDP: {error.strerror}")
            return

    def _open(self, guest: Guest) -> Flow | None:
        if len(self.flows) >= FLOWS:
            idle = min((flow for flow in self.flows.values() if not flow.forwarded), key=lambda f: f.last, default=None)
            if idle is None:
                return None
            self.close(idle)
        try:
            family = socket.AF_INET if len(guest[0]) == 4 else socket.AF_INET6
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            self.net.count(f"UDP: {error.strerror}")
            return None
        return self.add(guest, sock, forwarded=False)

    def add(self, guest: Guest, sock: socket.socket, *, forwarded: bool) -> Flow:
        """Serve a guest's port by a socket."""
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # the name server may have an IPv4 address
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        flow = self.flows[guest] = Flow(guest, sock, forwarded=forwarded)
        self.net.loop.watch(sock.fileno(), IN, lambda events: self._event(flow, events))
        return flow

    def _event(self, flow: Flow, events: int) -> None:
        if events & ~IN:
            self._errors(flow)
        for _ in range(READS):
            if self.net.full:  # what the guest has no room for waits in the host's kernel, or is lost there
                self._watch(flow, wanted=False)
                self.net.stopped[flow] = None
                return
            try:
                data, where = flow.sock.recvfrom(65536)
            except OSError:  # nothing more, or an error that the queue has told of
                return
            host = where[:2]
            seen = flow.peers.get(host)
            if seen is None:
                if not flow.forwarded:
                    self.net.count("UDP: from a stranger")
                    continue
                seen = (self.net.hosts.of_host(host[0]), host[1])
                flow.know(host, seen)
            flow.last = self.net.loop.clock.now
            datagram = udp(seen[0], flow.guest[0], (seen[1], flow.guest[1]), data)
            self.net.give_ip(seen[0], flow.guest[0], UDP, datagram)

    def go_on(self, flow: Flow) -> None:
        """The guest has room again."""
        if self.flows.get(flow.guest) is flow:
            self._watch(flow, wanted=True)

    def _watch(self, flow: Flow, *, wanted: bool) -> None:
        if wanted != flow.watched:
            flow.watched = wanted
            if wanted:
                self.net.loop.watch(flow.sock.fileno(), IN, lambda events: self._event(flow, events))
            else:
                self.net.loop.forget(flow.sock.fileno())

    def _errors(self, flow: Flow) -> None:
        """What became of datagrams, from the socket's error queue."""
        for _ in range(READS):
            try:
                data, ancillary, _, where = flow.sock.recvmsg(8, 512, socket.MSG_ERRQUEUE)
            except OSError:
                return
            seen = flow.peers.get(where[:2]) if where else None
            for level, kind, value in ancillary:
                if (level, kind) not in RECEIVED or seen is None:
                    continue
                _, origin, icmp_kind, code, *_ = EXTENDED_ERROR.unpack_from(value)
                if origin == FROM_ICMP6 and icmp_kind == 1:
                    origin, icmp_kind, code = FROM_ICMP, UNREACHABLE, CODES6.get(code, NET)
                if origin == FROM_ICMP and icmp_kind == UNREACHABLE:
                    ports = UDP_HEADER.pack(flow.guest[1], seen[1], 8 + len(data), 0)
                    header = ip_header(flow.guest[0], seen[0], UDP, len(ports) + len(data))
                    quoted = Packet(flow.guest[0], seen[0], UDP, TTL, 0, 0, memoryview(ports + data), header, True)
                    self.net.icmp.error(quoted, UNREACHABLE, code)

    def close(self, flow: Flow) -> None:
        """Forget a flow."""
        self.flows.pop(flow.guest, None)
        self.net.stopped.pop(flow, None)
        self.net.loop.forget(flow.sock.fileno())
        flow.sock.close()

    def sweep(self, now: int) -> None:
        """Close what is idle."""
        for flow in list(self.flows.values()):
            if not flow.forwarded and now - flow.last > IDLE:
                self.close(flow)
