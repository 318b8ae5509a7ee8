"""What networks cost: `python -m bench machine` runs this and reads the JSON line that it prints.

Packets that a driver has in the ring of a virtio-net in front of a sink, and a download through the user-mode network
by a guest that does nothing but acknowledge. Processor time of this process: others on the machine do not count.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
import time

from dbt.machine.devices.virtio_net import VirtioNet
from dbt.machine.machine import Machine
from dbt.machine.memory import RAM
from dbt.machine.net.backend import Sink
from dbt.machine.net.offload import CSUM, TSO4, Buffer, Offload
from dbt.machine.net.user.net import UserNet
from dbt.machine.net.user.options import make_options
from dbt.machine.net.user.packets import ether, ip_header
from dbt.machine.virtio.mmio import VirtioMmio

RAM_AT, MMIO_AT, ENTRIES = 0x4000_0000, 0x0A00_0000, 256
TABLE, AVAILABLE, USED, FRAMES = RAM_AT, RAM_AT + 0x2000, RAM_AT + 0x3000, RAM_AT + 0x10000
MIB = 32
GUEST, GATEWAY = bytes((10, 0, 2, 15)), bytes((10, 0, 2, 2))
MAC, ROUTER = b"\x52\x54\0\x12\x34\x56", b"\x52\x55" + GATEWAY


def card(size: int, queue: int, flags: int) -> tuple[Machine, Sink]:
    """A machine whose driver has filled a ring with buffers of this size, each with a header in front."""
    machine, sink = Machine(), Sink()
    machine.place(RAM("ram", 1 << 20), RAM_AT)
    machine.place(VirtioMmio("mmio", machine, device=VirtioNet("net", machine, sink)), MMIO_AT)
    machine.reset()
    write = machine.memory.write
    for slot in range(ENTRIES):
        write(TABLE + 16 * slot, 8, FRAMES + 2048 * (slot % 64))
        write(TABLE + 16 * slot + 8, 8, 12 + size | flags << 32)
        write(AVAILABLE + 4 + 2 * slot, 2, slot)
    for offset, value in (
        (0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11), (0x30, queue), (0x38, ENTRIES), (0x80, TABLE), (0x90, AVAILABLE),
        (0xA0, USED), (0x44, 1), (0x70, 15),
    ):  # fmt: skip
        write(MMIO_AT + offset, 4, value)
    return machine, sink


def packets(size: int, count: int) -> float:
    """Nanoseconds for each of `count` packets that are sent."""
    machine, sink = card(size, 1, 0)
    start = time.process_time_ns()
    for number in range(1, count // ENTRIES + 1):
        machine.memory.write(AVAILABLE + 2, 2, number * ENTRIES & 0xFFFF)
        machine.memory.write(MMIO_AT + 0x50, 4, 1)
        while sink.frames < number * ENTRIES:
            machine.advance(0)
    return (time.process_time_ns() - start) / sink.frames


def received(size: int, count: int) -> float:
    """The same for packets that come."""
    machine, sink = card(size, 0, 2)
    frame = MAC + bytes(size - 6)
    start = time.process_time_ns()
    for number in range(1, count // ENTRIES + 1):
        machine.memory.write(AVAILABLE + 2, 2, number * ENTRIES & 0xFFFF)
        machine.memory.write(MMIO_AT + 0x50, 4, 0)
        with machine.lock:
            for _ in range(ENTRIES):
                if not sink.offer(frame):
                    raise AssertionError
    return (time.process_time_ns() - start) / count


class Reader:
    """A guest that acknowledges. `accepts`: what its card takes in whole."""

    def __init__(self, net: UserNet, lock: threading.RLock, accepts: int) -> None:
        self.net, self.lock, self.accepts = net, lock, accepts
        self.next = self.got = 0
        self.ended = False
        self.event = threading.Event()
        net.attach(self)

    def receive(self, frame: Buffer, offload: Offload | None = None) -> bool:
        """Count what follows."""
        del offload
        if frame[23] == 6:
            sequence, _, offset, flags = struct.unpack_from(">IIBB", frame, 38)
            length = len(frame) - 34 - (offset >> 4) * 4
            if flags & 2 or sequence == self.next:
                self.next = sequence + length + (flags & 3 > 0) & 0xFFFF_FFFF
                self.got += length
                self.ended |= bool(flags & 1)
                self.event.set()
        return True

    def ready(self) -> None:
        """Nothing waits."""

    def link_changed(self) -> None:
        """Nobody asks."""

    def guest_error(self, thing: str, detail: str = "") -> None:
        """Not to happen."""
        raise AssertionError(thing + detail)

    def send(self, port: int, sequence: int, flags: int, said: bytes = b"") -> None:
        """A segment; the checksum is left to the other side."""
        words = (40000, port, sequence, self.next if flags & 16 else 0, 20 + len(said) << 2, flags, 0xFFFF, 0, 0)
        segment = struct.pack(">HHIIBBHHH", *words) + said
        header = ether(ROUTER, MAC) + ip_header(GUEST, GATEWAY, 6, len(segment), 1)
        with self.lock:
            self.net.send(header + segment, Offload(True, 34, 16))


def download(accepts: int) -> float:
    """MiB a second."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if not os.fork():
            peer, _ = listener.accept()
            for _ in range(MIB):
                peer.sendall(bytes(1 << 20))
            os._exit(0)
    lock = threading.RLock()
    net = UserNet(lock, make_options(loopback=True))
    reader = Reader(net, lock, accepts)
    start = time.process_time()
    reader.send(port, 1, 2, bytes((2, 4, 5, 0xB4, 1, 3, 3, 7)))
    while not reader.ended:
        if not reader.event.wait(30):
            raise TimeoutError
        reader.event.clear()
        reader.send(port, 2, 16)
    seconds = time.process_time() - start
    net.close()
    os.wait()
    if reader.got != MIB << 20:
        raise AssertionError(reader.got)
    return MIB / seconds


def main(rounds: int) -> None:
    """Print figures, one of each round, and packets by their number."""
    figures: dict[str, list[float]] = {}
    for size in (64, 512, 1500):
        figures[f"packet of {size} bytes sent"] = [packets(size, 25_600) for _ in range(rounds)]
    figures["packet of 1500 bytes received"] = [received(1500, 25_600) for _ in range(rounds)]
    for count in (1024, 10_240, 102_400):
        figures[f"packet sent, of {count}"] = [packets(64, count)]
    figures["MiB downloaded in large segments"] = [1e9 / download(CSUM | TSO4) for _ in range(rounds)]
    figures["MiB downloaded in packets"] = [1e9 / download(0) for _ in range(rounds)]
    print(json.dumps(figures))


if __name__ == "__main__":
    main(int(sys.argv[1]))
