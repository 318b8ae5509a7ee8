"""A hard disk: the commands of ATA8-ACS (and of ATA-4 what old drivers use) on a `Disk`.

Transfers are one table; what is left of them is in `left` and in the registers, so a saved drive goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

from dbt.machine.ata import commands, identify
from dbt.machine.ata.codes import ABRT, DF, DRDY, ERR, IDNF, MAX_LBA28, READY, SECTOR, UNC, WP, Op, name
from dbt.machine.ata.drive import Drive
from dbt.machine.ata.scatter import Local, Scratch
from dbt.machine.ata.transfer import Moving, Transfer
from dbt.machine.block import FUA, READ, WRITE, BlockError, RequestRefused
from dbt.machine.registers import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.ata.scatter import Source
    from dbt.machine.ata.transfer import Failure
    from dbt.machine.block import Disk
    from dbt.machine.machine import Machine

PIO, MULTIPLE, DMA, VERIFY = "PIO", "multiple", "DMA", "verify"
MAX_MULTIPLE = 16
SCRATCH = 1 << 16


class Io(NamedTuple):
    """A command that moves sectors."""

    operation: int
    way: str
    ext: bool = False
    fua: bool = False


IO: dict[int, Io] = {
    Op.READ_SECTORS: Io(READ, PIO),
    Op.READ_SECTORS_WITHOUT_RETRIES: Io(READ, PIO),
    Op.READ_SECTORS_EXT: Io(READ, PIO, ext=True),
    Op.READ_MULTIPLE: Io(READ, MULTIPLE),
    Op.READ_MULTIPLE_EXT: Io(READ, MULTIPLE, ext=True),
    Op.READ_DMA: Io(READ, DMA),
    Op.READ_DMA_WITHOUT_RETRIES: Io(READ, DMA),
    Op.READ_DMA_EXT: Io(READ, DMA, ext=True),
    Op.READ_VERIFY_SECTORS: Io(READ, VERIFY),
    Op.READ_VERIFY_SECTORS_WITHOUT_RETRIES: Io(READ, VERIFY),
    Op.READ_VERIFY_SECTORS_EXT: Io(READ, VERIFY, ext=True),
    Op.WRITE_SECTORS: Io(WRITE, PIO),
    Op.WRITE_SECTORS_WITHOUT_RETRIES: Io(WRITE, PIO),
    Op.WRITE_SECTORS_EXT: Io(WRITE, PIO, ext=True),
    Op.WRITE_MULTIPLE: Io(WRITE, MULTIPLE),
    Op.WRITE_MULTIPLE_EXT: Io(WRITE, MULTIPLE, ext=True),
    Op.WRITE_MULTIPLE_FUA_EXT: Io(WRITE, MULTIPLE, ext=True, fua=True),
    Op.WRITE_DMA: Io(WRITE, DMA),
    Op.WRITE_DMA_WITHOUT_RETRIES: Io(WRITE, DMA),
    Op.WRITE_DMA_EXT: Io(WRITE, DMA, ext=True),
    Op.WRITE_DMA_FUA_EXT: Io(WRITE, DMA, ext=True, fua=True),
}


def problem(failure: BlockError, operation: int) -> tuple[int, int]:
    """(status, error) of a command whose data the medium refused: ATA8-ACS, normal and error outputs of each."""
    if isinstance(failure, RequestRefused):
        return DRDY | ERR, ABRT | WP
    if operation == READ:
        return DRDY | ERR, UNC
    return DRDY | ERR | DF, ABRT


class AtaDisk(Drive):
    """Hard disk with the ATA command set (ATA8-ACS): LBA48, DMA, NCQ behind AHCI, TRIM, SMART."""

    SIGNATURE: ClassVar[tuple[int, int]] = (0, 0)
    AFTER_RESET: ClassVar[int] = READY

    left = State(bits=17)  # sectors of the command
    multiple = State(bits=8, reset=MAX_MULTIPLE)  # sectors of a block; 0: READ and WRITE MULTIPLE are off
    heads = State(bits=8)  # of the CHS translation that was set
    sectors = State(bits=8)
    power = State(bits=8, reset=0xFF)  # as CHECK POWER MODE answers
    asleep = State(bits=1)
    cached = State(bits=1, reset=1)  # whether writes may wait in a cache
    ahead = State(bits=1, reset=1)
    smart = State(bits=2, reset=3)  # enabled; autosave
    failed_tag = State(bits=8)  # of the NCQ command that failed + 1, until its log has been read: others are aborted
    failed_lba = State(bits=48)
    failed_error = State(bits=8)

    def __init__(
        self,
        name: str,
        machine: Machine,
        disk: Disk,
        *,
        serial: str = "",
        model: str = "DRAGOMAN HARDDISK",
        firmware: str = "1",
        wwn: int = 0,
        rotation: int = 1,
    ) -> None:
        super().__init__(name, machine, disk)
        self.serial = serial or f"DM-{name}"
        self.model = model
        self.firmware = firmware
        self.wwn = wwn
        self.rotation = rotation  # per minute; 1: solid state

    # Geometry

    @property
    def size(self) -> int:
        """Sectors."""
        assert self.disk is not None
        return self.disk.size // SECTOR

    @property
    def geometry(self) -> tuple[int, int, int]:
        """Cylinders, heads and sectors after power-on."""
        return max(2, min(self.size // (16 * 63), 16383)), 16, 63

    @property
    def translation(self) -> tuple[int, int]:
        """Heads and sectors of a track, as a driver has set them or after power-on."""
        return (self.heads, self.sectors) if self.heads and self.sectors else (16, 63)

    def sign(self) -> None:
        """A reset also wakes the drive, and ends the state after a queued command's error."""
        super().sign()
        self.asleep, self.power, self.failed_tag = 0, 0xFF, 0

    def place(self, io: Io) -> int:
        """The sector that the registers name; -1 if there is no such."""
        if io.ext:
            return self.address48
        if self.by_lba:
            return self.address28
        heads, sectors = self.translation
        head, sector = self.select & 15, self.low & 255
        if not sector or head >= heads or sector > sectors:
            return -1
        return ((self.high & 255) << 8 | self.mid & 255) * heads * sectors + head * sectors + sector - 1

    def show(self, io: Io, address: int) -> None:
        """The registers name this sector."""
        if io.ext:
            self.show48(address)
        elif self.by_lba:
            self.show28(address)
        else:
            heads, sectors = self.translation
            cylinder, rest = divmod(address, heads * sectors)
            self.low = self.low & 0xFF00 | rest % sectors + 1
            self.mid = self.mid & 0xFF00 | cylinder & 255
            self.high = self.high & 0xFF00 | cylinder >> 8 & 255
            self.select = self.select & ~15 | rest // sectors

    def progress(self, io: Io, sectors: int) -> None:
        """So many sectors are done."""
        self.show(io, self.place(io) + sectors)
        self.left = max(self.left - sectors, 0)
        self.count = self.left & 0xFFFF if io.ext else self.count & 0xFF00 | self.left & 255

    # Commands

    def execute(self, opcode: int) -> None:
        """Start a command."""
        if self.asleep:
            self.guest_error("only a reset wakes a sleeping drive", f": {name(opcode)}")
            self.phase, self.status = 0, READY
            return
        if self.failed_tag and opcode != Op.READ_LOG_EXT:
            self.guest_error("a command before the log of a queued command's error was read", f": {name(opcode)}")
            self.abort()
            return
        io = IO.get(opcode)
        if io is not None:
            self._transfer(io)
            return
        function = commands.COMMANDS.get(opcode)
        if function is None:
            self.unimplemented(name(opcode))
            self.abort()
        else:
            function(self)

    def _transfer(self, io: Io) -> None:
        self.power = 0xFF
        count = self.count if io.ext else self.count & 255
        self.left = count or (0x10000 if io.ext else 0x100)
        first = self.place(io)
        off = (io.way == DMA and not self.link.dma) or (io.way == MULTIPLE and not self.multiple)
        if off:
            self.abort()
        elif first < 0 or first + self.left > self.size:
            self.guest_error("sectors beyond the end", f": {self.left} from {first:#x}")
            self.abort(IDNF)
        elif io.way == VERIFY:
            self._start(io, self.left)
        elif io.way == DMA or not self.link.task_file:
            moving = Transfer(
                self, io.operation, first * SECTOR, self.left * SECTOR, self.link.memory(self), self._moved,
                flags=self._flags(io),
            )  # fmt: skip
            self.wants_dma(moving)
        elif io.operation == READ:
            self._start(io, self._block(io))
        else:
            self.ask(self._block(io) * SECTOR, interrupt=False)

    def _block(self, io: Io) -> int:
        """Sectors of the next data block."""
        return min(self.left, self.multiple if io.way == MULTIPLE else 1)

    def _flags(self, io: Io) -> int:
        return FUA if io.operation == WRITE and (io.fua or not self.cached) else 0

    def _start(self, io: Io, sectors: int) -> None:
        """Move a block between the medium and the buffer, or verify all."""
        size = sectors * SECTOR
        if io.way == VERIFY:
            memory: Local | Scratch = Scratch(SCRATCH)
        else:
            if io.operation == READ:
                self.buffer = bytearray(size)
            memory = Local(self.buffer)
        self.moving = Transfer(
            self, io.operation, self.place(io) * SECTOR, size, memory, self._block_moved, flags=self._flags(io)
        )
        self.moving.go()

    def _block_moved(self, moving: Moving) -> None:
        """A block is on the medium or in the buffer, or everything was verified."""
        assert isinstance(moving, Transfer)
        io = IO[Op(self.command)]
        if io.way != VERIFY or moving.failure is not None:
            self.progress(io, moving.moved // SECTOR)
        if moving.failure is not None:
            self._failed(moving.failure, io)
        elif io.way == VERIFY:
            self.done()
        elif io.operation == READ:
            self.give(self.buffer)
        elif self.left:
            self.ask(self._block(io) * SECTOR, interrupt=True)
        else:
            self.done()

    def drained(self) -> None:
        """The next block; none: the command is over without another interrupt."""
        io = IO.get(self.command)
        if io is not None and self.left:
            self._start(io, self._block(io))
        else:
            self.done(data_in=True)

    def filled(self) -> None:
        """Write the block."""
        io = IO.get(self.command)
        if io is None:
            commands.received(self, self.buffer)
        else:
            self._start(io, len(self.buffer) // SECTOR)

    def _moved(self, moving: Moving) -> None:
        """All data went to memory or came from there."""
        assert isinstance(moving, Transfer)
        io = IO[Op(self.command)]
        self.progress(io, moving.moved // SECTOR)
        if moving.failure is None:
            self.done(data_in=io.operation == READ and io.way != DMA)
        else:
            self._failed(moving.failure, io)

    def _failed(self, failure: Failure, io: Io) -> None:
        if isinstance(failure, BlockError):
            status, self.error = problem(failure, io.operation)
            self.done(status)
        else:
            self.lost(failure)

    def resume(self) -> None:
        """DMA and other commands start again; PIO goes on with the next block."""
        io = IO.get(self.command)
        if io is None or io.way == DMA:
            self.begin(self.command)
        elif io.way == VERIFY:
            self._start(io, self.left)
        else:
            self._start(io, self._block(io) if io.operation == READ else len(self.buffer) // SECTOR)

    def small(self, data: bytearray) -> None:
        """Data of a PIO command that is not from the medium."""
        self.left = 0
        if self.link.task_file:
            self.give(data)
        else:
            commands.send(self, data)

    # Queued commands

    def queued(
        self, operation: int, first: int, count: int, memory: Source, ended: Callable[[Moving], None], *, fua: bool
    ) -> Transfer:
        """READ or WRITE FPDMA QUEUED as a transfer, which does not begin yet."""
        self.power = 0xFF
        flags = FUA if operation == WRITE and (fua or not self.cached) else 0
        return Transfer(self, operation, first * SECTOR, count * SECTOR, memory, ended, flags=flags)

    def queue_failed(self, tag: int, sector: int, failure: BlockError | None, operation: int) -> None:
        """A queued command has failed: keep it for the log. No failure of the medium: the command could not be."""
        if failure is not None:
            self.status, self.error = problem(failure, operation)
        else:
            self.status, self.error = DRDY | ERR, IDNF if sector >= self.size else ABRT
        if not self.failed_tag:
            self.failed_tag, self.failed_lba, self.failed_error = tag + 1, sector, self.error

    # IDENTIFY DEVICE

    def identity(self) -> bytearray:
        """The data of IDENTIFY DEVICE."""
        cylinders, heads, sectors = self.geometry
        now_heads, now_sectors = self.translation
        now = min(self.size // (now_heads * now_sectors), 0xFFFF) if self.heads else cylinders
        dma = self.link.dma
        multiword, ultra = identify.modes(self.mode)
        serial = not self.link.task_file
        enabled = 1 << 14 | self.cached << 5 | self.ahead << 6 | self.smart & 1
        words83 = 1 << 14 | 1 << 13 | 1 << 12 | 1 << 10  # FLUSH CACHE EXT, FLUSH CACHE, LBA48
        words84 = 1 << 14 | 1 << 6 | 1 << 5 | bool(self.wwn) << 8  # WRITE FUA, general purpose logs
        return identify.build({
            "general configuration": 0x0040,
            "cylinders": cylinders,
            "heads": heads,
            "sectors per track": sectors,
            "serial number": self.serial.rjust(20) if len(self.serial) > 20 else self.serial,
            "firmware revision": self.firmware,
            "model number": self.model,
            "sectors of a multiple": 0x8000 | MAX_MULTIPLE,
            "capabilities": 1 << 11 | 1 << 9 | dma << 8,  # IORDY, LBA, DMA
            "capabilities 50": 1 << 14,
            "PIO cycle": 0x200,
            "DMA cycle": 0x200,
            "valid fields": 7,
            "current cylinders": now,
            "current heads": now_heads,
            "current sectors per track": now_sectors,
            "current CHS sectors": now * now_heads * now_sectors,
            "current multiple": 0x100 | self.multiple if self.multiple else 0,
            "LBA28 sectors": min(self.size, MAX_LBA28 - 1),
            "multiword DMA": multiword if dma else 0,
            "PIO modes": 3,
            "minimum multiword DMA cycle": 120,
            "recommended multiword DMA cycle": 120,
            "minimum PIO cycle": 120,
            "minimum PIO cycle with IORDY": 120,
            "additional support": 1 << 14,  # what was trimmed reads the same each time
            "queue depth": self.link.queue - 1 if self.link.queue else 0,
            "SATA capabilities": (bool(self.link.queue) << 8 | 1 << 1) if serial else 0,  # NCQ, 1.5 Gb/s
            "major version": 0x01F0,  # ATA/ATAPI-4 to ATA8-ACS
            "features supported": (1 << 14 | 1 << 6 | 1 << 5 | 1) | words83 << 16 | words84 << 32,
            "features enabled": enabled | (words83 & ~(1 << 14)) << 16 | words84 << 32,
            "Ultra DMA": ultra if dma else 0,
            "hardware reset result": 0 if serial else 0x6001 | self.second << 8,
            "LBA48 sectors": self.size,
            "blocks of DATA SET MANAGEMENT": 1,
            "physical sectors": 0x6000,
            "world wide name": self.wwn,
            "command set 4": 1 << 14,
            "command set 4 enabled": 1 << 14,
            "data set management": 1 if dma else 0,
            "rotation rate": self.rotation,
            "transport version": 0x1020 if serial else 0x0020,
        })  # fmt: skip

    @property
    def second(self) -> bool:
        """Whether it is device 1."""
        return self.link.second(self)
