"""ARP (RFC 826): answers for the addresses that are ours; and where guests are, by IPv4 and IPv6 (`ndp.py`)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from dbt.machine.clock import SECOND
from dbt.machine.net.user.packets import ARP, BROADCAST, Malformed, ether, kind_of

if TYPE_CHECKING:
    from dbt.machine.net.user.net import UserNet

MESSAGE = struct.Struct(">HHBBH6s4s6s4s")
REQUEST, REPLY = 1, 2
KIND = (1, 0x0800, 6, 4)
KNOWN, ASKED, WAITING = 256, 16, 8  # guests, guests that are asked for, packets that wait for one


def our_mac(address: bytes) -> bytes:
    """The hardware address of one of ours, as QEMU has them."""
    return b"\x52\x55" + address if len(address) == 4 else b"\x52\x56" + address[12:]


class Arp:
    """`table`: guests' addresses to hardware addresses."""

    def __init__(self, net: UserNet) -> None:
        self.net = net
        self.table: dict[bytes, bytes] = {}
        self._waiting: dict[bytes, tuple[int, list[bytes]]] = {}  # since when asked, packets

    def receive(self, message: memoryview) -> None:
        """A request or a reply."""
        if len(message) < MESSAGE.size:
            raise Malformed("a short ARP message")
        *kind, operation, mac, sender, _, target = MESSAGE.unpack_from(message)
        if tuple(kind) != KIND or operation not in {REQUEST, REPLY}:
            raise Malformed("an ARP message that is not IPv4 on Ethernet")
        options = self.net.options
        self.learn(sender, mac)
        if operation == REQUEST and target in {options.gateway, options.dns} and sender != target:
            ours = our_mac(target)
            self.net.give(ether(mac, ours, ARP) + MESSAGE.pack(*KIND, REPLY, ours, target, mac, sender))

    def learn(self, address: bytes, mac: bytes) -> None:
        """A guest is there; what waits for it goes on."""
        if self.table.get(address) != mac:
            if mac[0] & 1 or not self.net.is_guest(address):
                return
            self.table.pop(address, None)
            if len(self.table) >= KNOWN:
                del self.table[next(iter(self.table))]
            self.table[address] = mac
        if self._waiting and (waiting := self._waiting.pop(address, None)):
            for packet in waiting[1]:
                self.net.give(ether(mac, self.net.router_mac(address), kind_of(address)) + packet)

    def ask(self, address: bytes, packet: bytes) -> None:
        """Keep a packet for a guest, and ask where the guest is, once a second."""
        now = self.net.loop.clock.now
        since, packets = self._waiting.get(address, (-SECOND, []))
        if len(packets) == WAITING:
            packets.pop(0)
        packets.append(packet)
        if now - since >= SECOND:
            since = now
            if len(address) == 16:
                self.net.ndp.solicit(address)
            else:
                self._request(address)
        if address not in self._waiting and len(self._waiting) >= ASKED:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[address] = (since, packets)

    def _request(self, address: bytes) -> None:
        ours = self.net.options.gateway
        message = MESSAGE.pack(*KIND, REQUEST, our_mac(ours), ours, bytes(6), address)
        self.net.give(ether(BROADCAST, our_mac(ours), ARP) + message)
