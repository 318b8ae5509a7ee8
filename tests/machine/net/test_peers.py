"""Peers that send what is no frame, interfaces that go away, and a host that has no descriptors left."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dbt.machine.clock import SECOND, Clock
from dbt.machine.net.address import parse_address
from dbt.machine.net.loop import IN, Loop
from dbt.machine.net.stream import StreamNet
from dbt.machine.net.tap import TapNet
from dbt.machine.net.user.net import UserNet
from dbt.machine.net.user.options import make_options

from tests.machine.net.guest import Card
from tests.machine.net.test_backends import until
from tests.machine.net.virtio_card import build, frame


@pytest.fixture
def close() -> Iterator[list[Any]]:
    """What is closed afterwards."""
    made: list[Any] = []
    yield made
    for each in made:
        each.close()


def test_what_is_no_frame_reaches_no_card(close: list[Any]) -> None:
    driver, device, _ = build()
    driver.command(0, 0, b"\0")  # not promiscuous: addresses are looked at
    server = StreamNet(device.machine.lock, parse_address("127.0.0.1:0", socket.SOCK_STREAM), listen=True)
    close.append(server)
    device.net.device = None
    device.net = server
    server.attach(device)
    with socket.create_connection(("127.0.0.1", server.port)) as peer:
        peer.sendall(bytes(4) + b"\0\0\0\1x" + b"\0\0\0\x64" + frame())
        until(driver.raw)
        assert (server.bad, server.connected) == (2, True)


def test_an_interface_that_is_removed_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, close: list[Any]) -> None:
    reading, writing = os.pipe()  # the end for writing of a broken pipe has an error, and nothing to read

    def opened(net: TapNet, name: str) -> int:
        net.name = name
        return writing

    monkeypatch.setattr(TapNet, "_open", opened)
    net = TapNet(threading.RLock())
    close.append(net)
    os.close(reading)
    until(lambda: net.counts)
    assert (net.counts, net._watched) == ({"gone: Bad file descriptor": 1}, 0)


class Exhausted:
    """The host has no descriptors, for a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused = 0
        self.patch = monkeypatch.context()
        self.patched = self.patch.__enter__()
        self.patched.setattr(socket.socket, "accept", self.fail)

    def fail(self, *_: object) -> None:
        self.refused += 1
        raise OSError(errno.EMFILE, "no descriptors")

    def end(self) -> None:
        self.patch.__exit__(None, None, None)


@pytest.mark.parametrize("kind", ["socket", "forward"])
def test_without_descriptors_who_calls_has_to_wait(
    kind: str, monkeypatch: pytest.MonkeyPatch, close: list[Any]
) -> None:
    lock, clock = threading.RLock(), Clock()
    host = Exhausted(monkeypatch)
    came: Callable[[], object]
    if kind == "socket":
        server = StreamNet(lock, parse_address("127.0.0.1:0", socket.SOCK_STREAM), listen=True, clock=clock)
        port, came = server.port, lambda: server.connected
        close.append(server)
    else:
        net = UserNet(lock, make_options(hostfwd=("tcp:127.0.0.1:0-:22",)), clock)
        Card(net)
        port, came = net.ports[0], lambda: bool(net.tcp.connections)
        close.append(net)
    with socket.create_connection(("127.0.0.1", port)):
        until(lambda: host.refused)
        time.sleep(0.02)
        assert host.refused == 1  # and nobody was kept busy
        host.end()
        with lock:
            assert not came()
            clock.advance(SECOND)
        until(came)


def test_without_descriptors_a_connection_is_tried_again(monkeypatch: pytest.MonkeyPatch, close: list[Any]) -> None:
    clock = Clock()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = parse_address(f"127.0.0.1:{listener.getsockname()[1]}", socket.SOCK_STREAM)
        client = StreamNet(threading.RLock(), address, listen=False, reconnect=1, clock=clock)
        close.append(client)
        until(lambda: client.connected)
        peer, _ = listener.accept()
        peer.close()
        until(lambda: not client.connected)

        def none(*_: object) -> None:
            raise OSError(errno.EMFILE, "no descriptors")

        with monkeypatch.context() as patched, client.loop.lock:
            patched.setattr(socket, "socket", none)
            clock.advance(SECOND)
        assert client.counts["cannot connect: EMFILE"] == 1
        with client.loop.lock:
            clock.advance(SECOND)
        until(lambda: client.connected)


def test_an_event_is_not_taken_for_another_descriptors(close: list[Any]) -> None:
    lock = threading.RLock()
    loop = Loop(lock)
    close.append(loop)
    pairs = [socket.socketpair() for _ in range(4)]
    close.extend(end for pair in pairs for end in pair)
    (start, starter), *both, (later, writer) = pairs
    calls: list[str] = []

    def another(_: int) -> None:
        calls.append("another")
        for end, _far in both:
            loop.forget(end.fileno())

    def first(other: socket.socket, name: str) -> Callable[[int], None]:
        def call(_: int) -> None:  # whichever comes first closes the other, and something new has its number
            calls.append(name)
            for end, _far in both:
                loop.forget(end.fileno())
            os.dup2(later.fileno(), other.fileno())
            loop.watch(other.fileno(), IN, another)

        return call

    def begin(_: int) -> None:  # in the loop's thread: the next poll finds both
        loop.forget(start.fileno())
        for _end, far in both:
            far.send(b"x")

    with lock:
        for number, (end, _) in enumerate(both):
            loop.watch(end.fileno(), IN, first(both[1 - number][0], "one of both"))
        loop.watch(start.fileno(), IN, begin)
    starter.send(b"x")
    until(lambda: calls)
    time.sleep(0.01)
    assert calls == ["one of both"]
    writer.send(b"y")
    until(lambda: len(calls) > 1)
    assert calls == ["one of both", "another"]
