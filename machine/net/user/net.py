"""The back end `user`: what comes from the guest is looked at here and goes to its protocol."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from dbt.machine.clock import SECOND
from dbt.machine.net.backend import NetBackend
from dbt.machine.net.loop import Loop
from dbt.machine.net.offload import CSUM, ECN, IPV4, IPV6, TSO4, TSO6, UFO, Buffer, Offload
from dbt.machine.net.user.arp import Arp, our_mac
from dbt.machine.net.user.dhcp import SERVER, DhcpServer
from dbt.machine.net.user.forward import TcpForward, bind_all
from dbt.machine.net.user.fragments import Reassembly
from dbt.machine.net.user.hosts import Hosts
from dbt.machine.net.user.icmp import Icmp
from dbt.machine.net.user.ndp import Ndp
from dbt.machine.net.user.options import UserOptions
from dbt.machine.net.user.packets import (
    ARP,
    BROADCAST,
    ETHER,
    EVERYBODY,
    ICMP,
    ICMP6,
    MORE,
    NOBODY,
    NOBODY6,
    OFFSET,
    PROTOCOL,
    TCP,
    TIME_EXCEEDED,
    UDP,
    UNREACHABLE,
    Malformed,
    Packet,
    ether,
    kind_of,
    packets,
    parse,
    parse6,
)
from dbt.machine.net.user.tcp import TcpNat
from dbt.machine.net.user.udp import Flow, UdpNat

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from dbt.machine.clock import Clock
    from dbt.machine.net.user.endpoint import Endpoint

MTU = 1500
WAITING = 256  # frames for a guest that has no buffers; TCP's data waits elsewhere
ENDPOINTS = 4  # that send at once, under the lock
SWEEP = 10 * SECOND
OURS = {b"\x52\x55", b"\x52\x56", b"\x33\x33"}  # the first bytes of our hardware addresses, and IPv6's multicast


class UserNet(NetBackend):
    """`lock` is the machine's. `counts`: what was dropped, by reason. `ports`: the host's ports of the forwards."""

    KIND = "user"
    offers = CSUM | TSO4 | TSO6 | ECN | UFO

    def __init__(
        self, lock: AbstractContextManager[object], options: UserOptions | None = None, clock: Clock | None = None
    ) -> None:
        super().__init__()
        self.options = options or UserOptions()
        sockets = bind_all(self.options.forwards)
        self.ports = [sock.getsockname()[1] for _, sock in sockets]
        self.counts: Counter[str] = Counter()
        self.hosts = Hosts(self.options)
        self.loop = Loop(lock, clock, "user network")
        self.arp = Arp(self)
        self.dhcp = DhcpServer(self)
        self.ndp = Ndp(self)
        self.icmp = Icmp(self)
        self.udp = UdpNat(self)
        self.tcp = TcpNat(self)
        self.stopped: dict[Flow, None] = {}  # whoever waits for room at the guest
        self.blocked: dict[Endpoint, None] = {}
        self._stalled = False  # the guest has no room
        self._forwards: list[TcpForward] = []
        self._fragments = Reassembly(self.loop.clock)
        self._queue: deque[tuple[bytes, Offload | None]] = deque()
        self._identity = 0
        with lock:
            self._pump = self.loop.timer(self._go_on)
            self._sweep = self.loop.timer(self._tidy)
            self.loop.after(self._sweep, SWEEP)
            for forward, sock in sockets:
                if forward.protocol == "tcp":
                    self._forwards.append(TcpForward(self, sock, forward))
                else:
                    guest = (forward.guest or self.options.first, forward.guest_port)
                    self.udp.add(guest, sock, forwarded=True)

    def close(self) -> None:
        """End the thread, close all sockets. Not under the machine's lock."""
        self.loop.close()
        with self.loop.lock:
            self.device = None
            for forward in self._forwards:
                forward.listener.close()
            for connection in list(self.tcp.connections.values()):
                connection.abort()
            for flow in list(self.udp.flows.values()):
                self.udp.close(flow)
            for ping in list(self.icmp.flows.values()):
                self.icmp.close(ping)

    def count(self, reason: str) -> None:
        """Something was dropped; reasons are few."""
        self.counts[reason] += 1

    def is_ours(self, address: bytes) -> bool:
        """Whether an address is the gateway's or the name server's."""
        options = self.options
        return address in {options.gateway, options.dns} if len(address) == 4 else self.ndp.ours(address)

    def is_guest(self, address: bytes) -> bool:
        """Whether a guest may have this address."""
        if len(address) == 16:
            return self.hosts.local(address) and not self.is_ours(address)
        number = int.from_bytes(address, "big") & ~self.options.mask & 0xFFFF_FFFF
        everybody = ~self.options.mask & 0xFFFF_FFFF
        return self.hosts.local(address) and not self.is_ours(address) and number not in {0, everybody}

    def router_mac(self, address: bytes) -> bytes:
        """The router's hardware address for guests with such addresses."""
        return our_mac(self.options.gateway if len(address) == 4 else self.options.gateway6)

    # From the guest

    def put(self, frame: Buffer, offload: Offload | None = None) -> bool:
        """A frame of the guest's; it never has to wait."""
        if self.loop.closed:
            return True
        data = memoryview(bytes(frame))  # a copy: the guest may change its own
        try:
            self._frame(data, checked=offload is not None and (offload.needs_csum or offload.data_valid))
        except Malformed as wrong:
            self.count(str(wrong))
            if self.device is not None:
                self.device.guest_error(f"sends {wrong}")
        return True

    def _frame(self, data: memoryview, *, checked: bool) -> None:
        if len(data) < 14:
            raise Malformed("a frame of less than 14 bytes")
        target, source, kind = ETHER.unpack_from(data)
        if target != BROADCAST and target[:2] not in OURS:
            return  # somebody else's, or multicast of IPv4
        if kind == IPV6 and self.options.ipv6:
            self._packet6(parse6(data[14:], checked=checked), source)
        elif kind == IPV4:
            self._packet(parse(data[14:], checked=checked), source)
        elif kind == ARP:
            self.arp.receive(data[14:])

    def _whole(self, fragment: Packet, mac: bytes, nobody: bytes) -> Packet | None:
        """The packet that this is, or the last fragment of; None while there are more to come."""
        if self.is_guest(fragment.source):
            self.arp.learn(fragment.source, mac)
        elif fragment.source != nobody:
            raise Malformed("a packet from an address of another network")
        return self._fragments.add(fragment) if fragment.fragment & (MORE | OFFSET) else fragment

    def _packet(self, fragment: Packet, mac: bytes) -> None:
        packet = self._whole(fragment, mac, NOBODY)
        if packet is None:
            return
        if packet.protocol == UDP and packet.target in {EVERYBODY, self.options.gateway}:
            _, port, data = self.udp.read(packet)
            if port == SERVER:
                self.dhcp.receive(data)
                return
        if packet.source != NOBODY:
            self._dispatch(packet)

    def _packet6(self, fragment: Packet, mac: bytes) -> None:
        packet = self._whole(fragment, mac, NOBODY6)
        if packet is None:
            return
        if packet.protocol == ICMP6 and (self.ndp.receive(packet, mac) or packet.source == NOBODY6):
            return
        if packet.source != NOBODY6 and packet.target[0] != 0xFF:
            self._dispatch(packet)

    def _dispatch(self, packet: Packet) -> None:
        if packet.ttl <= 1 and not self.is_ours(packet.target):
            self.icmp.error(packet, TIME_EXCEEDED, 0)
        elif packet.protocol == TCP:
            self.tcp.receive(packet)
        elif packet.protocol == UDP:
            self.udp.receive(packet)
        elif packet.protocol == ICMP and len(packet.source) == 4:
            self.icmp.receive(packet)
        elif packet.protocol == ICMP6 and len(packet.source) == 16:
            self.icmp.receive6(packet)
        elif not self.options.restrict:
            self.icmp.error(packet, UNREACHABLE, PROTOCOL)

    # To the guest

    @property
    def full(self) -> bool:
        """Whether the guest has no room now."""
        return bool(self._queue)

    def give(self, frame: bytes, offload: Offload | None = None) -> bool:
        """A frame for the guest, which may have to wait; whether it was not lost."""
        if self._queue or not self.offer(frame, offload):
            if len(self._queue) == WAITING:
                self.count("the guest takes no frames")
                return False
            self._queue.append((frame, offload))
        return True

    def give_ip(self, source: bytes, target: bytes, protocol: int, payload: bytes, mac: bytes | None = None) -> None:
        """A packet for a guest, in fragments if it has to be."""
        self._identity = self._identity + 1 & 0xFFFF
        mac = mac or self.arp.table.get(target)
        ours, kind = self.router_mac(target), kind_of(target)
        for packet in packets(source, target, protocol, payload, self._identity, MTU):
            if mac is None:
                self.arp.ask(target, packet)
            else:
                self.give(ether(mac, ours, kind) + packet)

    def give_data(self, frame: bytes, offload: Offload | None) -> bool:
        """A frame that its sender keeps if the guest has no room."""
        return not self._queue and self.offer(frame, offload)

    def later(self, endpoint: Endpoint, *, soon: bool) -> None:
        """Let an endpoint go on when the guest has room; or soon, after whoever else wants the lock."""
        self.blocked[endpoint] = None
        if soon:
            self.loop.after(self._pump, 0)
        else:
            self._stalled = True

    def resume(self) -> None:
        """The guest has buffers."""
        if not self.deliver():
            return
        while self._queue:
            if not self.offer(*self._queue[0]):
                return
            self._queue.popleft()
        if self.stopped:
            flows, self.stopped = self.stopped, {}
            for flow in flows:
                self.udp.go_on(flow)
        self._stalled = False
        if self.blocked:
            self._go_on()

    def _go_on(self) -> None:
        """Let some endpoints go on, and the others soon, if the guest has room."""
        for endpoint in list(self.blocked)[:ENDPOINTS]:
            if self._stalled:
                return
            self.blocked.pop(endpoint, None)
            endpoint.output()
        if self.blocked and not self._stalled:
            self.loop.after(self._pump, 0)

    def _tidy(self) -> None:
        now = self.loop.clock.now
        self.udp.sweep(now)
        self.icmp.sweep(now)
        self.tcp.sweep(now)
        self.ndp.again(now)
        self.loop.after(self._sweep, SWEEP)
