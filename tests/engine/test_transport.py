"""Messages arrive whole or not at all, and what is broken stays so."""

from __future__ import annotations

import itertools
import pickle
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from dbt.engine import transport
from dbt.engine.transport import Channel, Ended

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEAD = transport._HEAD
MARK = transport._MARK
LARGE = 1 << 22  # bytes, more than a socket holds


@pytest.fixture
def pair() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    with theirs:
        yield channel, theirs
    channel.close()


def frame(message: object) -> bytes:
    data = pickle.dumps(message)
    return HEAD.pack(MARK, len(data)) + data


def test_a_message_arrives_byte_by_byte(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    data = frame(("done", 1, b"x" * 100))
    for byte in data[:-1]:
        theirs.sendall(bytes([byte]))
        assert not channel.ready()
    theirs.sendall(data[-1:] + frame(("next",)))
    assert channel.ready()
    assert channel.receive() == ("done", 1, b"x" * 100)
    assert channel.receive() == ("next",)
    assert not channel.ready()
    assert not channel.wait(0)


def test_large_messages_go_both_ways(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    other = Channel(theirs)
    found: list[bytes] = []

    def turn() -> None:
        found.append(other.receive())
        other.send(found[0][::-1])

    thread = threading.Thread(target=turn)
    thread.start()
    data = bytes(range(256)) * (LARGE // 256)
    channel.send(data)
    assert channel.receive() == data[::-1]
    thread.join()
    assert found == [data]


@pytest.mark.parametrize(
    "data",
    [
        b"LLVM ERROR: Cannot select: t1: i64 = something",
        HEAD.pack(MARK, 1 << 62),
        HEAD.pack(MARK, (1 << 30) + 1),
        HEAD.pack(b"\0\0\0\0", 4) + b"1234",
        HEAD.pack(MARK, 4) + b"1234",
        HEAD.pack(MARK, 0),
        frame(("done",))[:-1] + b"!",
    ],
)
def test_what_is_no_message_ends_the_channel(pair: tuple[Channel, socket.socket], data: bytes) -> None:
    channel, theirs = pair
    theirs.sendall(data)
    with pytest.raises(Ended):
        channel.receive()
    assert channel.closed
    with pytest.raises(Ended):
        channel.ready()
    with pytest.raises(Ended):
        channel.send(1)


@pytest.mark.parametrize("part", [0, 5, 20])
def test_the_other_side_ends(pair: tuple[Channel, socket.socket], part: int) -> None:
    channel, theirs = pair
    theirs.sendall(frame(("a message", "of some length"))[:part])
    theirs.close()
    with pytest.raises(Ended):
        channel.receive()


def test_sending_to_nobody(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    theirs.close()
    with pytest.raises(Ended):
        channel.send(b"x" * LARGE)


def test_an_exception_in_the_middle_ends_the_channel() -> None:
    """Whoever waits may be interrupted anywhere; half a message is never followed by another."""

    def interrupt(_silence: float) -> None:
        raise KeyboardInterrupt

    acts: list[Callable[[Channel], object]] = [lambda channel: channel.send(b"x" * LARGE), Channel.receive]
    for act in acts:
        ours, theirs = socket.socketpair()
        with theirs:
            channel = Channel(ours, interrupt)
            with pytest.raises(KeyboardInterrupt):
                act(channel)
            assert channel.closed


def test_silence_is_counted_from_the_last_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    clock = itertools.count()
    seen: list[float] = []
    data = frame("late")

    def idle(silence: float) -> None:
        seen.append(silence)
        theirs.sendall(data[len(seen) - 1 : len(seen)])

    monkeypatch.setattr(transport, "_SLICE", 0.001)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    with theirs:
        channel = Channel(ours, idle)
        assert channel.receive() == "late"
        channel.close()
    assert len(seen) == len(data)
    assert set(seen) == {1.0}  # one look at the clock since something came
