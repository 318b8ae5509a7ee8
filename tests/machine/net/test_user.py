"""The user-mode network but for TCP: addresses, ARP, DHCP, ICMP, UDP, DNS, fragments, options; and hostile guests."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from dbt.machine.clock import SECOND, Clock
from dbt.machine.net.errors import NetError
from dbt.machine.net.offload import Offload
from dbt.machine.net.user import tcp, udp
from dbt.machine.net.user.fragments import DATAGRAMS
from dbt.machine.net.user.hosts import Hosts
from dbt.machine.net.user.net import UserNet
from dbt.machine.net.user.options import UserOptions, make_options, parse_forward

from tests.machine.net import guest as stack
from tests.machine.net.guest import DNS, GATEWAY, SELF, Card, Guest, packet

Make = Callable[..., tuple[UserNet, Guest]]
EVERYBODY = b"\xff" * 4


@pytest.fixture
def make() -> Iterator[Make]:
    """Networks, which are closed afterwards."""
    made: list[UserNet] = []

    def build(clock: Clock | None = None, buffers: int = 1 << 20, **options: Any) -> tuple[UserNet, Guest]:
        lock = threading.RLock()
        net = UserNet(lock, make_options(**options), clock)
        made.append(net)
        return net, Guest.on(net, lock, Card(net, 0, buffers))

    yield build
    for net in made:
        net.close()


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(30)
        yield sock


def test_arp_and_echo(make: Make) -> None:
    _, guest = make()
    assert guest.find(GATEWAY) == b"\x52\x55" + GATEWAY
    assert guest.find(DNS) == b"\x52\x55" + DNS
    guest.arp(1, SELF)  # gratuitous
    guest.arp(1, bytes((10, 0, 2, 9)))
    assert guest.nothing()
    message = b"\x08\0\0\0\x12\x34\0\1" + bytes(range(56))
    message = message[:2] + stack.internet_sum(message).to_bytes(2, "big") + message[4:]
    guest.send(packet(SELF, GATEWAY, 1, message))
    answer = guest.icmp_wait()
    assert (answer.source, answer.target) == (GATEWAY, SELF)
    assert (answer.payload[0], answer.payload[4:]) == (0, message[4:])


def test_large_echoes_are_answered_in_fragments(make: Make) -> None:
    net, guest = make()
    message = b"\x08\0\0\0\x12\x34\0\1" + Random(5).randbytes(3992)
    message = message[:2] + stack.internet_sum(message).to_bytes(2, "big") + message[4:]
    for start in range(0, 4000, 1480):
        place = start >> 3 | (0x2000 if start < 2960 else 0)
        guest.send(packet(SELF, GATEWAY, 1, message[start : start + 1480], place))
    got = b""
    for number, more in enumerate((1, 1, 0)):
        frame = guest.wait(lambda frame: frame[23] == 1)
        assert stack.internet_sum(frame[14:34]) == 0
        assert int.from_bytes(frame[20:22], "big") == more << 13 | 185 * number
        got += frame[34:]
    assert (got[0], stack.internet_sum(got), got[4:]) == (0, 0, message[4:])
    assert not net.counts


def test_answers_come_from_where_the_guest_has_asked_last(
    make: Make, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = server.getsockname()[1]
    monkeypatch.setattr("dbt.machine.net.user.hosts.DNS_PORT", port)  # so the host is both, gateway and name server
    net, guest = make(loopback=True, resolver="127.0.0.1")
    for asked in (GATEWAY, DNS, GATEWAY, DNS):
        guest.udp_send(1234, (asked, port), b"who?")
        data, peer = server.recvfrom(100)
        server.sendto(data, peer)
        assert guest.udp_wait(1234) == ((asked, port), b"who?")
    (flow,) = net.udp.flows.values()
    assert len(flow.peers) == len(flow.seen) == 1


def test_frames_after_the_end_are_lost(make: Make, server: socket.socket) -> None:
    net, guest = make(loopback=True)
    net.close()
    guest.udp_send(1234, (GATEWAY, server.getsockname()[1]), b"late")
    stack.Tcp(guest, (GATEWAY, 9)).segment(stack.SYN)
    assert (len(net.udp.flows), len(net.tcp.connections)) == (0, 0)


def test_dhcp(make: Make) -> None:
    net, guest = make()
    answer = guest.dhcp()
    assert answer["yiaddr"] == SELF
    assert (answer[54], answer[1], answer[3], answer[6]) == (GATEWAY, b"\xff\xff\xff\0", GATEWAY, DNS)
    assert answer[51] == (86400).to_bytes(4, "big")
    other = Guest(guest._transmit, guest._poll, guest.lock, bytes.fromhex("525400123457"))
    assert other.dhcp()["yiaddr"] == bytes((10, 0, 2, 16))
    guest.dhcp_send(3, ciaddr=SELF)  # a renewal, answered there
    assert guest.dhcp_answer()[53] == b"\5"
    guest.dhcp_send(3, more=bytes((50, 4, 10, 0, 2, 16)))  # the other's
    refused = guest.dhcp_answer()
    assert (refused[53], refused["yiaddr"]) == (b"\6", bytes(4))
    guest.dhcp_send(3, more=bytes((50, 4, 10, 0, 2, 15, 54, 4, 1, 2, 3, 4)))  # another server's
    guest.dhcp_send(7)
    assert guest.nothing()
    assert list(net.dhcp.leases.values()) == [bytes((10, 0, 2, 16))]
    guest.dhcp_send(1, more=bytes((50, 4, 10, 0, 2, 40)))
    assert guest.dhcp_answer()["yiaddr"] == bytes((10, 0, 2, 40))
    guest.dhcp_send(4)
    guest.dhcp_send(1)
    assert guest.dhcp_answer()["yiaddr"] == SELF
    guest.dhcp_send(8, ciaddr=bytes((10, 0, 2, 99)))
    inform = guest.dhcp_answer()
    assert (inform[53], inform["yiaddr"], 51 in inform) == (b"\5", bytes(4), False)
    guest.dhcp_send(0)  # BOOTP
    assert guest.dhcp_answer()["yiaddr"] == SELF
    for number in range(200):
        guest.mac = b"\x52\x54\0\0\1" + bytes((number,))
        guest.dhcp_send(1)
        guest.dhcp_answer()
    assert len(net.dhcp.leases) <= 64
    restricted = make(restrict=True)[1].dhcp()
    assert 3 not in restricted
    assert 6 not in restricted


def test_udp_there_and_back(make: Make, server: socket.socket) -> None:
    net, guest = make(loopback=True)
    port = server.getsockname()[1]
    peer: Any = None
    for data in (b"", b"hello", bytes(range(256)) * 5):
        guest.udp_send(1234, (GATEWAY, port), data)
        got, peer = server.recvfrom(65536)
        assert got == data
        server.sendto(data + b"!", peer)
        assert guest.udp_wait(1234) == ((GATEWAY, port), data + b"!")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.sendto(b"boo", peer)
        assert guest.nothing()
        guest.udp_send(1234, (GATEWAY, stranger.getsockname()[1]), b"you")  # from the same port of the host
        assert stranger.recvfrom(100)[1] == peer
    assert net.counts["UDP: from a stranger"] == 1


def test_large_datagrams_are_in_fragments(make: Make, server: socket.socket) -> None:
    _, guest = make(loopback=True)
    data = Random(1).randbytes(5000)
    whole = stack.udp((SELF, 1234), (GATEWAY, server.getsockname()[1]), data)[20:]
    pieces = [(at, whole[at : at + 1480]) for at in range(0, len(whole), 1480)]
    Random(2).shuffle(pieces)
    for at, piece in pieces:
        more = 0x2000 if at + 1480 < len(whole) else 0
        guest.send(packet(SELF, GATEWAY, 17, piece, at >> 3 | more, 77))
    got, peer = server.recvfrom(65536)
    assert got == data
    server.sendto(data, peer)
    datagram = bytearray()
    while len(datagram) < 5008:
        frame = guest.wait(lambda f: f[23] == 17)
        assert len(frame) <= 1514
        place = struct.unpack_from(">H", frame, 20)[0]
        assert (place & 0x1FFF) * 8 == len(datagram)
        datagram += frame[34:]
    assert datagram[8:] == data


def test_errors_of_the_host_become_icmp(make: Make, server: socket.socket) -> None:
    _, guest = make(loopback=True)
    port = server.getsockname()[1]
    server.close()
    guest.udp_send(1234, (GATEWAY, port), b"anybody?")
    error = guest.icmp_wait()
    assert (error.payload[:2], error.source) == (b"\3\3", GATEWAY)
    quoted = error.payload[8:]
    assert (quoted[12:20], quoted[20:24]) == (SELF + GATEWAY, struct.pack(">HH", 1234, port))
    assert stack.internet_sum(quoted[:20]) == 0
    guest.udp_send(1234, (bytes((127, 0, 0, 1)), port), b"")
    assert guest.icmp_wait().payload[:2] == b"\3\0"
    guest.udp_send(1234, (bytes((10, 0, 2, 255)), port), b"")
    guest.send(packet(SELF, bytes((192, 0, 2, 1)), 99, b"?"))
    assert guest.icmp_wait().payload[:2] == b"\3\2"
    far = bytearray(stack.udp((SELF, 1), (bytes((192, 0, 2, 1)), 33434), b""))
    far[8], far[10:12] = 1, b"\0\0"
    far[10:12] = stack.internet_sum(bytes(far[:20])).to_bytes(2, "big")
    guest.send(bytes(far))
    assert guest.icmp_wait().payload[:2] == b"\x0b\0"


def test_names_are_asked_for_where_the_host_does(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("# nothing\noptions x\nnameserver ::1\nnameserver 127.0.0.53\nnameserver 192.0.2.1\n")
    hosts = Hosts(UserOptions(), str(file))
    assert hosts.of_guest(DNS, 53) == ("127.0.0.53", 53)
    assert hosts.of_guest(DNS, 54) is None
    file.write_text("nameserver 192.0.2.99\n")
    assert hosts.of_guest(DNS, 53) == ("192.0.2.99", 53)
    file.unlink()
    assert hosts.of_guest(DNS, 53) is None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        resolver.bind(("127.0.0.1", 0))
        monkeypatch.setattr("dbt.machine.net.user.hosts.DNS_PORT", resolver.getsockname()[1])
        _, guest = make(resolver="127.0.0.1")  # although the host itself cannot be reached
        guest.udp_send(1234, (DNS, resolver.getsockname()[1]), b"a query")
        query, peer = resolver.recvfrom(100)
        resolver.sendto(query + b": an answer", peer)
        assert guest.udp_wait(1234) == ((DNS, resolver.getsockname()[1]), b"a query: an answer")
        guest.udp_send(1234, (GATEWAY, resolver.getsockname()[1]), b"")
        assert guest.icmp_wait().payload[:2] == b"\3\3"


def test_restricted_guests_reach_nothing(make: Make, server: socket.socket) -> None:
    net, guest = make(restrict=True, loopback=True, hostfwd=("udp:127.0.0.1:0-:69",))
    guest.dhcp()
    for target in (GATEWAY, DNS, bytes((192, 0, 2, 1))):
        guest.udp_send(1234, (target, server.getsockname()[1]), b"hello")
        guest.udp_send(69, (target, server.getsockname()[1]), b"hello")
    assert guest.nothing()
    server.sendto(b"get", ("127.0.0.1", net.ports[0]))
    source, data = guest.udp_wait(69)
    assert (source, data) == ((GATEWAY, server.getsockname()[1]), b"get")
    guest.udp_send(69, source, b"here")
    assert server.recvfrom(100) == (b"here", ("127.0.0.1", net.ports[0]))


def test_a_guest_without_buffers_loses_no_more_than_the_host_does(make: Make, server: socket.socket) -> None:
    net, guest = make(buffers=2, loopback=True)
    guest.udp_send(1, (GATEWAY, server.getsockname()[1]), b"")
    _, peer = server.recvfrom(10)
    for number in range(100):
        server.sendto(bytes((number,)), peer)
    for number in range(100):
        assert guest.udp_wait(1)[1] == bytes((number,))
    assert not net.counts


def test_tables_are_bounded(make: Make, server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "FLOWS", 20)
    clock = Clock()
    net, guest = make(clock=clock, loopback=True)
    for port in range(1, 100):
        guest.udp_send(port, (GATEWAY, server.getsockname()[1]), b"")
    assert len(net.udp.flows) == 20
    for port in range(1, 200):
        guest.udp_send(99, (GATEWAY, port), b"")
    assert len(net.udp.flows[SELF, 99].peers) <= udp.PEERS
    for number in range(100):
        guest.send(packet(SELF, GATEWAY, 17, bytes(8), 0x2000, number))
    assert len(net._fragments._datagrams) == DATAGRAMS
    for number in range(20, 200):
        guest.address = bytes((10, 0, 2, number))
        guest.arp(1, GATEWAY)
    assert len(net.arp.table) <= 256
    with net.loop.lock:
        clock.advance(300 * SECOND)
    assert not net.udp.flows


def test_fragments_that_contradict_each_other(make: Make) -> None:
    net, guest = make()
    for pieces in (
        [(0, 16, 1), (1, 16, 1)], [(0, 12, 1)], [(0, 0, 1)], [(8184, 65, 0)], [(1, 8, 0), (3, 8, 0)],
        [(1, 8, 0), (4, 8, 1)],
    ):  # fmt: skip
        guest.send(packet(SELF, GATEWAY, 17, bytes(24), 0x2000, 5))
        net._fragments._datagrams.clear()
        for start, length, more in pieces:
            guest.send(packet(SELF, GATEWAY, 17, bytes(length), start | more << 13, 5))
        assert not net._fragments._datagrams
    guest.send(packet(SELF, GATEWAY, 17, bytes(16), 0x2000, 5))
    guest.send(packet(SELF, GATEWAY, 17, bytes(16), 0x2000, 5))
    assert len(net._fragments._datagrams) == 1
    assert sum(net.counts.values()) == 6


def test_options_as_users_write_them() -> None:
    assert make_options() == UserOptions()
    other = make_options(net="192.168.76.0/24", hostfwd=("tcp::80-192.168.76.9:8080",))
    assert (other.gateway, other.first) == (bytes((192, 168, 76, 2)), bytes((192, 168, 76, 15)))
    assert other.forwards[0].guest == bytes((192, 168, 76, 9))
    assert make_options(net="10.1.0.0/28").first == bytes((10, 1, 0, 4))
    for wrong in (
        {"net": "10.0.2.0/30"}, {"net": "ten"}, {"host": "10.0.3.1"}, {"dns": "10.0.2.2"}, {"host": "10.0.2.255"},
        {"resolver": "name"}, {"hostfwd": ("udp::1-:5", "udp::2-10.0.2.15:5")},
    ):  # fmt: skip
        with pytest.raises(NetError):
            make_options(**wrong)
    for text in ("", "tcp", "tcp::1", "tcp:1:2", "sctp::1-:2", "tcp::1-:0", "tcp::x-:2", "tcp::1-:65536", "tcp:a:1-:2"):
        with pytest.raises(NetError):
            parse_forward(text)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        options = make_options(hostfwd=("tcp:127.0.0.1:0-:21", f"tcp:127.0.0.1:{busy.getsockname()[1]}-:22"))
        with pytest.raises(NetError, match="already in use"):
            UserNet(threading.RLock(), options)


def samples() -> list[bytes]:
    """Frames of all kinds, to be damaged."""
    frames: list[bytes] = []
    lock = threading.RLock()
    guest = Guest(frames.append, list, lock)
    guest.arp(1, GATEWAY)
    for kind in (1, 3, 4, 7, 8):
        guest.dhcp_send(kind, more=bytes((50, 4)) + SELF)
    guest.udp_send(5, (GATEWAY, 9), b"data")
    guest.udp_send(5, (DNS, 53), b"data")
    guest.send(packet(SELF, GATEWAY, 1, b"\x08\0\xf7\xff\0\0\0\0"))
    guest.send(packet(SELF, GATEWAY, 17, bytes(16), 0x2000))
    guest.send(packet(SELF, GATEWAY, 17, bytes(16), 2))
    for flags in (2, 4, 16, 17, 24, 18):
        said = b"\x02\x04\x05\xb4\x01\x03\x03\x07"
        guest.send(stack.tcp((SELF, 7), (GATEWAY, 9), (1000, 5), flags, said=said, data=b"x" * 10))
    return frames


@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_guests(make: Make, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """50,000 damaged frames, half of them with right checksums, on a network that has connections."""
    monkeypatch.setattr(tcp, "CONNECTIONS", 32)
    monkeypatch.setattr(udp, "FLOWS", 32)
    random = Random(seed)
    clock = Clock()
    net, guest = make(clock=clock, loopback=True, resolver="127.0.0.1", buffers=100)
    guest.dhcp()
    good = samples()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        for port in range(1, 5):
            connection = stack.Tcp(guest, (GATEWAY, listener.getsockname()[1]), port=port).connect()
            source, target = (guest.address, port), connection.target
            numbers = (connection.seq, connection.ack)
            for flags in (16, 17, 4, 24):
                good.append(b"\x52\x55\x0a\0\2\2" + guest.mac + b"\x08\0" + stack.tcp(source, target, numbers, flags))
        for number in range(50_000):
            frame = bytearray(random.choice(good))
            for _ in range(random.randrange(4)):
                at = random.randrange(12, min(len(frame), 80))
                frame[at] = random.choice((0, 1, 255, random.randrange(256)))
            if not random.randrange(8):
                del frame[random.randrange(len(frame)) :]
            checked = None if random.randrange(2) else Offload(True, 34, 16)
            if random.randrange(3):  # a right checksum, or all of it would end there
                frame[24:26] = b"\0\0"
                frame[24:26] = stack.internet_sum(bytes(frame[14:34])).to_bytes(2, "big") if len(frame) > 34 else b""
            with guest.lock:
                assert net.send(bytes(frame), checked)
                if not number % 50:
                    guest._poll()
                    clock.advance(random.choice((0, SECOND // 10, SECOND, 100 * SECOND)) if not number % 1000 else 0)
        assert len(net.tcp.connections) <= 32
        assert len(net.udp.flows) <= 32
        assert len(net.counts) < 60
        assert len(net._queue) <= 256
    fresh = make(loopback=True)[1]
    assert fresh.find(GATEWAY)
    with guest.lock:
        guest._poll()
    guest.frames.clear()
    assert guest.find(GATEWAY)
