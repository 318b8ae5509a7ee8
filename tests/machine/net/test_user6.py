"""IPv6 on the user-mode network: discovery, echo, UDP, TCP's refusals, names; the rest is in kernel_guest.py."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from random import Random

import pytest
from dbt.machine.clock import SECOND, Clock
from dbt.machine.net.errors import NetError
from dbt.machine.net.offload import Offload
from dbt.machine.net.user.hosts import Hosts
from dbt.machine.net.user.net import UserNet
from dbt.machine.net.user.options import make_options

from tests.machine.net.guest import Card, Guest
from tests.machine.net.guest6 import (
    ALL_ROUTERS,
    DNS6,
    GATEWAY6,
    ICMP6,
    LINK_LOCAL,
    PREFIX,
    ROUTER,
    SELF6,
    icmp6,
    nd_options,
    packet6,
    send6,
    solicitation,
    tcp6,
    udp6,
    wait6,
)
from tests.machine.net.test_user import Make, make  # noqa: F401, TC001 - a fixture

ANYBODY = bytes(16)
MAC = b"\x52\x54\0\x12\x34\x56"


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", 0))
        sock.settimeout(30)
        yield sock


def test_discovery(make: Make) -> None:  # noqa: F811
    _, guest = make()
    send6(guest, icmp6(LINK_LOCAL, ALL_ROUTERS, 133, bytes(4) + b"\1\1" + MAC))
    source, target, message = wait6(guest, ICMP6, 134)
    assert (source, target) == (ROUTER, LINK_LOCAL)
    options = nd_options(message[16:])
    assert int.from_bytes(message[6:8], "big") == 1800
    assert (options[3][:2], options[3][-16:]) == (b"\x40\xc0", PREFIX + bytes(8))
    assert options[25][-16:] == DNS6
    assert options[1] == b"\x52\x56\0\0\0\2"
    for address in (GATEWAY6, DNS6, ROUTER):
        send6(guest, solicitation(address))
        source, target, message = wait6(guest, ICMP6, 136)
        assert (source, target, message[8:24]) == (address, SELF6, address)
        assert nd_options(message[24:])[2] == b"\x52\x56" + address[12:]
        assert message[4] == (0xE0 if address != DNS6 else 0x60)
    send6(guest, solicitation(GATEWAY6, ANYBODY))  # is the address free? No.
    assert wait6(guest, ICMP6, 136)[1] == bytes.fromhex("ff020000000000000000000000000001")
    send6(guest, solicitation(SELF6[:15] + b"\x99", ANYBODY))
    send6(guest, icmp6(LINK_LOCAL, ALL_ROUTERS, 133, bytes(4), hops=64))  # from another network
    assert guest.nothing()


def test_restricted_and_without(make: Make) -> None:  # noqa: F811
    _, guest = make(restrict=True)
    send6(guest, icmp6(LINK_LOCAL, ALL_ROUTERS, 133, bytes(4)))
    message = wait6(guest, ICMP6, 134)[2]
    assert message[6:8] == b"\0\0"
    assert 25 not in nd_options(message[16:])
    send6(guest, udp6((SELF6, 1), (GATEWAY6, 1), b""))
    assert guest.nothing()
    _, guest = make(ipv6=False)
    send6(guest, solicitation(GATEWAY6))
    assert guest.nothing()
    _, guest = make(ipv6net="2001:db8:1:2::/64")
    send6(guest, icmp6(LINK_LOCAL, ALL_ROUTERS, 133, bytes(4)))
    assert nd_options(wait6(guest, ICMP6, 134)[2][16:])[3][-16:-8] == bytes.fromhex("20010db800010002")
    for wrong in ("2001:db8::/48", "10.0.0.0/8", "x"):
        with pytest.raises(NetError):
            make_options(ipv6net=wrong)


def test_advertisements_come_again(make: Make) -> None:  # noqa: F811
    clock = Clock()
    net, guest = make(clock=clock)
    for seconds, wanted in ((700, False), (700, True)):
        if wanted:
            send6(guest, icmp6(LINK_LOCAL, ALL_ROUTERS, 133, bytes(4)))
            wait6(guest, ICMP6, 134)
        with net.loop.lock:
            clock.advance(seconds * SECOND)
        assert guest.nothing(0.001) != wanted
    guest.frames.clear()


def test_echo_and_udp(make: Make, server: socket.socket) -> None:  # noqa: F811
    _, guest = make(loopback=True)
    send6(guest, icmp6(SELF6, GATEWAY6, 128, b"\1\2\0\1ping"))
    source, target, message = wait6(guest, ICMP6, 129)
    assert (source, target, message[4:]) == (GATEWAY6, SELF6, b"\1\2\0\1ping")
    port = server.getsockname()[1]
    for data in (b"", b"hello", bytes(1400)):
        send6(guest, udp6((SELF6, 1234), (GATEWAY6, port), data))
        got, peer, *_ = server.recvfrom(65536)
        assert got == data
        server.sendto(data + b"!", peer)
        assert wait6(guest, 17)[2][8:] == data + b"!"
    server.close()
    send6(guest, udp6((SELF6, 1234), (GATEWAY6, port), b"anybody?"))
    source, target, message = wait6(guest, ICMP6, 1)
    assert (source, target, message[1]) == (GATEWAY6, SELF6, 4)
    assert message[16:24] == udp6((SELF6, 1234), (GATEWAY6, port), b"anybody?")[8:16]
    send6(guest, packet6(SELF6, bytes.fromhex("20010db8") + bytes(12), 99, b""))
    message = wait6(guest, ICMP6, 4)[2]
    assert (message[:2], message[4:8]) == (b"\4\1", b"\0\0\0\6")


def test_what_no_router_forwards(make: Make, server: socket.socket) -> None:  # noqa: F811
    net, guest = make(loopback=True)
    port = server.getsockname()[1]
    for text in (
        "::1", "::", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "fe80::1", "ff02::1", "fec0::99",
        "::7f00:1", "fec0::2",
    ):  # fmt: skip
        address = socket.inet_pton(socket.AF_INET6, text)
        assert (net.hosts.of_guest(address, port) is None) == (text != "fec0::2"), text
    assert Hosts(make_options()).of_guest(GATEWAY6, port) is None
    send6(guest, tcp6((SELF6, 1), (socket.inet_pton(socket.AF_INET6, "::1"), port), (5, 0), 2))
    assert wait6(guest, 6)[2][13] == 0x14


def test_names_over_ipv6_from_an_ipv4_server(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        resolver.bind(("127.0.0.1", 0))
        resolver.settimeout(30)
        port = resolver.getsockname()[1]
        monkeypatch.setattr("dbt.machine.net.user.hosts.DNS_PORT", port)
        _, guest = make(resolver="127.0.0.1")
        send6(guest, udp6((SELF6, 1234), (DNS6, port), b"a query"))
        query, peer = resolver.recvfrom(100)
        resolver.sendto(query + b": an answer", peer)
        source, _, payload = wait6(guest, 17)
        assert (source, payload[8:]) == (DNS6, b"a query: an answer")


def test_hostile_guests() -> None:
    """30,000 damaged packets, most of them with right checksums where that is easy."""
    random = Random(6)
    lock = threading.RLock()
    clock = Clock()
    net = UserNet(lock, make_options(loopback=True), clock)
    card = Card(net, buffers=100)
    guest = Guest.on(net, lock, card)
    good = [
        icmp6(LINK_LOCAL, ALL_ROUTERS, 133, bytes(4)), solicitation(GATEWAY6), icmp6(SELF6, GATEWAY6, 128, bytes(8)),
        icmp6(SELF6, GATEWAY6, 136, bytes(4) + SELF6), udp6((SELF6, 1), (GATEWAY6, 9), b"data"),
        tcp6((SELF6, 1), (GATEWAY6, 9), (1, 2), 2), tcp6((SELF6, 1), (GATEWAY6, 9), (1, 2), 16),
        packet6(SELF6, GATEWAY6, 0, bytes((60, 0)) + bytes(6) + bytes((17, 0)) + bytes(6) + bytes(8)),
        packet6(SELF6, GATEWAY6, 44, bytes((17, 0, 0, 1, 0, 0, 0, 1)) + bytes(16)),
        packet6(SELF6, GATEWAY6, 44, bytes((17, 0, 0, 16, 0, 0, 0, 1)) + bytes(16)),
        packet6(SELF6, GATEWAY6, 43, bytes((17, 0, 0, 0)) + bytes(12)),
    ]  # fmt: skip
    for number in range(30_000):
        packet = bytearray(random.choice(good))
        for _ in range(random.randrange(3)):
            packet[random.randrange(4, len(packet))] = random.choice((0, 1, 44, 255, random.randrange(256)))
        if not random.randrange(8):
            del packet[random.randrange(len(packet)) :]
        target = random.choice((b"\x52\x56\0\0\0\2", b"\x33\x33\0\0\0\1"))
        with lock:
            checked = Offload(True, 54, 16) if random.randrange(2) else None
            assert net.send(target + MAC + b"\x86\xdd" + packet, checked)
            if not number % 50:
                guest._poll()
            if not number % 1000:
                clock.advance(100 * SECOND)
    assert len(net.counts) < 40
    assert len(net._fragments._datagrams) <= 16
    guest.frames.clear()
    guest._poll()
    send6(guest, solicitation(GATEWAY6))
    assert wait6(guest, ICMP6, 136)
    net.close()
