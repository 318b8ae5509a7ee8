"""A driver for the virtio console: one port, several with control messages, and back ends that are slow."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest
from dbt.machine.chardev import MemoryChar
from dbt.machine.devices.virtio_console import MULTIPORT, Port, VirtioConsole
from dbt.machine.errors import MapError
from dbt.machine.log import GUEST_ERROR
from dbt.machine.memory import RAM
from dbt.machine.virtio.device import RINGS
from dbt.machine.virtio.mmio import VirtioMmio
from dbt.machine.virtio.spec import RING_PACKED

from tests.machine.fuzzing import fuzz
from tests.machine.virtio import KINDS, Guest, Ring, connect
from tests.machine.virtio_hostile import drive

if TYPE_CHECKING:
    from random import Random

    from dbt.machine.device import Device
    from dbt.machine.machine import Machine

READY, ADD, PORT_READY, CONSOLE, RESIZE, OPEN, NAME = 0, 1, 3, 4, 5, 6, 7


class Inbox:
    """Buffers that a receive queue always has, and what came in them."""

    def __init__(self, queue: Ring, count: int, length: int) -> None:
        self.queue = queue
        self.length = length
        self.places = {}
        for _ in range(count):
            buffers = queue.guest.buffers([], [length])
            self.places[queue.add(buffers)] = buffers
        queue.kick()

    def take(self) -> list[bytes]:
        came = [(self.places.pop(chain), written) for chain, written in self.queue.used()]
        found = [self.queue.bus.load(buffers[0][0], written) for buffers, written in came]
        for buffers, _ in came:
            self.places[self.queue.add(buffers)] = buffers
        self.queue.kick()
        return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rings", [RINGS, RINGS | RING_PACKED], ids=["split", "packed"])
def test_one_port(kind: str, rings: int) -> None:
    chars = MemoryChar(100)
    guest, device = connect(kind, lambda machine: VirtioConsole("console", machine, chars, rings=rings))
    assert isinstance(device, VirtioConsole)
    guest.begin()
    receive, transmit = guest.queue(0, 128), guest.queue(1, 128)
    chars.type(b"early ")
    guest.go()
    inbox = Inbox(receive, 4, 8)
    chars.type(b"typed, more than there is room for")
    assert b"".join(inbox.take() + inbox.take()) == b"early typed, more than there is room for"
    assert guest.request(transmit, [b"hello ", b"world"]) == (0, b"")
    assert chars.take() == b"hello world"
    # A back end that is full: the rest goes when there is room, and only then is the buffer the driver's again.
    text = bytes(range(250))
    transmit.add(guest.buffers([text[:120], text[120:]], []))
    transmit.kick()
    assert transmit.used() == []
    sent = chars.take()
    saved = json.loads(json.dumps(device.machine.save()))
    assert saved["devices"]["console"]["state"]["sent"][0] == 200
    sent += chars.take() + chars.take()
    assert sent == text
    assert len(transmit.used()) == 1
    guest.transport.set_config(8, ord("!"), 4)
    assert chars.take() == b"!"
    device.resize(80, 25)
    assert guest.transport.config(0, 4) == 25 << 16 | 80
    assert guest.transport.interrupt() & 2
    assert device.machine.log.counts[GUEST_ERROR] == 0


def test_a_queue_that_is_reset_begins_with_a_whole_buffer() -> None:
    chars = MemoryChar(4)
    guest, device = connect("mmio", lambda machine: VirtioConsole("console", machine, chars))
    assert isinstance(device, VirtioConsole)
    guest.begin()
    transmit = guest.queue(1, 8)
    guest.go()
    transmit.add(guest.buffers([b"four and more"], []))
    transmit.kick()
    assert chars.take() == b"four"
    device.reset_queue(device.queues[1])
    chars.take()
    again = guest.queue(1, 8)
    again.add(guest.buffers([b"next"], []))
    again.kick()
    assert chars.take() == b"next"


def start(guest: Guest, ports: int) -> tuple[list[Ring], Inbox]:
    assert guest.begin() & MULTIPORT
    queues = [guest.queue(index, 64) for index in range(2 + 2 * ports)]
    guest.go()
    return queues, Inbox(queues[2], 4, 80)


def say(guest: Guest, queues: list[Ring], port: int, event: int, value: int) -> None:
    guest.request(queues[3], [struct.pack("<IHH", port, event, value)])


def test_several_ports() -> None:
    chars = [MemoryChar() for _ in range(3)]

    def make(machine: Machine) -> VirtioConsole:
        ports = (Port(chars[1], "org.example.one"), Port(chars[2], console=True))
        return VirtioConsole("console", machine, chars[0], ports=ports)

    guest, device = connect("pci", make)
    assert isinstance(device, VirtioConsole)
    queues, control = start(guest, 3)
    assert guest.transport.config(4, 4) == 3
    assert control.take() == []
    say(guest, queues, 0, READY, 1)
    pack = struct.Struct("<IHH").pack
    assert control.take() == [pack(port, ADD, 1) for port in range(3)]
    for port in range(3):
        say(guest, queues, port, PORT_READY, 1)
    heard = control.take() + control.take()
    assert heard == [
        pack(0, CONSOLE, 1), pack(0, OPEN, 1), pack(1, NAME, 1) + b"org.example.one", pack(1, OPEN, 1),
        pack(2, CONSOLE, 1), pack(2, OPEN, 1),
    ]  # fmt: skip
    inbox = Inbox(queues[4], 2, 16)
    chars[1].type(b"waits")
    assert inbox.take() == []
    say(guest, queues, 1, OPEN, 1)
    assert inbox.take() == [b"waits"]
    guest.request(queues[7], [b"out"])
    guest.request(queues[1], [b"first"])
    assert [char.take() for char in chars] == [b"first", b"", b"out"]
    device.resize(132, 50)
    assert control.take() == [pack(0, RESIZE, 0) + struct.pack("<HH", 132, 50), pack(2, RESIZE, 0) + b"\x84\0\x32\0"]
    say(guest, queues, 1, OPEN, 0)
    chars[1].type(b"not now")
    assert inbox.take() == []
    before = device.machine.log.counts[GUEST_ERROR]
    say(guest, queues, 9, OPEN, 1)
    say(guest, queues, 0, 77, 1)
    guest.request(queues[3], [b"short"])
    assert device.machine.log.counts[GUEST_ERROR] == before + 3
    for _ in range(1000):  # what is to be said stays bounded while nobody listens
        say(guest, queues, 0, READY, 1)
        say(guest, queues, 2, PORT_READY, 1)
    saved = device.save()
    other, twin = connect("pci", make_again)
    other.bus.store(0x4000_0000, guest.bus.load(0x4000_0000, 8 << 20))
    twin.machine.restore(json.loads(json.dumps(device.machine.save())))
    assert twin.save() == saved
    with pytest.raises(MapError, match="ports"):
        VirtioConsole("many", twin.machine, ports=[Port(MemoryChar()) for _ in range(31)])


def make_again(machine: Machine) -> VirtioConsole:
    ports = (Port(MemoryChar(), "org.example.one"), Port(MemoryChar(), console=True))
    return VirtioConsole("console", machine, MemoryChar(), ports=ports)


def test_long_buffers_go_in_parts() -> None:
    chars = MemoryChar()
    guest, _ = connect("mmio", lambda machine: VirtioConsole("console", machine, chars))
    guest.begin()
    transmit = guest.queue(1, 64)
    guest.go()
    text = bytes(300) + b"end" * 50000
    assert guest.request(transmit, [text]) == (0, b"")
    assert chars.take() == text


def message(random: Random) -> bytes:
    return struct.pack("<IHH", random.randrange(3), random.randrange(9), random.randrange(2))


def test_random_traffic() -> None:
    chars: list[Any] = []

    def make(machine: Machine) -> Device:
        machine.place(RAM("ram", 0x1_0000), 0x4000_0000)
        chars[:] = [MemoryChar(1000), MemoryChar(1000)]
        device = VirtioConsole(
            "console", machine, chars[0], ports=(Port(chars[1], "x"),), queue_size=16, rings=RINGS | RING_PACKED
        )
        return VirtioMmio("mmio", machine, device=device)

    def also(device: Device, random: Random) -> None:
        drive(device, random, lambda queue: message(random) if queue.index == 3 else random.randbytes(40))
        port = random.choice(chars)
        if random.random() < 0.2:
            port.take()
        elif len(port._typed) < 1000:
            port.type(random.randbytes(random.randrange(50)))

    fuzz(make, 1230, also=also)
