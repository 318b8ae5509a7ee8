"""A driver for virtio-net from the specification (1.2, section 5.1), for tests of devices and of back ends."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from dbt.machine.net.offload import NO_HEADER, Offload, segment, unpack
from dbt.machine.virtio.spec import VERSION_1

from tests.machine.net.guest import Guest as Stack

if TYPE_CHECKING:
    from tests.machine.virtio import Guest, Ring

MRG_RXBUF, CTRL_VQ, MQ = 1 << 15, 1 << 17, 1 << 22


class NetDriver:
    """Sends frames and takes those that come; `buffer`: bytes of each receive buffer."""

    def __init__(self, guest: Guest, wanted: int = ~0, *, buffer: int | None = None, pairs: int = 1) -> None:
        self.guest = guest
        self.accepted = guest.begin(wanted)
        self.merge = bool(self.accepted & MRG_RXBUF)
        self.header = 12 if self.merge or self.accepted & VERSION_1 else 10
        self.buffer = buffer or (2048 if self.merge else 66000 if self.accepted & 0x780 else 1600)
        self.receive = [guest.queue(2 * number, 256) for number in range(pairs)]
        self.transmit = [guest.queue(2 * number + 1, 256) for number in range(pairs)]
        most = guest.transport.config(8, 2) if self.accepted & MQ else 1
        self.control = guest.queue(2 * most, 64) if self.accepted & CTRL_VQ else None
        guest.go()
        self.posted: list[dict[int, int]] = [{} for _ in range(pairs)]  # chain to address
        self.parts: list[bytes] = []
        self.left = 0  # buffers of a frame that are still to come
        self.headers: list[bytes] = []
        self.memory = [[guest.pool.take(self.buffer) for _ in range(48)] for _ in range(pairs)]
        self.out = guest.pool.take(70000)
        for number in range(pairs):
            self.post(number)

    def post(self, number: int) -> None:
        """Give all free buffers to the device."""
        ring, free = self.receive[number], self.memory[number]
        if not free:
            return
        while free:
            at = free.pop()
            chain = ring.add([(at, self.buffer, True)])
            self.posted[number][chain] = at
        ring.kick()

    def send(self, frame: bytes, offload: Offload | None = None, *, pair: int = 0) -> None:
        """One frame, and waiting until it is sent."""
        header = (offload.pack() if offload else NO_HEADER).ljust(self.header, b"\0")
        ring = self.transmit[pair]
        bus, at = self.guest.bus, self.out
        bus.store(at, header + frame)
        ring.add([(at, self.header, False), (at + self.header, len(frame), False)])
        ring.kick()
        self.guest.wait(ring, 1)

    def raw(self) -> list[tuple[bytes, bytes]]:
        """(header, frame) of what has come."""
        found = []
        for number, ring in enumerate(self.receive):
            for chain, written in ring.used():
                at = self.posted[number].pop(chain)
                data = self.guest.bus.load(at, written)
                self.memory[number].append(at)
                if self.merge and not self.left:
                    self.left = struct.unpack_from("<H", data, 10)[0]
                    assert self.left
                self.parts.append(data)
                self.left = max(self.left - 1, 0)
                if not self.left:
                    whole, self.parts = b"".join(self.parts), []
                    found.append((whole[: self.header], whole[self.header :]))
            self.post(number)
        return found

    def poll(self) -> list[bytes]:
        """The frames that have come, as they would have been without offloads."""
        frames: list[bytes] = []
        for header, frame in self.raw():
            self.headers.append(header)
            offload = unpack(header)
            frames += segment(frame, offload) if offload else [frame]
        return frames

    def command(self, kind: int, command: int, data: bytes) -> int:
        """One command of the control queue; the answer."""
        assert self.control is not None
        out = [bytes((kind, command)), *([data] if data else [])]
        _, answer = self.guest.request(self.control, out, [1], indirect=False)
        return answer[0]

    def stack(self, lock: object) -> Stack:
        """A network stack on this driver."""
        return Stack(self.send, self.poll, lock)

    def ring(self, index: int) -> Ring:
        """The ring of a queue."""
        return (self.receive if index % 2 == 0 else self.transmit)[index // 2]
