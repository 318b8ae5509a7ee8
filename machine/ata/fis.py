"""Frame information structures (Serial ATA 3.x, 10.5) and AHCI's structures in memory (AHCI 1.3.1, 4.2), as bytes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.ata.drive import Drive
    from dbt.machine.memory import DmaPort

REGISTER_H2D, REGISTER_D2H, DMA_SETUP, PIO_SETUP, SET_DEVICE_BITS = 0x27, 0x34, 0x41, 0x5F, 0xA1
COMMAND_BIT, PORT_MULTIPLIER = 0x80, 0x0F  # of byte 1 of a register FIS to the device
INTERRUPT, TO_HOST = 0x40, 0x20
# Offsets in the received FIS structure.
AT = {DMA_SETUP: 0x00, PIO_SETUP: 0x20, REGISTER_D2H: 0x40, SET_DEVICE_BITS: 0x58}

HEADER = struct.Struct("<HHIQ")  # of a command: flags, PRDTL, PRDBC, address of its table
HEADER_SIZE = 32
LENGTH, ATAPI, WRITE, CLEAR_BUSY = 0x1F, 0x20, 0x40, 0x400  # flags
PACKET_AT, PRDT_AT, TABLE_HEAD = 0x40, 0x80, 0x50  # in a command table; what of it is read at once
DESCRIPTOR = struct.Struct("<QII")
BYTES, WANTS_INTERRUPT = 0x3F_FFFF, 1 << 31
BATCH, PAGE = 32, 4096


def load(drive: Drive, fis: bytes) -> None:
    """The task file of a register FIS goes into the drive's."""
    drive.feature = fis[11] << 8 | fis[3]
    drive.low, drive.mid, drive.high = (fis[8 + n] << 8 | fis[4 + n] for n in range(3))
    drive.select = fis[7]
    drive.count = fis[13] << 8 | fis[12]


def _registers(drive: Drive, kind: int, flags: int) -> bytearray:
    low, mid, high, count = drive.low, drive.mid, drive.high, drive.count
    return bytearray((
        kind, flags, drive.status, drive.error,
        low & 255, mid & 255, high & 255, drive.select,
        low >> 8, mid >> 8, high >> 8, 0,
        count & 255, count >> 8, 0, 0, 0, 0, 0, 0,
    ))  # fmt: skip


def register_d2h(drive: Drive, *, interrupt: bool) -> bytes:
    """The task file to the host."""
    return bytes(_registers(drive, REGISTER_D2H, INTERRUPT if interrupt else 0))


def pio_setup(drive: Drive, length: int, *, to_host: bool, interrupt: bool) -> bytes:
    """A block of PIO data is about to come or wanted; the status is that before it, and after it in byte 15."""
    flags = (TO_HOST if to_host else 0) | (INTERRUPT if interrupt else 0)
    frame = _registers(drive, PIO_SETUP, flags)
    frame[15], frame[2] = drive.status, 0x58
    frame[16:18] = min(length, 0xFFFF).to_bytes(2, "little")
    return bytes(frame)


def dma_setup(tag: int, length: int, *, to_host: bool) -> bytes:
    """A queued command's data is about to move."""
    head = bytes((DMA_SETUP, TO_HOST if to_host else 0, 0, 0)) + tag.to_bytes(8, "little")
    return head + bytes(8) + (length & 0xFFFF_FFFF).to_bytes(4, "little") + bytes(4)


def set_device_bits(status: int, error: int, active: int) -> bytes:
    """Queued commands have ended."""
    return bytes((SET_DEVICE_BITS, INTERRUPT, status & 0x77, error)) + active.to_bytes(4, "little")


def descriptors(
    dma: DmaPort, table: int, entries: int, wanted: Callable[[], None]
) -> Callable[[int], list[tuple[int, int]]]:
    """What Scatter fetches a PRDT with; `wanted` is called if a descriptor asks for an interrupt."""

    def fetch(index: int) -> list[tuple[int, int]]:
        at = table + PRDT_AT + DESCRIPTOR.size * index
        count = min(entries - index, BATCH, max((PAGE - at % PAGE) // DESCRIPTOR.size, 1))
        if count <= 0:
            return []
        found: list[tuple[int, int]] = []
        for address, _, length in DESCRIPTOR.iter_unpack(dma.dma_read(at, DESCRIPTOR.size * count)):
            found.append((address & ~1, (length & BYTES | 1) + 1))
            if length & WANTS_INTERRUPT:
                wanted()
        return found

    return fetch
