"""A driver of the GICv3's ITS for tests: tables in memory, commands, configuration of LPIs. Works on QEMU's as well."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from tests.machine.gicv3 import GICR, GITS

if TYPE_CHECKING:
    from tests.machine.qtest import Bus

RAM = 0x4100_0000  # what the driver has of memory
DEVICES, COLLECTIONS, QUEUE, PROPERTIES, PENDING, ITTS = (RAM + 0x10_0000 * n for n in range(6))
QUEUE_SIZE = 0x1_0000
VALID = 1 << 63
LPIS = 8192
EVENTS = 5  # bits of event IDs
MOVI, INT, CLEAR, SYNC, MAPD, MAPC, MAPTI, MAPI, INV, INVALL, MOVALL, DISCARD = (
    0x01, 0x03, 0x04, 0x05, 0x08, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F,
)  # fmt: skip
Words = tuple[int, int, int, int]


def event(opcode: int, device: int, number: int, last: int = 0, high: int = 0) -> Words:
    """MAPTI (high: the interrupt, last: the collection), MAPI, MOVI, INT, CLEAR, INV, DISCARD."""
    return opcode | device << 32, number | high << 32, last, 0


def mapd(device: int, itt: int, bits: int = EVENTS, *, valid: bool = True) -> Words:
    return MAPD | device << 32, bits - 1, itt | valid << 63, 0


def mapc(collection: int, cpu: int, *, valid: bool = True) -> Words:
    return MAPC, 0, collection | cpu << 16 | valid << 63, 0


def sync(cpu: int) -> Words:
    return SYNC, 0, cpu << 16, 0


class Its:
    """The service, as a kernel uses it."""

    def __init__(self, bus: Bus, cpus: int = 2) -> None:
        self.bus = bus
        self.cpus = cpus
        self.at = 0

    def start(self, indirect: int = 0) -> None:
        bus = self.bus
        for cpu in range(self.cpus):
            bus.write(GICR + 0x2_0000 * cpu + 0x70, PROPERTIES | 15, 8)
            bus.write(GICR + 0x2_0000 * cpu + 0x78, self.pending(cpu), 8)
        bus.write(GITS + 0x100, VALID | DEVICES | indirect << 62 | (0 if indirect else 1 << 9), 8)
        bus.write(GITS + 0x108, VALID | COLLECTIONS | 1 << 9, 8)
        bus.write(GITS + 0x80, VALID | QUEUE | QUEUE_SIZE // 4096 - 1, 8)
        bus.write(GITS + 0x88, 0, 8)
        bus.write(GITS, 1)
        self.lpis(enable=True)

    def pending(self, cpu: int) -> int:
        """The address of a pending table."""
        return PENDING + 0x1_0000 * cpu

    def lpis(self, *, enable: bool) -> None:
        for cpu in range(self.cpus):
            self.bus.write(GICR + 0x2_0000 * cpu, int(enable))

    def put(self, words: Words) -> None:
        """A command into the queue."""
        for index, word in enumerate(words):
            self.bus.write(QUEUE + self.at + 8 * index, word, 8)
        self.at = (self.at + 32) % QUEUE_SIZE

    def kick(self) -> None:
        self.bus.write(GITS + 0x88, self.at, 8)

    def do(self, *commands: Words) -> None:
        for words in commands:
            self.put(words)
        self.kick()

    def configure(self, interrupt: int, priority: int, *, enabled: bool = True) -> None:
        self.bus.write(PROPERTIES + interrupt - LPIS, priority | 2 | enabled, 1)


def encoded(words: Words) -> bytes:
    return struct.pack("<4Q", *words)
