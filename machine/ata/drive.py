"""A drive: its task file, the phases of a command (ATA8-APT, 9), its buffer, and its requests in flight.

The registers of the task file remember their previous content (LBA48): 16 bits, the last written byte below. While a
command runs they show how far it is: count and address of what is left.

A reset while requests are in flight does not wait for them: BSY stays up until the last one has landed, since the
host's memory is theirs until then.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, ClassVar

from dbt.machine.ata.codes import ABRT, BSY, DIAGNOSED, DRDY, DRQ, ERR, FIXED, LBA, READY, Op, name
from dbt.machine.ata.link import Link
from dbt.machine.block import Request, RequestRefused
from dbt.machine.device import Device
from dbt.machine.registers import Fifo, State
from dbt.machine.work import Work

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.ata.scatter import Piece
    from dbt.machine.ata.transfer import Failure, Moving
    from dbt.machine.block import BlockError, Disk
    from dbt.machine.machine import Machine

    Landed = Callable[[BlockError | None, bool], None]

IDLE, BUSY, IN, OUT = range(4)  # phases: none; the drive works; the host reads data; the host writes data
BUFFER = 1 << 16
WORD, LONG = struct.Struct("<H"), struct.Struct("<I")
FILE = ("feature", "count", "low", "mid", "high")  # what may be written two deep


class Drive(Device):
    """The base of ATA and ATAPI devices."""

    SIGNATURE: ClassVar[tuple[int, int]]  # LBA mid and high after a reset
    AFTER_RESET: ClassVar[int]  # status

    feature = State(bits=16)
    count = State(bits=16, reset=1)
    low = State(bits=16, reset=1)
    mid = State(bits=16)
    high = State(bits=16)
    select = State(bits=8, reset=FIXED)  # the Device register
    status = State(bits=8)
    error = State(bits=8, reset=DIAGNOSED)
    intrq = State(bits=1)  # whether the drive asks for an interrupt

    phase = State(bits=2)
    command = State(bits=8)
    resetting = State(bits=1)
    buffer = Fifo(BUFFER)
    at = State(bits=17)  # in the buffer
    mode = State(bits=8, reset=0x45)  # of transfer, as SET FEATURES set it: Ultra DMA 5

    def __init__(self, name: str, machine: Machine, disk: Disk | None) -> None:
        super().__init__(name, machine)
        self.disk = disk
        self.link = Link()
        self.moving: Moving | None = None
        self.flying = 0  # requests
        self._epoch = 0  # of requests: those of an older one have been given up
        self._later: list[Callable[[], None]] = []
        self._work = Work(self.clock, self._now)

    # What kinds of drives have

    def execute(self, opcode: int) -> None:
        """Start a command."""
        raise NotImplementedError

    def drained(self) -> None:
        """The host has read all of the buffer."""
        raise NotImplementedError

    def filled(self) -> None:
        """The host has written all of the buffer."""
        raise NotImplementedError

    def resume(self) -> None:
        """Go on with what was under way in a saved drive that was busy, of links that do not do it themselves."""
        raise NotImplementedError

    # Requests

    def submit(self, operation: int, offset: int, piece: Piece, landed: Landed, flags: int = 0) -> None:
        """Start a request on the medium; `landed(error, whether at once)` is called unless a reset comes first."""
        self.start(Request(operation, offset, piece.views, self._complete, flags=flags), piece, landed)

    def start(self, request: Request, piece: Piece | None, landed: Landed) -> None:
        """The same with a request of any kind."""
        if self.disk is None:  # taken out meanwhile
            landed(RequestRefused(self.name, "there is no medium"), True)
            return
        request.completion = self._complete
        request.context = (self._epoch, piece, landed)
        self.flying += 1
        if self.disk.submit(request):
            self._land(request, at_once=True)

    def _complete(self, request: Request) -> None:
        with self.machine.lock:
            self._land(request, at_once=False)

    def _land(self, request: Request, *, at_once: bool) -> None:
        self.flying -= 1
        epoch, piece, landed = request.context
        if piece is not None:
            piece.release()
        if epoch == self._epoch:
            landed(request.error, at_once)
        elif not self.flying:
            self._settled()

    @property
    def busy(self) -> bool:
        """Whether requests are in flight."""
        return self.flying > 0

    def settle(self) -> None:
        """Wait for them, without the lock."""
        if self.disk is not None:
            self.disk.drain()

    def later(self, function: Callable[[], None]) -> None:
        """Call it when timers are run next: in between, others have the lock."""
        self._later.append(function)
        self._work.later()

    def _now(self) -> None:
        functions, self._later = self._later, []
        for function in functions:
            function()

    # Reset

    def on_reset(self) -> None:
        """Power-on."""
        self.begin_reset()
        self.end_reset()

    def on_restore(self) -> None:
        """Go on when timers run: guest memory may not be there yet."""
        self.give_up()
        if self.phase == BUSY or self.resetting:
            self.later(self._resume)

    def _resume(self) -> None:
        if self.resetting:
            self._settled()
        elif self.phase == BUSY and self.link.task_file:
            self.resume()

    def give_up(self) -> None:
        """Whatever is under way will not be heard of; what is in flight lands, though."""
        self._epoch += 1
        self._later.clear()
        self._work.cancel()
        self.moving = None

    def begin_reset(self) -> None:
        """Stop everything; nothing answers until `end_reset`."""
        self.give_up()
        self.phase, self.status, self.resetting = IDLE, BSY, 0
        self.set_intrq(0)

    def end_reset(self) -> None:
        """Show the signature, as soon as nothing is in flight any more."""
        self.resetting = 1
        if not self.flying:
            self._settled()

    def _settled(self) -> None:
        if self.resetting:
            self.resetting = 0
            self.sign()
            self.link.ready(self)
        else:
            self.link.settled(self)

    def sign(self) -> None:
        """The signature (ATA8-ACS, 9.12), and that the diagnostics have found nothing."""
        self.count = self.low = 1
        self.mid, self.high = self.SIGNATURE
        self.select = FIXED
        self.feature = 0
        self.error, self.status = DIAGNOSED, self.AFTER_RESET

    # Commands

    def write_command(self, opcode: int) -> None:
        """What writing the Command register does."""
        if self.status & (BSY | DRQ) and not (opcode == Op.DEVICE_RESET and self.DEVICE_RESETS):
            self.guest_error("a command while one runs", f": {name(opcode)}")
            return
        self.set_intrq(0)
        self.begin(opcode)

    DEVICE_RESETS: ClassVar[bool] = False

    def begin(self, opcode: int) -> None:
        """A command has arrived."""
        self.command, self.phase, self.error, self.at = opcode, BUSY, 0, 0
        self.status = self.status & READY | BSY
        self.moving = None
        self.execute(opcode)

    def done(self, status: int = READY, *, data_in: bool = False) -> None:
        """The command has ended; `data_in`: of links with a data register, without another interrupt."""
        self.phase, self.status = IDLE, status
        self.moving = None
        if not (data_in and self.link.task_file):
            self.set_intrq(1)
        self.link.ended(self, data_in=data_in)

    def abort(self, error: int = ABRT) -> None:
        """The command has failed."""
        self.error = error
        self.done(DRDY | ERR)

    def lost(self, failure: Failure) -> None:
        """The host's memory could not be reached, or was too little."""
        if self.link.failed(self, failure):
            self.phase, self.status, self.moving = IDLE, READY, None
        else:
            self.abort()

    def set_intrq(self, level: int) -> None:
        """Drive INTRQ."""
        if level != self.intrq:
            self.intrq = level
            self.link.interrupt(self)

    def wants_dma(self, moving: Moving) -> None:
        """DMARQ: the host moves the data as soon as it likes."""
        self.moving = moving
        self.status = READY | DRQ if self.link.task_file else self.status
        self.go_dma()

    def go_dma(self) -> None:
        """The host's side has started."""
        moving = self.moving
        if moving is not None:
            moving.go()
            if self.moving is moving and not moving.waiting and self.link.task_file:
                self.status = READY | BSY

    # Data through the data register

    def give(self, data: bytearray, *, interrupt: bool = True) -> None:
        """The host is to read this."""
        self.buffer, self.at, self.phase = data, 0, IN
        self.status = READY | DRQ
        if interrupt:
            self.set_intrq(1)

    def ask(self, length: int, *, interrupt: bool) -> None:
        """The host is to write so many bytes."""
        self.buffer, self.at, self.phase = bytearray(length), 0, OUT
        self.status = READY | DRQ
        if interrupt:
            self.set_intrq(1)

    def read_word(self) -> int:
        """A read of the data register by 2 bytes: what PIO consists of."""
        buffer, at = self.buffer, self.at
        if self.phase == IN and at + 2 < len(buffer):
            self.at = at + 2
            return buffer[at] | buffer[at + 1] << 8
        return self.read_data(2)

    def read_data(self, size: int) -> int:
        """A read of the data register by 2 or 4 bytes."""
        if self.phase != IN:
            self.guest_error("data is read while none is there")
            return 0
        at = self.at
        end = at + size
        value: int
        try:
            (value,) = (WORD if size == 2 else LONG).unpack_from(self.buffer, at)
        except struct.error:  # the last bytes of an odd number
            value = int.from_bytes(self.buffer[at:end], "little")
        if end >= len(self.buffer):
            self._turn(self.drained)
        else:
            self.at = end
        return value

    def write_data(self, size: int, value: int) -> None:
        """A write of the data register."""
        if self.phase != OUT:
            self.guest_error("data is written while none is wanted")
            return
        at = self.at
        left = len(self.buffer) - at
        if left >= size:
            (WORD if size == 2 else LONG).pack_into(self.buffer, at, value)
        else:
            self.buffer[at:] = value.to_bytes(size, "little")[:left]
        self.at = at + size
        if left <= size:
            self._turn(self.filled)

    def _turn(self, then: Callable[[], None]) -> None:
        self.phase, self.status, self.at = BUSY, READY | BSY, 0
        then()

    # Addresses

    @property
    def address28(self) -> int:
        """LBA of 28 bits."""
        return (self.select & 15) << 24 | (self.high & 255) << 16 | (self.mid & 255) << 8 | self.low & 255

    @property
    def address48(self) -> int:
        """LBA of 48 bits."""
        upper = (self.high >> 8) << 16 | self.mid >> 8 << 8 | self.low >> 8
        return upper << 24 | (self.high & 255) << 16 | (self.mid & 255) << 8 | self.low & 255

    def show48(self, address: int) -> None:
        """The registers show an LBA of 48 bits."""
        self.low = (address >> 24 & 255) << 8 | address & 255
        self.mid = (address >> 32 & 255) << 8 | address >> 8 & 255
        self.high = (address >> 40 & 255) << 8 | address >> 16 & 255

    def show28(self, address: int) -> None:
        """The registers show an LBA of 28 bits; what was written before stays."""
        self.low = self.low & 0xFF00 | address & 255
        self.mid = self.mid & 0xFF00 | address >> 8 & 255
        self.high = self.high & 0xFF00 | address >> 16 & 255
        self.select = self.select & ~15 | address >> 24 & 15

    @property
    def by_lba(self) -> bool:
        """Whether the Device register says LBA, not CHS."""
        return bool(self.select & LBA)
