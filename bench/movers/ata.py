"""Reading a disk through IDE and AHCI."""

from __future__ import annotations

import struct

from dbt.machine.ata import AtaDisk
from dbt.machine.devices.ich9_ahci import Ich9Ahci
from dbt.machine.devices.piix3_ide import Piix3Ide

from bench.movers import DEVICE, IMAGE, MIB, PAGE, SECTOR, Mover, Traps, disk

BLOCK, MASTER = 0x1F0, 0xC000
DATA, TABLES = 16 * MIB, 1 * MIB
REQUEST = 128 << 10
SECTORS = REQUEST // SECTOR
PAGES = [(DATA + 2 * PAGE * n, PAGE) for n in range(REQUEST // PAGE)]  # none beside another


class Ide(Mover):
    """What its ways have in common: the controller, and giving a command."""

    size = MIB
    blocks = 1  # sectors of a block of data

    def build(self) -> None:
        """A PIIX3 with its ports and bus master on."""
        drive = AtaDisk("disk", self.machine, disk())
        self.ide = Piix3Ide("ide", self.machine, bus=self.bus, slot=1, drives=(drive,))
        self.machine.reset()
        self.ide.config_write(0x40, 4, 0x8000_8000)
        self.ide.config_write(0x20, 4, MASTER)
        self.ide.config_write(4, 2, 5)
        self.got: list[int] = []

    def command(self, traps: Traps, opcode: int, first: int, sectors: int) -> None:
        """With an address of 48 bits, as drivers have used for twenty years."""
        out = traps.out
        for register, value in (
            (2, sectors >> 8 & 255), (3, first >> 24), (4, 0), (5, 0),
            (2, sectors & 255), (3, first & 255), (4, first >> 8 & 255), (5, first >> 16 & 255), (6, 0xE0), (7, opcode),
        ):  # fmt: skip
            out(BLOCK + register, 1, value)

    def pio(self, traps: Traps, opcode: int) -> None:
        """A status for each block, then its words."""
        first = 0
        inp, words = traps.inp, range(self.blocks * SECTOR // 2)
        for _ in range(self.requests):
            count = self.size // self.requests // SECTOR
            self.command(traps, opcode, first, count)
            for _ in range(count // self.blocks):
                inp(BLOCK + 7, 1)
                self.got = [inp(BLOCK, 2) for _ in words]
            first += count

    def check(self) -> bool:
        """The last block."""
        data = struct.pack(f"<{len(self.got)}H", *self.got)
        return data == IMAGE[self.size - len(data) : self.size]


class Pio(Ide):
    """READ SECTORS EXT."""

    NAME = "IDE, PIO"
    requests = 8

    def move(self, traps: Traps) -> None:
        """Sector by sector."""
        self.pio(traps, 0x24)


class Multiple(Ide):
    """READ MULTIPLE EXT."""

    NAME = "IDE, PIO of 16 sectors"
    requests = 8
    blocks = 16

    def move(self, traps: Traps) -> None:
        """Sixteen sectors after each interrupt."""
        self.pio(traps, 0x29)


class Dma(Ide):
    """READ DMA EXT, 128 KiB at a time."""

    NAME = "IDE, DMA"
    size = 4 * MIB

    def build(self) -> None:
        """And a table of pages."""
        super().build()
        self.requests = self.size // REQUEST
        rows = [struct.pack("<II", address, length) for address, length in PAGES]
        rows[-1] = struct.pack("<II", PAGES[-1][0], PAGES[-1][1] | 1 << 31)
        self.ram[TABLES : TABLES + 8 * len(rows)] = b"".join(rows)

    def move(self, traps: Traps) -> None:
        """The bus master's registers, the command, and the interrupt."""
        out, inp = traps.out, traps.inp
        for number in range(self.requests):
            out(MASTER + 4, 4, TABLES)
            out(MASTER + 2, 1, 6)
            out(MASTER, 1, 8)
            self.command(traps, 0x25, number * SECTORS, SECTORS)
            out(MASTER, 1, 9)
            inp(MASTER + 2, 1)
            out(MASTER, 1, 8)
            out(MASTER + 2, 1, 6)
            inp(BLOCK + 7, 1)

    def check(self) -> bool:
        """The last request."""
        return there(self.ram) == IMAGE[self.size - REQUEST : self.size]


def there(ram: memoryview) -> bytes:
    """What a request has left in its pages."""
    return b"".join(ram[address : address + length] for address, length in PAGES)


class Ahci(Mover):
    """READ FPDMA QUEUED of 128 KiB, `DEPTH` at a time."""

    NAME = "AHCI"
    DEPTH = 1
    size = 4 * MIB

    def build(self) -> None:
        """A port with commands in all slots: request n in slot n."""
        self.requests = self.size // REQUEST
        drive = AtaDisk("disk", self.machine, disk())
        ahci = Ich9Ahci("ahci", self.machine, bus=self.bus, slot=1, drives=(drive,))
        self.machine.reset()
        ahci.config_write(0x24, 4, DEVICE)
        ahci.config_write(4, 2, 6)
        rows = b"".join(struct.pack("<QII", address, 0, length - 1) for address, length in PAGES)
        for slot in range(32):
            table, first = TABLES + 0x1000 * (slot + 1), slot * SECTORS
            frame = struct.pack(
                "<BBBBBBBBBBBBHxx", 0x27, 0x80, 0x60, SECTORS & 255, first & 255, first >> 8, 0, 0x40, 0, 0, 0,
                SECTORS >> 8, slot << 3,
            )  # fmt: skip
            self.ram[table : table + 0x80 + len(rows)] = frame.ljust(0x80, b"\0") + rows
            head = struct.pack("<HHIQ", 5, len(PAGES), 0, table)
            self.ram[TABLES + 32 * slot : TABLES + 32 * slot + 16] = head
        write = self.machine.memory.write
        port = self.port = DEVICE + 0x100
        for offset, value in ((0, TABLES), (8, TABLES + 0x400), (0x18, 0x10), (0x30, 0xFFFFFFFF), (0x10, 0xFFFFFFFF)):
            write(port + offset, 4, value)
        write(DEVICE + 4, 4, 0x8000_0002)
        write(port + 0x14, 4, 0x7DC0007F)
        write(port + 0x18, 4, 0x11)

    def move(self, traps: Traps) -> None:
        """Issue, and deal with the interrupt."""
        write, read, port = traps.write, traps.read, self.port
        slots = (1 << self.DEPTH) - 1
        for start in range(0, self.requests, self.DEPTH):
            write(port + 0x34, 4, slots << start % 32)
            write(port + 0x38, 4, slots << start % 32)
            self.settle()
            read(DEVICE + 8, 4)
            write(port + 0x10, 4, read(port + 0x10, 4))
            read(port + 0x34, 4)
            write(DEVICE + 8, 4, 1)

    def check(self) -> bool:
        """The last request, and that nothing is left."""
        idle = self.machine.memory.read(self.port + 0x34, 4) == 0
        return idle and there(self.ram) == IMAGE[self.size - REQUEST : self.size]


class Queued(Ahci):
    """All slots at once."""

    NAME = "AHCI, 32 queued"
    DEPTH = 32


MOVERS = (Pio, Multiple, Dma, Ahci, Queued)
