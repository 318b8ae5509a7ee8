"""Characters through descriptors of the host: nothing is lost, nothing waits under the machine's lock."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dbt.machine.devices.pl011 import PL011
from dbt.machine.hostchar import HostChar
from dbt.machine.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BASE = 0x0900_0000
DR, FR, LCR_H, CR = BASE, BASE + 0x18, BASE + 0x2C, BASE + 0x30
TEXT = bytes(range(256)) * 64


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread; a minute is an error, not a measurement."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "nothing happens"
        time.sleep(0.001)


def build(read_fd: int | None, write_fd: int | None, limit: int = 1000) -> tuple[Machine, PL011, HostChar]:
    machine = Machine()
    chars = HostChar(machine.lock, read_fd, write_fd, limit)
    uart = PL011("uart", machine, chars=chars)
    machine.place(uart, BASE)
    machine.reset()
    machine.memory.write(LCR_H, 4, 0x70)
    machine.memory.write(CR, 4, 0x301)
    return machine, uart, chars


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    theirs.settimeout(60)
    with ours, theirs:
        yield ours, theirs


def test_an_echoing_driver_loses_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    machine, _, chars = build(ours.fileno(), ours.fileno())
    got = bytearray()

    def reader() -> None:
        while len(got) < len(TEXT):
            got.extend(theirs.recv(777))

    threads = [threading.Thread(target=reader), threading.Thread(target=lambda: theirs.sendall(TEXT))]
    for thread in threads:
        thread.start()
    bus, echoed = machine.memory, 0
    end = time.monotonic() + 120
    while echoed < len(TEXT):
        flags = bus.read(FR, 4)
        if not flags & 0x10 and not flags & 0x20:
            bus.write(DR, 4, bus.read(DR, 4) & 0xFF)
            echoed += 1
        elif flags & 0x10:
            assert time.monotonic() < end
            time.sleep(0.0001)  # an idle guest
    for thread in threads:
        thread.join(60)
    chars.close()
    assert got == TEXT


def test_a_host_that_does_not_read_stops_the_device_and_not_the_machine(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    machine, uart, chars = build(None, ours.fileno(), limit=100)
    bus, sent = machine.memory, 0
    text = TEXT * 16
    while True:  # until neither the device nor the host takes more
        if not bus.read(FR, 4) & 0x20:
            bus.write(DR, 4, text[sent])
            sent += 1
        elif not select.select([], [ours], [], 0)[1]:
            break
    assert 100 < sent < len(text)
    got = bytearray()
    while len(got) < sent:
        got += theirs.recv(4096)
    assert got == text[:sent]
    until(lambda: not uart.transmit)
    assert bus.read(FR, 4) & 0xA0 == 0x80
    chars.close()


def test_the_ends_of_both_directions(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    machine, _, chars = build(ours.fileno(), ours.fileno(), limit=10)
    theirs.sendall(b"bye")
    theirs.close()
    until(lambda: not machine.memory.read(FR, 4) & 0x10)
    assert bytes(machine.memory.read(DR, 4) for _ in range(3)) == b"bye"
    until(lambda: chars.at_end)
    end = time.monotonic() + 60
    while chars.error is None:  # a guest that goes on talking to nobody
        machine.memory.write(DR, 4, 0x21)
        assert time.monotonic() < end
    for _ in range(100):
        machine.memory.write(DR, 4, 0x21)
    assert machine.memory.read(FR, 4) & 0xA0 == 0x80
    chars.close()


def test_input_waits_for_the_device(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    machine, uart, chars = build(ours.fileno(), None)
    machine.memory.write(CR, 4, 0)  # off
    theirs.sendall(b"0123456789abcdefghij")
    until(lambda: len(chars._in) == 20)
    assert not uart.received
    machine.memory.write(CR, 4, 0x301)
    assert uart.received == bytearray(b"0123456789abcdef")
    assert bytes(machine.memory.read(DR, 4) for _ in range(20)) == b"0123456789abcdefghij"
    machine.memory.write(DR, 4, 1)  # nobody listens
    assert machine.memory.read(FR, 4) & 0xA0 == 0x80
    chars.close()


def test_output_and_input_may_be_files(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(TEXT[:9])
    with (tmp_path / "in").open("rb") as typed, (tmp_path / "out").open("wb") as output:
        machine, _, chars = build(typed.fileno(), output.fileno())
        until(lambda: chars.at_end)
        got = b""
        while not machine.memory.read(FR, 4) & 0x10:
            got += bytes((machine.memory.read(DR, 4) & 0xFF,))
        assert got == TEXT[:9]
        with machine.lock:
            chars.write(TEXT[:900])
        until(lambda: (tmp_path / "out").stat().st_size == 900)
        chars.close()
    assert (tmp_path / "out").read_bytes() == TEXT[:900]


def test_what_is_written_after_the_end_goes_nowhere(pair: tuple[socket.socket, socket.socket]) -> None:
    machine, _, chars = build(None, pair[0].fileno())
    chars.close()
    chars.close()
    with contextlib.ExitStack() as stack:  # files that have the descriptors' numbers now
        pipes = [stack.enter_context(contextlib.closing(end)) for _ in range(4) for end in socket.socketpair()]
        with machine.lock:
            assert chars.write(b"late") == 4
            chars.resume()
        assert select.select(pipes, [], [], 0)[0] == []
