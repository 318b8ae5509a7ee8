"""What drivers of ATA do, on any bus of qtest.py: tests of IDE and AHCI share it."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.machine.qtest import Bus

ERR, DRQ, BSY = 0x01, 0x08, 0x80
LBA = 0x40
BLOCK, CONTROL = 0x1F0, 0x3F6
SECOND = (0x170, 0x376)  # of the second channel
SECTOR = 512
PRD = struct.Struct("<II")


def settle(bus: Bus, busy: Callable[[], bool]) -> None:
    """Wait until `busy()` is false; what it reads leaves no trace."""
    machine = getattr(bus, "machine", None)
    noted = len(bus.log)
    for attempt in range(60_000):
        state = busy()
        del bus.log[noted:]
        if not state:
            return
        if machine is not None:
            machine.advance(0)
        if attempt:
            time.sleep(0.001)
    raise AssertionError("it stays busy")


def fetch(bus: Bus, address: int, length: int) -> bytes:
    """Bytes of memory, as a read that is compared."""
    data = bus.load(address, length)
    bus.log.append(("fetch", address, length, int.from_bytes(data, "big")))
    return data


def reset(bus: Bus, control: int) -> None:
    bus.out(control, 4)
    bus.out(control, 0)
    Ata(bus, control=control).wait()


class Ata:
    """A driver of one channel; `master`: the port of its bus master's registers, 0 if there is none."""

    def __init__(self, bus: Bus, block: int = BLOCK, control: int = CONTROL, master: int = 0) -> None:
        self.bus = bus
        self.block = block
        self.control = control
        self.master = master
        self.device = 0

    def wait(self) -> int:
        """Until BSY is down; the alternate status."""
        settle(self.bus, lambda: bool(self.bus.inp(self.control) & BSY))
        return self.bus.inp(self.control)

    def status(self, mask: int = -1) -> int:
        return self.bus.inp(self.block + 7, mask=mask)

    def registers(self, mask: int = 0xFF) -> list[int]:
        """All that can be read: error, count, address, device (but bits that are obsolete), status."""
        return [self.bus.inp(self.block + n, mask=mask) for n in range(1, 7)] + [self.status()]

    def select(self, device: int) -> None:
        self.device = device << 4
        self.bus.out(self.block + 6, self.device | 0xA0)

    def put(self, *, feature: int = 0, count: int = 1, lba: int = 0, ext: bool = False, chs: bool = False) -> None:
        """The task file; the address by LBA, or by CHS as 16 bits of cylinder, a head, a sector."""
        out, base = self.bus.out, self.block
        if ext:
            out(base + 1, feature >> 8)
            out(base + 2, count >> 8)
            for n in range(3):
                out(base + 3 + n, lba >> 24 + 8 * n & 255)
        out(base + 1, feature & 255)
        out(base + 2, count & 255)
        for n in range(3):
            out(base + 3 + n, lba >> 8 * n & 255)
        out(base + 6, self.device | 0xA0 | (0 if chs else LBA) | (0 if ext else lba >> 24 & 15))

    def command(self, opcode: int, **file: int) -> int:
        """A command; the alternate status when it is not busy any more."""
        self.put(**file)  # type: ignore[arg-type]
        self.bus.out(self.block + 7, opcode)
        return self.wait()

    def take(self, length: int, size: int = 2) -> bytes:
        """Read a block of data."""
        return b"".join(self.bus.inp(self.block, size).to_bytes(size, "little") for _ in range(length // size))

    def push(self, data: bytes, size: int = 2) -> None:
        """Write a block of data."""
        for at in range(0, len(data), size):
            self.bus.out(self.block, int.from_bytes(data[at : at + size], "little"), size)

    def pio_in(self, opcode: int, blocks: int, length: int = SECTOR, size: int = 2, **file: int) -> bytes:
        """A PIO data-in command: status before and after each block."""
        data = b""
        self.command(opcode, **file)
        for _ in range(blocks):
            self.wait()
            if not self.status() & DRQ:
                break
            data += self.take(length, size)
        self.wait()
        self.status()
        return data

    def pio_out(self, opcode: int, data: bytes, length: int = SECTOR, size: int = 2, **file: int) -> int:
        """A PIO data-out command; the last status."""
        self.command(opcode, **file)
        for at in range(0, len(data), length):
            if not self.wait() & DRQ:
                break
            self.push(data[at : at + length], size)
        self.wait()
        return self.status()

    # Bus master DMA

    def table(self, at: int, pieces: list[tuple[int, int]]) -> None:
        """A descriptor table."""
        rows = [
            PRD.pack(address, length & 0xFFFF | (1 << 31 if n == len(pieces) - 1 else 0))
            for n, (address, length) in enumerate(pieces)
        ]
        self.bus.store(at, b"".join(rows))
        self.bus.out(self.master + 4, at, 4)

    def dma(self, opcode: int, table: int, pieces: list[tuple[int, int]], *, to_memory: bool, **file: int) -> int:
        """A DMA command; the bus master's status at its end."""
        self.table(table, pieces)
        self.bus.out(self.master, 8 if to_memory else 0)
        self.bus.out(self.master + 2, 6)
        self.put(**file)  # type: ignore[arg-type]
        self.bus.out(self.block + 7, opcode)
        return self.run_dma(to_memory=to_memory)

    def run_dma(self, *, to_memory: bool) -> int:
        self.bus.out(self.master + 2, 6)
        self.bus.out(self.master, 9 if to_memory else 1)
        settle(self.bus, lambda: not self.bus.inp(self.master + 2) & 4 and bool(self.bus.inp(self.master + 2) & 1))
        status = self.bus.inp(self.master + 2)
        self.bus.inp(self.master)
        self.wait()
        self.status()
        self.bus.out(self.master, 8 if to_memory else 0)
        self.bus.inp(self.master + 2)
        self.bus.out(self.master + 2, 6)
        self.bus.inp(self.master + 2)
        return status

    # ATAPI

    def packet(self, packet: bytes, *, limit: int = 0xFFFE, dma: bool = False) -> None:
        """Send a packet."""
        self.command(0xA0, feature=int(dma), lba=limit << 8)
        self.bus.inp(self.block + 2, mask=7)
        self.status()
        self.push(packet.ljust(12, b"\0"))

    def packet_in(self, packet: bytes, *, limit: int = 0xFFFE) -> tuple[bytes, int]:
        """A packet command with PIO data to the host: the data, and the error register at the end."""
        self.packet(packet, limit=limit)
        data = b""
        for _ in range(200):
            self.wait()
            self.bus.inp(self.block + 2, mask=7)
            if not self.status() & DRQ:
                break
            length = self.bus.inp(self.block + 4) | self.bus.inp(self.block + 5) << 8
            data += self.take(length + 1 & ~1)[:length]
        return data, self.bus.inp(self.block + 1)
