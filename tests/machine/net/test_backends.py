"""Back ends with peers: frames over streams and datagrams, hubs, captures, and what users write to get them."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from dbt.machine.clock import SECOND, Clock
from dbt.machine.net.address import parse_address
from dbt.machine.net.backend import MemoryNet, NetBackend, Sink
from dbt.machine.net.datagram import DatagramNet
from dbt.machine.net.errors import NetError
from dbt.machine.net.hub import ALL, WAITING, Hub
from dbt.machine.net.offload import GSO_TCPV4, Offload, segment
from dbt.machine.net.pcap import PcapNet
from dbt.machine.net.spec import open_net, parse_net
from dbt.machine.net.stream import LIMIT, StreamNet
from dbt.machine.net.user.net import UserNet

from tests.machine.net.guest import GATEWAY, SELF, Card, Guest
from tests.machine.net.test_offload import packet as gso_packet

Made = Callable[[NetBackend], NetBackend]
FRAMES = [Random(number).randbytes(14 + number * 7 % 1500) for number in range(2000)]


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture
def lock() -> Any:
    return threading.RLock()


@pytest.fixture
def made() -> Iterator[Made]:
    """Closes what it is given."""
    nets: list[NetBackend] = []

    def keep(net: NetBackend) -> NetBackend:
        nets.append(net)
        return net

    yield keep
    for net in nets:
        net.close()


def exchange(one: NetBackend, other: NetBackend, lock: Any, frames: list[bytes]) -> None:
    """Both send everything at once; both have few buffers."""
    cards = [Card(one, buffers=5), Card(other, buffers=7)]
    got: list[list[bytes]] = [[], []]
    at = [0, 0]
    end = time.monotonic() + 30
    while len(got[0]) + len(got[1]) < 2 * len(frames):
        for number, card in enumerate(cards):
            with lock:
                while at[number] < len(frames) and at[number] - len(got[1 - number]) < 100:
                    if not card.backend.send(frames[at[number]]):
                        break
                    at[number] += 1
                got[number] += card.poll()
        assert time.monotonic() < end
    assert got == [frames, frames]


@pytest.mark.parametrize("where", ["127.0.0.1:0", "[::1]:0", "unix"])
def test_frames_over_a_stream(where: str, made: Made, lock: Any, tmp_path: Path) -> None:
    text = f"unix:{tmp_path}/net" if where == "unix" else where
    server = StreamNet(lock, parse_address(text, socket.SOCK_STREAM), listen=True)
    made(server)
    text = text if where == "unix" else text[:-1] + str(server.port)
    client = StreamNet(lock, parse_address(text, socket.SOCK_STREAM), listen=False)
    made(client)
    until(lambda: server.connected and client.connected)  # frames are lost before
    exchange(server, client, lock, FRAMES)


def test_a_peer_that_does_not_read_stops_the_card(made: Made, lock: Any) -> None:
    server = StreamNet(lock, parse_address("127.0.0.1:0", socket.SOCK_STREAM), listen=True)
    made(server)
    told: list[bool] = []
    card = Card(server)
    card.ready = lambda: told.append(True)  # type: ignore[method-assign]
    with socket.create_connection(("127.0.0.1", server.port)) as peer:
        until(lambda: server.connected)
        sent = 0
        with lock:
            while server.send(bytes(1500)):
                sent += 1
                assert sent < 100_000
        assert len(server._out) < LIMIT + 2000
        got = 0
        while got < sent * 1504:
            got += len(peer.recv(1 << 20))
        until(lambda: told)
        peer.sendall(struct.pack(">I", 1 << 30))  # no frame
        until(lambda: not server.connected)
    with socket.create_connection(("127.0.0.1", server.port)) as peer:
        until(lambda: server.connected)
        peer.sendall(b"\0\0\0\x0eabcdefghijklmn\0\1")
        until(lambda: card.frames)
        assert card.poll() == [b"abcdefghijklmn"]
        large = b"\0\1\0\x15" + bytes(65557)  # the largest, and what is read first is almost all of it
        peer.sendall(large[2:65545])
        until(lambda: len(server._in) == 65545)
        peer.sendall(large[65545:])
        until(lambda: card.frames)
        assert card.poll() == [bytes(65557)]
        peer.sendall(b"\0")
    until(lambda: not server.connected)
    assert server.counts == {"the peer sends no frames": 1, "the peer has gone": 1}
    assert server.send(b"nobody is there")


def test_reconnecting(made: Made, lock: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    clock = Clock()
    address = parse_address(f"127.0.0.1:{port}", socket.SOCK_STREAM)
    client = StreamNet(lock, address, listen=False, reconnect=5, clock=clock)
    made(client)
    until(lambda: client.counts)
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(30)
        for _ in range(2):
            with lock:
                clock.advance(5 * SECOND)
            peer, _ = listener.accept()
            until(lambda: client.connected)
            peer.close()
            until(lambda: not client.connected)
    assert client.counts == {"cannot connect: ECONNREFUSED": 1, "the peer has gone": 2}


def test_a_unix_socket_that_somebody_left(made: Made, lock: Any, tmp_path: Path) -> None:
    address = parse_address(f"unix:{tmp_path}/net", socket.SOCK_STREAM)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "net"))
    first = made(StreamNet(lock, address, listen=True))
    with pytest.raises(NetError, match="in use"):
        StreamNet(lock, address, listen=True)
    first.close()
    assert not (tmp_path / "net").exists()
    (tmp_path / "net").write_text("a file of somebody's")
    with pytest.raises(NetError):
        StreamNet(lock, address, listen=True)
    with pytest.raises(NetError):
        StreamNet(lock, parse_address(f"unix:{tmp_path}/none", socket.SOCK_STREAM), listen=False)


@pytest.mark.parametrize("where", ["udp", "unix"])
def test_frames_in_datagrams(where: str, made: Made, lock: Any, tmp_path: Path) -> None:
    if where == "unix":
        texts = [f"unix:{tmp_path}/one", f"unix:{tmp_path}/other"]
    else:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b,
        ):
            for sock in (a, b):
                sock.bind(("127.0.0.1", 0))
            texts = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in (a, b)]
    one, other = (parse_address(text, socket.SOCK_DGRAM) for text in texts)
    first = DatagramNet(lock, one, other)
    made(first)
    assert first.send(b"to nobody")
    second = made(DatagramNet(lock, other, one))
    time.sleep(0.01)
    cards = [Card(first, buffers=3), Card(second, buffers=3)]
    for number, frame in enumerate(FRAMES[:200]):
        with lock:
            assert cards[number % 2].backend.send(frame)
        if number % 8 == 7:
            got: list[list[bytes]] = [[], []]
            end = time.monotonic() + 30
            while len(got[0]) + len(got[1]) < 8:
                with lock:
                    got = [each + card.poll() for each, card in zip(got, cards, strict=True)]
                assert time.monotonic() < end
            sent = FRAMES[number - 7 : number + 1]
            assert got == [sent[1::2], sent[::2]]
    with lock:
        assert first.send(bytes(65_550))
    assert first.counts["a frame that is larger than a datagram"] == 1


def test_multicast(made: Made, lock: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    local = parse_address("127.0.0.1:0", socket.SOCK_DGRAM)
    group = parse_address(f"230.77.1.9:{port}", socket.SOCK_DGRAM)
    cards = [Card(made(DatagramNet(lock, local, group))) for _ in range(3)]
    with lock:
        cards[0].backend.send(b"hello everybody")
    until(lambda: cards[1].frames and cards[2].frames)
    assert [card.poll() for card in cards] == [[], [b"hello everybody"], [b"hello everybody"]]


def test_a_hub_with_two_guests_and_a_router(lock: Any) -> None:
    hub = Hub()
    hub.connect(UserNet(lock))
    guests = [Guest.on(hub.port(), lock, mac=bytes((0x52, 0x54, 0, 0, 0, number))) for number in range(2)]
    addresses = [guest.dhcp()["yiaddr"] for guest in guests]
    assert addresses == [SELF, bytes((10, 0, 2, 16))]
    guests[0].arp(1, addresses[1])
    guests[1].poll()  # and answer
    assert guests[0].wait(lambda f: f[20:22] == b"\0\2" and f[28:32] == addresses[1])[22:28] == guests[1].mac
    assert guests[1].find(GATEWAY)
    hub.close()


def test_a_hub_segments_for_whom_it_must() -> None:
    hub = Hub()
    large, start = gso_packet(4, 6, bytes(5000))
    offload = Offload(True, start, 16, GSO_TCPV4, 1000)
    sender, plain, whole = Card(hub.port()), Card(hub.port(), 0, 2), Card(hub.port(), ALL)
    sink = MemoryNet(limit=1)
    hub.connect(sink)
    sender.backend.send(large, offload)
    pieces = segment(large, offload)
    assert whole.frames == [large]
    got = plain.poll()
    while len(got) < 5:
        got += plain.poll()
    assert got == pieces
    assert [frame for _ in range(5) for frame in sink.take()] == pieces
    sender.backend.send(large, offload._replace(gso_type=3))
    for _ in range(WAITING + 10):
        sender.backend.send(b"more than a card takes that nobody reads")
    assert [port.lost for port in hub.ports] == [0, 8, 0, 9]  # of 266, what cards and back ends and WAITING do not take
    assert hub.errors == deque(["a frame whose offload cannot be done: segmentation of kind 3 of protocol 6"])


def records(path: Path) -> list[tuple[int, int, bytes]]:
    """(nanoseconds, length on the wire, data) of a capture."""
    data = path.read_bytes()
    magic, major, minor, zone, _, _, link = struct.unpack_from("<IHHIIII", data)
    assert (major, minor, zone, link) == (2, 4, 0, 1)
    unit = {0xA1B23C4D: 1, 0xA1B2C3D4: 1000}[magic]
    found, at = [], 24
    while at < len(data):
        seconds, rest, kept, length = struct.unpack_from("<IIII", data, at)
        assert at + 16 + kept <= len(data)
        found.append((seconds * 1_000_000_000 + rest * unit, length, data[at + 16 : at + 16 + kept]))
        at += 16 + kept
    return found


@pytest.mark.parametrize("nanoseconds", [True, False])
def test_what_passes_is_written_down(nanoseconds: bool, tmp_path: Path, lock: Any) -> None:
    path = tmp_path / "a.pcap"
    times = iter(range(1_000_000_000_000_001, 2_000_000_000_000_001, 1_000_000_007))
    net = PcapNet(UserNet(lock), str(path), nanoseconds=nanoseconds, snaplen=100, now=lambda: next(times))
    guest = Guest.on(net, lock)
    guest.find(GATEWAY)
    guest.dhcp()
    net.close()
    found = records(path)
    assert [data[12:14].hex() for _, _, data in found] == ["0806"] * 2 + ["0800"] * 4
    assert [data[20:22] for _, _, data in found[:2]] == [b"\0\1", b"\0\2"]  # the answer is behind its question
    assert [len(data) == min(length, 100) for _, length, data in found] == [True] * 6
    unit = 1 if nanoseconds else 1000
    assert [time for time, _, _ in found] == [(10**15 + 1 + n * 1_000_000_007) // unit * unit for n in range(6)]


def test_captures_have_an_end(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    inner = MemoryNet(limit=3)
    net = PcapNet(inner, str(path), limit=24 + 4 * 116)
    card = Card(net, buffers=1)
    assert [net.send(bytes([number]) * 100) for number in range(4)] == [True] * 3 + [False]
    inner.give(b"x" * 100)
    inner.give(b"y" * 100)
    card.poll()
    net.close()
    assert [data[:1] for _, _, data in records(path)] == [b"\0", b"\1", b"\2", b"x"]
    assert net.lost >= 1
    with pytest.raises(NetError):
        PcapNet(Sink(), str(tmp_path / "no" / "a.pcap"))


def test_a_capture_whose_reader_goes_away(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    net = PcapNet(Sink(), str(tmp_path / "pipe"))
    os.close(reader)
    assert net.send(bytes(100))
    until(lambda: net.error)
    assert net.send(bytes(100))
    assert (net.lost, net._thread.is_alive()) == (1, True)
    net.close()
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(net._fd)


def test_a_process_that_is_killed_leaves_a_capture(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    script = (
        "import os, signal, time\n"
        "from dbt.machine.net.backend import Sink\nfrom dbt.machine.net.pcap import PcapNet\n"
        f"net = PcapNet(Sink(), {str(path)!r})\n"
        "for number in range(5000): net.send(b'frame' * 50)\n"
        "while not net._blocks.empty(): time.sleep(0.001)\n"
        "net.send(b'x' * 2000)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert len(records(path)) >= 5000 - 1


def test_networks_as_users_write_them(tmp_path: Path, lock: Any) -> None:
    assert parse_net("user,hostfwd=tcp::1-:2,hostfwd=udp::3-:4").options["hostfwd"] == ("tcp::1-:2", "udp::3-:4")
    assert parse_net("sink,pcap=a,,b").options["pcap"] == "a,b"
    for text in (
        "", "token-ring", "user,restrict", "user,restrict=maybe", "user,restrict=on,restrict=on", "dgram",
        "user,pcap-limit=x",         "socket,listen=:1,wrong=1",
    ):  # fmt: skip
        with pytest.raises(NetError):
            parse_net(text)
    for text in (
        "socket", "socket,listen=:1,connect=:2", "socket,listen=nonsense", "socket,listen=unix:", "dgram,remote=:1",
        "dgram,local=unix:/a,remote=:1", "tap,ifname=a-name-that-is-too-long", "user,net=x", "user,hostfwd=x",
        "socket,connect=name.invalid:1", f"sink,pcap={tmp_path}/no/file",
    ):  # fmt: skip
        with pytest.raises(NetError):
            open_net(text, lock)
    kinds = []
    for text in (
        "none",
        "sink",
        "user,restrict=on",
        "socket,listen=:0",
        "dgram,local=:0,remote=:9",
        f"user,pcap={tmp_path}/p",
    ):
        net = open_net(text, lock)
        kinds.append(net.KIND)
        net.close()
    assert kinds == ["none", "sink", "user", "socket", "dgram", "pcap"]
