"""Sending packets through an e1000, and what all cards send."""

from __future__ import annotations

import struct

from dbt.machine.devices.e1000 import E1000
from dbt.machine.net.backend import NetBackend

from bench.movers import DEVICE, IMAGE, MIB, PAGE, Mover, Traps

SEGMENT, HEADERS = 1448, 14 + 20 + 20
FRAME, LARGE = 1514, HEADERS + 42 * SEGMENT  # an ordinary packet, and one of 60 KiB that is segmented later
RING, BUFFERS, ENTRIES = 1 * MIB, 2 * MIB, 256
TDBAL, TDLEN, TDH, TDT, TCTL = 0x3800, 0x3808, 0x3810, 0x3818, 0x0400
EOP, IFCS, RS = 1 << 24, 1 << 25, 1 << 27  # of a descriptor's second word
DEXT, TSE, DATA = 1 << 29, 1 << 26, 1 << 20
TCP_IP = 1 << 24 | 1 << 25
DONE = 1


class Sink(NetBackend):
    """Counts what arrives, and takes segmentation in whole, as a tap of the host does."""

    offers = 0x3F

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def put(self, frame: bytes | bytearray | memoryview, offload: object = None) -> bool:
        """One more."""
        del offload
        self.bytes += len(frame)
        return True


def frame(length: int) -> bytes:
    """A TCP segment of a large packet's length, or of an ordinary one's."""
    ethernet = b"\x52\x54\0\1\2\3\x52\x54\0\1\2\4\x08\0"
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, length - 14, 1, 0x4000, 64, 6, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    tcp = struct.pack(">HHIIBBHHH", 1000, 2000, 1, 1, 0x50, 0x10, 0xFFFF, 0, 0)
    return ethernet + ip + tcp + IMAGE[: length - HEADERS]


class Card(Mover):
    """Packets of 1,514 bytes, `DEPTH` for each write of the tail; what was sent is seen in the ring, as drivers do."""

    NAME = "e1000"
    LENGTH = FRAME
    DEPTH = 1
    size = MIB // FRAME * FRAME

    def build(self) -> None:
        """Fill the ring: its entries are the same packet again and again."""
        self.requests = self.size // self.LENGTH
        self.sink = Sink()
        card = E1000("card", self.machine, bus=self.bus, slot=1, net=self.sink)
        self.machine.reset()
        card.config_write(0x10, 4, DEVICE)
        card.config_write(4, 2, 6)
        data = frame(self.LENGTH)
        self.ram[BUFFERS : BUFFERS + len(data)] = data
        packet = self.packet()
        self.entries = len(packet)
        self.count = ENTRIES // self.entries * self.entries
        self.ram[RING : RING + 16 * self.count] = b"".join(packet) * (self.count // self.entries)
        for offset, value in ((TDBAL, RING), (TDLEN, 16 * self.count), (TDH, 0), (TDT, 0), (TCTL, 0x0004_010A)):
            self.machine.memory.write(DEVICE + offset, 4, value)
        self.tail = 0

    def packet(self) -> list[bytes]:
        """Its descriptors: one."""
        return [struct.pack("<QII", BUFFERS, self.LENGTH | EOP | IFCS | RS, 0)]

    def move(self, traps: Traps) -> None:
        """A write of the tail for each `DEPTH` packets."""
        left = self.requests
        self.sink.bytes = 0
        while left:
            packets = min(self.DEPTH, left)
            self.tail = (self.tail + packets * self.entries) % self.count
            traps.write(DEVICE + TDT, 4, self.tail)
            self.settle()
            left -= packets

    def check(self) -> bool:
        """All bytes, and the descriptors say so."""
        done = self.ram[RING + 16 * ((self.tail - 1) % self.count) + 12] & DONE
        return bool(done) and self.sink.bytes == self.size


class CardBatches(Card):
    """32 packets for each write of the tail."""

    NAME = "e1000, 32 at a time"
    DEPTH = 32


class CardLarge(Card):
    """Packets of 60 KiB in pages, which the card has segmented."""

    NAME = "e1000, TSO"
    LENGTH = LARGE
    size = 4 * MIB // LARGE * LARGE

    def packet(self) -> list[bytes]:
        """A context, and pages."""
        payload = self.LENGTH - HEADERS
        context = struct.pack(
            "<BBHBBHIBBH", 14, 24, 33, 34, 50, 0, payload | DEXT | TSE | TCP_IP, 0, HEADERS, SEGMENT
        )  # fmt: skip
        rows = [context]
        for at in range(0, self.LENGTH, PAGE):
            length = min(PAGE, self.LENGTH - at)
            last = EOP | RS if at + length == self.LENGTH else 0
            rows.append(struct.pack("<QII", BUFFERS + at, length | DATA | DEXT | TSE | IFCS | last, 0x0300))
        return rows


MOVERS = (Card, CardBatches, CardLarge)
