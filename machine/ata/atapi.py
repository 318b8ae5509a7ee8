"""A CD-ROM drive: the PACKET protocol (ATA8-ACS, 7.23; ATA8-APT, 9.10), its medium and its sense data.

A reply is a stream of bytes: prepared ones, sectors of the disc, or raw sectors. `sent` is how far it is, and all that
a saved drive needs to go on. Through the data register it goes in pieces of the host's byte count limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dbt.machine.ata import commands, identify, mmc, raw, sense
from dbt.machine.ata.codes import ABRT, DRDY, ERR, READY, Op, name
from dbt.machine.ata.drive import Drive
from dbt.machine.ata.scatter import Local, Source
from dbt.machine.ata.sense import CheckCondition
from dbt.machine.ata.transfer import Copy, Moving, Transfer
from dbt.machine.block import READ, BlockError
from dbt.machine.registers import Fifo, State

if TYPE_CHECKING:
    from dbt.machine.block import Disk
    from dbt.machine.machine import Machine

PACKET_SIZE = 12
DMA_BIT, OVERLAP_BIT = 1, 2  # of PACKET's feature register
CD, TO_HOST = 1, 2  # interrupt reason: command or data; direction
NONE, ANSWER, SECTORS, RAW = range(4)  # what a reply is made of
NO_EVENT, EJECT_REQUEST, NEW_MEDIA, MEDIA_REMOVAL = range(4)  # MMC-5, table 325
ONE_AT_A_TIME = raw.RAW  # raw sectors are computed: others get the lock in between


class AtapiDrive(Drive):
    """CD-ROM drive with the PACKET command set (ATA8-ACS, MMC-5); `disk` is its medium, None: no disc."""

    SIGNATURE: ClassVar[tuple[int, int]] = (0x14, 0xEB)
    AFTER_RESET: ClassVar[int] = 0
    DEVICE_RESETS: ClassVar[bool] = True

    packet = Fifo(16)
    dma = State(bits=1)  # of the current command
    limit = State(bits=16)  # bytes of a piece
    kind = State(bits=2)
    answer = Fifo(1 << 16)
    first = State(bits=32)  # sector where the reply begins
    parts = State(bits=8)  # READ CD's choice of fields
    length = State(bits=48)  # of the reply
    sent = State(bits=48)
    key = State(bits=4)  # sense data
    code = State(bits=16)
    information = State(bits=33)  # sector + 1 of a medium error
    attention = State(bits=16)  # what has happened, for the next command to report
    event = State(bits=2)
    locked = State(bits=1)
    open = State(bits=1)

    def __init__(
        self,
        name: str,
        machine: Machine,
        disk: Disk | None = None,
        *,
        serial: str = "",
        model: str = "DRAGOMAN CD-ROM",
        vendor: str = "DRAGOMAN",
        product: str = "CD-ROM",
        firmware: str = "1",
    ) -> None:
        super().__init__(name, machine, disk)
        self.serial = serial or f"CD-{name}"
        self.model = model
        self.vendor = vendor
        self.product = product
        self.firmware = firmware
        self._memory: Source | None = None

    # The medium

    @property
    def present(self) -> bool:
        """Whether there is a disc to read."""
        return self.disk is not None and not self.open

    @property
    def sectors(self) -> int:
        """Of the disc; none without one."""
        return min(self.disk.size // raw.USER, 0xFFFF_FFFF) if self.disk is not None and not self.open else 0

    def change(self, disk: Disk | None, *, force: bool = False) -> bool:
        """Another disc, or none; the old one is the caller's. False: locked, and the guest is asked to let go."""
        with self.machine.lock:
            if self.locked and not force and self.disk is not None:
                self.event = EJECT_REQUEST
                return False
            self.disk, self.open = disk, 0
            self._changed(there=disk is not None)
            return True

    def _changed(self, *, there: bool) -> None:
        self.event = NEW_MEDIA if there else MEDIA_REMOVAL
        if there:
            self.attention = sense.MEDIUM_MAY_HAVE_CHANGED

    def tray(self, *, opened: bool) -> None:
        """START STOP UNIT with LoEj."""
        if opened and self.locked:
            raise CheckCondition(sense.ILLEGAL_REQUEST, sense.REMOVAL_PREVENTED)
        if bool(self.open) != opened:
            self.open = int(opened)
            if self.disk is not None:
                self._changed(there=not opened)

    # ATA commands

    def sign(self) -> None:
        """A reset unlocks the disc and is reported."""
        super().sign()
        self.locked = 0
        self.attention = self.attention or sense.POWER_ON_OR_RESET

    def execute(self, opcode: int) -> None:
        """Start a command."""
        if opcode == Op.PACKET:
            self._packet()
        elif opcode == Op.DEVICE_RESET:
            self.begin_reset()
            self.end_reset()
        elif opcode == Op.IDENTIFY_PACKET_DEVICE:
            self._send(self.identity())
        elif opcode in {Op.IDENTIFY_DEVICE, Op.READ_SECTORS}:
            self.sign()
            self.error = 0
            self.abort()  # the signature tells the host what this is
        elif opcode == Op.EXECUTE_DEVICE_DIAGNOSTIC:
            commands.diagnostic(self)
        elif opcode == Op.SET_FEATURES:
            self._set_features()
        elif opcode in {Op.IDLE_IMMEDIATE, Op.STANDBY_IMMEDIATE, Op.SLEEP, Op.FLUSH_CACHE}:
            self.done()
        elif opcode == Op.CHECK_POWER_MODE:
            self.count = self.count & 0xFF00 | 0xFF
            self.done()
        else:
            if opcode != Op.NOP:
                self.unimplemented(name(opcode))
            self.abort()

    def _set_features(self) -> None:
        feature = self.feature & 255
        if feature == 0x03:
            if commands.set_transfer_mode(self):
                self.done()
                return
        elif feature in commands.KEPT_FEATURES:
            self.done()
            return
        self.abort()

    def _send(self, data: bytearray) -> None:
        """Data of IDENTIFY PACKET DEVICE."""
        self.kind = NONE
        if self.link.task_file:
            self.give(data)
        else:
            self.moving = Copy(self, data, self.link.memory(self), self._identified, to_memory=True)
            self.moving.go()

    def _identified(self, moving: Moving) -> None:
        if moving.failure is None:
            self.done(data_in=True)
        else:
            self.lost(moving.failure)

    def identity(self) -> bytearray:
        """The data of IDENTIFY PACKET DEVICE."""
        dma = self.link.dma
        multiword, ultra = identify.modes(self.mode)
        serial = not self.link.task_file
        features = 1 << 14 | 1 << 9 | 1 << 4  # NOP, DEVICE RESET, PACKET
        return identify.build({
            "general configuration": 2 << 14 | 5 << 8 | 1 << 7 | 2 << 5,  # ATAPI CD-ROM, removable, DRQ at once
            "serial number": self.serial,
            "firmware revision": self.firmware,
            "model number": self.model,
            "capabilities": 1 << 11 | 1 << 9 | dma << 8,
            "PIO cycle": 0x200,
            "valid fields": 6,
            "multiword DMA": multiword if dma else 0,
            "PIO modes": 3,
            "minimum multiword DMA cycle": 180,
            "recommended multiword DMA cycle": 180,
            "minimum PIO cycle": 300,
            "minimum PIO cycle with IORDY": 180,
            "SATA capabilities": 1 << 1 if serial else 0,
            "major version": 0x01F0,
            "features supported": features | 1 << 14 << 16 | 1 << 14 << 32,
            "features enabled": features | 1 << 14 << 32,
            "Ultra DMA": ultra if dma else 0,
            "transport version": 0x1020 if serial else 0x0020,
        }, device=False)  # fmt: skip

    # Packets

    def _packet(self) -> None:
        self.dma, self.limit = self.feature & DMA_BIT, (self.high & 255) << 8 | self.mid & 255
        self.kind = NONE
        if self.feature & OVERLAP_BIT:
            self.abort()
        elif not self.link.task_file:
            self.packet = bytearray(self.link.packet(self))
            self._perform()
        elif self.dma and not self.link.dma:
            self.abort()
        else:
            self.count = self.count & 0xFF00 | CD
            self.ask(PACKET_SIZE, interrupt=False)

    def filled(self) -> None:
        """The packet is here."""
        self.packet = bytearray(self.buffer)
        self._perform()

    def _perform(self) -> None:
        """Do what the packet says."""
        try:
            mmc.perform(self, bytes(self.packet).ljust(PACKET_SIZE, b"\0"))
        except CheckCondition as condition:
            self._check(condition.key, condition.code)

    def ok(self) -> None:
        """The packet command has ended well."""
        self.key = self.code = self.information = 0
        self._status(READY)

    def _check(self, key: int, code: int, sector: int | None = None) -> None:
        """CHECK CONDITION."""
        self.key, self.code, self.information = key, code, 0 if sector is None else sector + 1
        self.error = key << 4 | (ABRT if key == sense.ILLEGAL_REQUEST and code == sense.INVALID_OPCODE else 0)
        self._status(DRDY | ERR)

    def _status(self, status: int) -> None:
        self.count = self.count & 0xFF00 | TO_HOST | CD
        self.kind = NONE
        self._memory = None
        self.done(status)

    # Replies

    def reply(self, data: bytearray, most: int) -> None:
        """Prepared bytes, as many as the command allows."""
        self.answer = data[:most]
        self._begin(ANSWER, len(self.answer))

    def reply_sectors(self, first: int, count: int, parts: int = 0) -> None:
        """Sectors of the disc; `parts`: READ CD's fields instead of user data alone."""
        if first + count > self.sectors:
            raise CheckCondition(sense.ILLEGAL_REQUEST, sense.LBA_OUT_OF_RANGE)
        self.first, self.parts = first, parts
        size = mmc.part_size(parts) if parts else raw.USER
        self._begin(RAW if parts else SECTORS, size * count)

    def _begin(self, kind: int, length: int) -> None:
        self.kind, self.length, self.sent = kind, length, 0
        through_memory = self.dma or not self.link.task_file
        if not length:
            self.ok()
        elif not self.dma and self.limit == 0:
            self.guest_error("a byte count limit of zero")
            self.abort()
        elif not through_memory:
            self._next()
        elif kind == SECTORS:
            self.wants_dma(
                Transfer(
                    self, READ, self.first * raw.USER, length, self.link.memory(self), self._moved, unit=raw.USER
                )
            )  # fmt: skip
        elif kind == ANSWER:
            self.wants_dma(Copy(self, self.answer, self.link.memory(self), self._moved, to_memory=True))
        else:
            self._memory = self.link.memory(self)
            self._next()

    def _moved(self, moving: Moving) -> None:
        """Everything is in the host's memory, or something went wrong."""
        if moving.failure is None:
            self.ok()
        else:
            self._trouble(moving)

    def _trouble(self, moving: Moving) -> None:
        if isinstance(moving.failure, BlockError):
            assert isinstance(moving, Transfer)
            if self.present:
                self._check(sense.MEDIUM_ERROR, sense.UNRECOVERED_READ_ERROR, moving.offset // raw.USER)
            else:
                self._check(sense.NOT_READY, sense.MEDIUM_NOT_PRESENT)
        elif moving.failure is not None:
            self.kind = NONE
            self.lost(moving.failure)

    def _next(self) -> None:
        """The next piece of a reply."""
        left = self.length - self.sent
        if not left:
            self.ok()
            return
        limit = self.limit & ~1 or 1 if self.limit < left else left
        size = min(left, 0xFFFE if self._memory else limit)
        if self.kind == ANSWER:
            self._piece(self.answer[self.sent : self.sent + size])
        elif self.kind == SECTORS:
            self._fetch(self.first * raw.USER + self.sent, size)
        else:
            number = self.sent // mmc.part_size(self.parts)
            self._fetch((self.first + number) * raw.USER, raw.USER)

    def _fetch(self, offset: int, size: int) -> None:
        self.buffer = bytearray(size)
        self.moving = Transfer(self, READ, offset, size, Local(self.buffer), self._fetched, unit=raw.USER)
        self.moving.go()

    def _fetched(self, moving: Moving) -> None:
        if moving.failure is not None:
            self._trouble(moving)
        elif self.kind == SECTORS:
            self._piece(self.buffer)
        else:
            size = mmc.part_size(self.parts)
            number, start = divmod(self.sent, size)
            data = mmc.choose(raw.sector(self.first + number, self.buffer), self.parts)
            end = size if self._memory else min(size, start + (self.limit & ~1 or 1))
            self._piece(bytearray(data[start:end]))

    def _piece(self, data: bytearray) -> None:
        """Hand a piece to the host."""
        if self._memory is not None:
            self.buffer = data
            self.wants_dma(Copy(self, data, self._memory, self._copied, to_memory=True))
            return
        self.count = self.count & 0xFF00 | TO_HOST
        self.mid = self.mid & 0xFF00 | len(data) & 255
        self.high = self.high & 0xFF00 | len(data) >> 8
        self.give(data)

    def _copied(self, moving: Moving) -> None:
        if moving.failure is not None:
            self._trouble(moving)
            return
        self.sent += len(self.buffer)
        if self.sent < self.length:
            self.later(self._next)
        else:
            self.ok()

    def drained(self) -> None:
        """The host has read a piece."""
        if self.kind == NONE:
            self.done(data_in=True)
        else:
            self.sent += len(self.buffer)
            self._next()

    def on_restore(self) -> None:
        """A reply is what it can be."""
        super().on_restore()
        self.sent = min(self.sent, self.length)
        if self.kind == RAW and not mmc.part_size(self.parts):
            self.kind = NONE

    def resume(self) -> None:
        """Go on with a reply, or start anew what goes to memory."""
        if self.command != Op.PACKET:
            self.begin(self.command)
        elif self.kind in {SECTORS, RAW} and not self.dma and self.link.task_file:
            self._next()
        else:
            self._perform()
