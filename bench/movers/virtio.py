"""Reading a disk and sending packets through virtio (version 1.2), over MMIO and split rings."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from dbt.machine.devices.virtio_blk import VirtioBlk
from dbt.machine.devices.virtio_net import VirtioNet
from dbt.machine.virtio.mmio import VirtioMmio

from bench.movers import IMAGE, MIB, PAGE, SECTOR, Mover, Traps, disk, network
from bench.movers.ata import PAGES, REQUEST, TABLES, there

if TYPE_CHECKING:
    from dbt.machine.virtio import VirtioDevice

BASE = 0xA000_0000
SIZE = 256  # of a ring
DESCRIPTORS, AVAILABLE, USED = TABLES, TABLES + 0x2000, TABLES + 0x4000
LISTS = TABLES + 0x1_0000
VERSION_1, INDIRECT = 1 << 32, 1 << 28
NEXT, WRITES, TABLE = 1, 2, 4


class Virtio(Mover):
    """A device with one queue in use; entry n of the available ring is always chain `heads[n]`."""

    queue = 0
    features = VERSION_1

    def device(self) -> VirtioDevice:
        """Make it."""
        raise NotImplementedError

    def chains(self) -> list[int]:
        """Write descriptors; the heads, as many as divide the ring."""
        raise NotImplementedError

    def build(self) -> None:
        """Negotiate, and set the queue up."""
        self.made = self.device()
        self.machine.place(VirtioMmio("mmio", self.machine, device=self.made), BASE)
        self.machine.reset()
        write = self.machine.memory.write
        low, high = self.features & 0xFFFF_FFFF, self.features >> 32
        for offset, value in (
            (0x70, 3), (0x24, 0), (0x20, low), (0x24, 1), (0x20, high), (0x70, 11), (0x30, self.queue), (0x38, SIZE),
            (0x80, DESCRIPTORS), (0x90, AVAILABLE), (0xA0, USED), (0x44, 1), (0x70, 15),
        ):  # fmt: skip
            write(BASE + offset, 4, value)
        heads = self.chains()
        for entry in range(SIZE):
            struct.pack_into("<H", self.ram, AVAILABLE + 4 + 2 * entry, heads[entry % len(heads)])
        self.available = 0

    def describe(self, slot: int, address: int, length: int, flags: int, following: int = 0) -> None:
        """One descriptor."""
        struct.pack_into("<QIHH", self.ram, DESCRIPTORS + 16 * slot, address, length, flags, following)

    def offer(self, traps: Traps, chains: int) -> None:
        """Make chains available, and say so once."""
        self.available = (self.available + chains) & 0xFFFF
        struct.pack_into("<H", self.ram, AVAILABLE + 2, self.available)
        traps.write(BASE + 0x50, 4, self.queue)
        self.settle()

    @property
    def idle(self) -> bool:
        """Whether the device has given everything back."""
        used: int = struct.unpack_from("<H", self.ram, USED + 2)[0]
        return used == self.available


class Blk(Virtio):
    """Reads of 128 KiB in pages, by tables of descriptors, `DEPTH` at a time."""

    NAME = "virtio-blk"
    DEPTH = 1
    size = 4 * MIB
    features = VERSION_1 | INDIRECT

    def device(self) -> VirtioDevice:
        """With a disk."""
        self.requests = self.size // REQUEST
        return VirtioBlk("blk", self.machine, disk())

    def chains(self) -> list[int]:
        """Request n in slot n."""
        for slot in range(32):
            table = LISTS + PAGE * slot
            header, status = table + 0x800, table + 0x810
            struct.pack_into("<IIQ", self.ram, header, 0, 0, slot * REQUEST // SECTOR)
            buffers = [(header, 16, 0), *((address, length, WRITES) for address, length in PAGES), (status, 1, WRITES)]
            for number, (address, length, flags) in enumerate(buffers):
                more = NEXT if number + 1 < len(buffers) else 0
                struct.pack_into("<QIHH", self.ram, table + 16 * number, address, length, flags | more, number + 1)
            self.describe(slot, table, 16 * len(buffers), TABLE)
        return list(range(32))

    def move(self, traps: Traps) -> None:
        """A notification, and the interrupt: its reasons, and the acknowledgement."""
        for _ in range(0, self.requests, self.DEPTH):
            self.offer(traps, self.DEPTH)
            traps.write(BASE + 0x64, 4, traps.read(BASE + 0x60, 4))

    def check(self) -> bool:
        """The last request."""
        return self.idle and there(self.ram) == IMAGE[self.size - REQUEST : self.size]


class BlkQueued(Blk):
    """32 requests for each notification."""

    NAME = "virtio-blk, 32 queued"
    DEPTH = 32


class Net(Virtio):
    """Packets of 1,514 bytes, each with a notification; interrupts of sending are switched off, as drivers do."""

    NAME = "virtio-net"
    LENGTH = network.FRAME
    DEPTH = 1
    queue = 1
    header = bytes(12)
    size = MIB // network.FRAME * network.FRAME

    def device(self) -> VirtioDevice:
        """On a network that counts."""
        self.requests = self.size // self.LENGTH
        self.sink = network.Sink()
        return VirtioNet("net", self.machine, self.sink)

    def chains(self) -> list[int]:
        """A header and a frame."""
        frame = network.frame(self.LENGTH)
        struct.pack_into("<H", self.ram, AVAILABLE, 1)  # no interrupts
        count = 32
        for slot in range(count):
            at = LISTS + 0x2_0000 * slot
            self.ram[at : at + 12] = self.header
            self.ram[at + PAGE : at + PAGE + len(frame)] = frame
            self.describe(2 * slot, at, 12, NEXT, 2 * slot + 1)
            self.describe(2 * slot + 1, at + PAGE, len(frame), 0)
        return [2 * slot for slot in range(count)]

    def move(self, traps: Traps) -> None:
        """A notification for each `DEPTH`."""
        left = self.requests
        self.sink.bytes = 0
        while left:
            count = min(self.DEPTH, left)
            self.offer(traps, count)
            left -= count

    def check(self) -> bool:
        """All bytes."""
        return self.idle and self.sink.bytes == self.size


class NetBatches(Net):
    """As a driver does that knows of more: 32 packets for each notification."""

    NAME = "virtio-net, 32 at a time"
    DEPTH = 32


class NetLarge(Net):
    """Packets of 60 KiB, segmented beyond the device if at all."""

    NAME = "virtio-net, TSO"
    LENGTH = network.LARGE
    size = 4 * MIB // network.LARGE * network.LARGE
    features = VERSION_1 | 1 << 0 | 1 << 11  # CSUM, HOST_TSO4
    header = struct.pack("<BBHHHHH", 1, 1, 54, network.SEGMENT, 34, 16, 0)


MOVERS = (Blk, BlkQueued, Net, NetBatches, NetLarge)
