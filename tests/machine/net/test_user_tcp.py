"""TCP through the user-mode network: a guest's segments on one side, sockets of this host on the other."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from random import Random

import pytest
from dbt.machine.clock import SECOND, Clock
from dbt.machine.net.offload import CSUM, TSO4, Offload, segment
from dbt.machine.net.user.net import UserNet
from dbt.machine.net.user.options import make_options

from tests.machine.net.guest import ACK, FIN, GATEWAY, PSH, RST, SYN, Card, Guest, Tcp, tcp

TEXT = Random(5).randbytes(1_000_000)


class Site:
    """A network, its guest, and a listening socket on the host."""

    def __init__(
        self, *, accepts: int = 0, buffers: int = 1 << 20, clock: Clock | None = None, **options: bool
    ) -> None:
        self.lock = threading.RLock()
        self.net = UserNet(self.lock, make_options(**{"loopback": True, **options}), clock)  # type: ignore[arg-type]
        self.card = Card(self.net, accepts, buffers)
        self.guest = Guest.on(self.net, self.lock, self.card)
        self.clock = clock
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(30)
        self.port = self.listener.getsockname()[1]
        self.peers: list[socket.socket] = []

    def connect(self, **options: int) -> tuple[Tcp, socket.socket]:
        connection = Tcp(self.guest, (GATEWAY, self.port), **options).connect()
        return connection, self.accept()

    def accept(self) -> socket.socket:
        peer, _ = self.listener.accept()
        peer.settimeout(30)
        self.peers.append(peer)
        return peer

    def forget(self) -> None:
        """Frames that have come mean nothing."""
        self.guest.frames.clear()
        self.guest.poll()

    def advance(self, nanoseconds: int) -> None:
        assert self.clock is not None
        with self.lock:
            self.clock.advance(nanoseconds)

    def close(self) -> None:
        self.net.close()
        for each in (self.listener, *self.peers):
            each.close()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def still() -> Iterator[Site]:
    """One whose time stands still."""
    site = Site(clock=Clock())
    yield site
    site.close()


def until(condition: object) -> None:
    end = time.monotonic() + 30
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize(("accepts", "scale"), [(0, None), (0, 7), (CSUM | TSO4, 7), (CSUM, None)])
def test_a_megabyte_each_way(accepts: int, scale: int | None) -> None:
    site = Site(accepts=accepts)
    connection, peer = site.connect(scale=scale)  # type: ignore[arg-type]

    def echo() -> None:
        while data := peer.recv(100_000):
            peer.sendall(data)
        peer.close()

    thread = threading.Thread(target=echo, daemon=True)
    thread.start()
    got = bytearray()
    for at in range(0, len(TEXT), 50_000):
        connection.send(TEXT[at : at + 50_000])
        got += connection.read(50_000)
    assert got == TEXT
    connection.close()
    assert connection.read(1) == b""
    assert connection.ended
    assert connection.una == connection.seq
    thread.join(30)
    site.close()
    assert not site.net.tcp.connections


def test_half_a_close_from_either_side(site: Site) -> None:
    connection, peer = site.connect()
    connection.send(b"question")
    connection.close()
    assert peer.recv(100) == b"question"
    assert peer.recv(100) == b""
    peer.sendall(TEXT[:100_000])
    peer.close()
    assert connection.read(200_000) == TEXT[:100_000]
    assert connection.ended
    assert not site.net.tcp.connections
    connection, peer = site.connect(port=40001)
    peer.shutdown(socket.SHUT_WR)
    assert connection.read(1) == b""
    connection.send(TEXT[:100_000])
    connection.close()
    got = bytearray()
    while data := peer.recv(65536):
        got += data
    assert got == TEXT[:100_000]
    until(lambda: [each.state.value for each in site.net.tcp.connections.values()] == ["TIME-WAIT"])
    connection.segment(SYN, said=connection.syn_options())  # the same ports again
    site.accept()


def test_nobody_listens(site: Site) -> None:
    site.listener.close()
    with pytest.raises(ConnectionRefusedError):
        Tcp(site.guest, (GATEWAY, site.port)).connect()
    assert not site.net.tcp.connections
    lost = Tcp(site.guest, (GATEWAY, site.port), port=5)
    lost.ack = 77
    lost.segment(ACK, b"out of nowhere")
    seq, ack, flags, _, _ = lost.take()
    assert (seq, ack, flags) == (77, 0, RST)
    lost.segment(FIN, b"abc")
    assert lost.take()[:3] == (0, lost.seq + 4, RST | ACK)
    lost.segment(RST)
    assert site.guest.nothing()


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "0.1.0.0", "169.254.169.254", "224.0.0.1", "10.0.2.77", "255.255.255.255"]
)
def test_what_no_router_forwards(site: Site, address: str) -> None:
    with pytest.raises(ConnectionRefusedError):
        Tcp(site.guest, (socket.inet_aton(address), site.port)).connect()


def test_the_host_itself_only_if_it_is_allowed() -> None:
    for options in ({"loopback": False}, {"restrict": True}):
        site = Site(**options)  # type: ignore[arg-type]
        with pytest.raises(ConnectionRefusedError):
            Tcp(site.guest, (GATEWAY, site.port)).connect()
        site.close()


def test_resets_reach_the_other_side(site: Site) -> None:
    connection, peer = site.connect()
    connection.segment(RST, seq=connection.seq + 5)  # in the window: RFC 5961
    assert connection.take()[1] == connection.seq
    connection.segment(RST | ACK)
    with pytest.raises(ConnectionResetError):
        peer.recv(1)
    connection, peer = site.connect(port=40001)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    connection.step()
    assert connection.reset
    assert not site.net.tcp.connections


def test_order_does_not_matter(site: Site) -> None:
    connection, peer = site.connect()
    data = TEXT[:20_000]
    pieces = [(at, data[at : at + 1000]) for at in range(0, len(data), 1000)]
    pieces += [(at, data[at : at + 1300]) for at in range(500, len(data), 3000)]  # overlaps
    Random(3).shuffle(pieces)
    for at, piece in pieces:
        connection.segment(ACK, piece, seq=connection.seq + at)
    connection.segment(FIN | ACK, seq=connection.seq + len(data))
    got = bytearray()
    while more := peer.recv(65536):
        got += more
    assert got == data
    assert site.card.errors == []


def test_an_end_that_comes_first(site: Site) -> None:
    connection, peer = site.connect()
    connection.segment(FIN | ACK | PSH, b"world", seq=connection.seq + 6)
    connection.segment(ACK, b"hello ")
    assert peer.recv(100) + peer.recv(100) + peer.recv(100) == b"hello world"
    connection.seq += 12
    while connection.una != connection.seq:
        connection.take()


def test_a_guest_that_does_not_read_stops_the_host(site: Site) -> None:
    connection, peer = site.connect(window=4000)
    peer.settimeout(0.2)
    connection.auto = False
    with pytest.raises(TimeoutError):
        peer.sendall(TEXT * 50)
    connection.take()
    site.forget()
    (inside,) = site.net.tcp.connections.values()
    assert len(inside.sending) <= 256 << 10
    connection.window = 0
    connection.ack = inside.snd_max
    connection.segment(ACK)
    assert site.guest.nothing()
    assert inside.snd_max == connection.ack  # not a byte more
    connection.auto, connection.window = True, 60_000
    connection.segment(ACK)
    assert connection.read(100_000)
    peer.close()


def test_a_host_that_does_not_read_stops_the_guest(site: Site) -> None:
    connection, peer = site.connect(scale=0)
    sent = 0
    while connection.peer_window - (connection.seq - connection.una) > 1000 or not sent:
        connection.segment(ACK, TEXT[sent % 1000 : sent % 1000 + 1000])
        connection.seq += 1000
        sent += 1000
        while connection.seq != connection.una and connection.peer_window:
            connection.take()
    (inside,) = site.net.tcp.connections.values()
    assert inside.pending() <= 256 << 10
    connection.segment(ACK, b"x" * 1000)  # beyond: not taken
    assert inside.pending() <= 256 << 10
    got = 0
    while got < sent:
        got += len(peer.recv(65536))
    site.forget()
    connection.segment(ACK)
    until(lambda: not inside.pending())
    connection.segment(ACK, b"y", seq=connection.seq)
    while connection.peer_window < 200_000:
        connection.take()


def test_a_card_without_buffers_loses_nothing() -> None:
    for accepts in (0, CSUM | TSO4):
        site = Site(accepts=accepts, buffers=3)
        connection, peer = site.connect()
        threading.Thread(target=peer.sendall, args=(TEXT[:300_000],), daemon=True).start()
        time.sleep(0.05)
        assert connection.read(300_000) == TEXT[:300_000]
        site.close()
        peer.close()


def test_what_is_lost_is_sent_again(still: Site) -> None:
    connection, peer = still.connect()
    peer.sendall(TEXT[:5000])
    (inside,) = still.net.tcp.connections.values()
    until(lambda: len(inside.sending) == 5000)
    still.forget()  # all lost
    still.advance(SECOND // 5)
    seq, _, flags, _, data = connection.take()
    assert (seq, data, flags) == (connection.ack, TEXT[:1460], ACK)
    assert still.guest.nothing()  # slowly
    connection.ack += len(data)
    connection.segment(ACK)
    assert connection.read(3540) == TEXT[1460:5000]
    peer.sendall(TEXT[:6000])
    until(lambda: len(inside.sending) == 6000)
    first = connection.take()
    still.forget()
    for _ in range(3):
        connection.segment(ACK)  # duplicates
    assert connection.take()[0] == first[0]
    connection.segment(ACK)
    assert still.guest.nothing()
    for _ in range(40):  # gone for good
        still.advance(60 * SECOND)
    assert not still.net.tcp.connections
    with pytest.raises(ConnectionResetError):
        peer.recv(10)


def test_an_acknowledgement_of_a_closed_window_is_asked_for(still: Site) -> None:
    connection, peer = still.connect(window=0)
    peer.sendall(b"hello")
    (inside,) = still.net.tcp.connections.values()
    until(lambda: inside.sending)
    for _ in range(20):
        still.advance(60 * SECOND)
        assert connection.take()[0] == connection.ack - 1
        still.forget()
    connection.window = 100
    connection.segment(ACK)
    assert connection.read(5) == b"hello"


def test_a_syn_that_is_not_answered(still: Site) -> None:
    connection = Tcp(still.guest, (GATEWAY, still.port))
    connection.segment(SYN)
    first = connection.take()
    peer = still.accept()
    still.advance(SECOND)
    assert connection.take() == first
    connection.segment(SYN)
    assert connection.take() == first
    for _ in range(6):
        still.advance(60 * SECOND)
    assert not still.net.tcp.connections
    with pytest.raises(ConnectionResetError):
        peer.recv(10)


def test_an_end_that_is_lost_and_connections_that_are_idle(still: Site) -> None:
    connection, peer = still.connect()
    peer.shutdown(socket.SHUT_WR)
    connection.take()
    still.advance(SECOND)
    connection.step()
    assert connection.ended
    idle, other = still.connect(port=40001)
    still.advance(7000 * SECOND)
    idle.segment(ACK)
    still.advance(7000 * SECOND)
    assert [key[1] for key in still.net.tcp.connections] == [40001]
    still.advance(7000 * SECOND)
    assert not still.net.tcp.connections
    with pytest.raises(ConnectionResetError):
        other.recv(1)


def test_ports_of_the_host_that_lead_to_the_guest() -> None:
    for restrict in (False, True):
        lock = threading.RLock()
        net = UserNet(lock, make_options(restrict=restrict, hostfwd=("tcp:127.0.0.1:0-:22",)))
        guest = Guest.on(net, lock)
        with socket.create_connection(("127.0.0.1", net.ports[0]), 30) as peer:
            connection = Tcp(guest, (b"", 0), port=22).accept()  # the guest is found by ARP
            assert connection.target[0] == GATEWAY
            peer.sendall(b"hello")
            assert connection.read(5) == b"hello"
            connection.send(b"SSH-2.0")
            assert peer.recv(100) == b"SSH-2.0"
            peer.shutdown(socket.SHUT_WR)
            connection.read(1)
            connection.close()
            assert peer.recv(1) == b""
        with socket.create_connection(("127.0.0.1", net.ports[0]), 30) as peer:
            refusing = Tcp(guest, (b"", 0), port=22)
            ip = guest.ip_wait(lambda ip: ip.protocol == 6 and ip.payload[13] == SYN)
            refusing.target = (ip.source, int.from_bytes(ip.payload[:2], "big"))
            refusing.ack = int.from_bytes(ip.payload[4:8], "big") + 1
            refusing.segment(RST | ACK)
            with pytest.raises(ConnectionResetError):
                peer.recv(1)
        net.close()


def test_there_are_only_so_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbt.machine.net.user.tcp.CONNECTIONS", 3)
    site = Site()
    pairs = [site.connect(port=port) for port in (1, 2, 3)]
    with pytest.raises(ConnectionRefusedError):
        Tcp(site.guest, (GATEWAY, site.port), port=4).connect()
    assert site.net.counts == {"TCP: too many connections": 1}
    pairs[0][1].close()
    pairs[0][0].read(1)
    pairs[0][0].close()
    until(lambda: any(each.state.value == "TIME-WAIT" for each in site.net.tcp.connections.values()))
    site.connect(port=4)
    site.close()


def test_large_segments_of_the_guest_are_taken_whole(site: Site) -> None:
    connection, peer = site.connect()
    source = (site.guest.address, connection.port)
    ip = tcp(source, connection.target, (connection.seq, connection.ack), ACK | PSH, data=TEXT[:50_000])
    frame = b"\x52\x55\x0a\x00\x02\x02" + site.guest.mac + b"\x08\x00" + ip
    offload = Offload(True, 34, 16, 1, 1460, 54)
    with site.lock:
        site.net.send(frame, offload)
    got = bytearray()
    while len(got) < 50_000:
        got += peer.recv(65536)
    assert got == TEXT[:50_000]
    assert len(segment(frame, offload)) == 35
