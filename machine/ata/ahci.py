"""A port of AHCI (AHCI 1.3.1, 3.3 and 5.3): command list, received FISes, task file, and its drive behind them.

Commands that are not queued run one at a time, through the drive's own phases; queued ones (NCQ) are transfers beside
each other. After an error the port stops until software clears PxCMD.ST; CR stays up until nothing is in flight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.ata import fis
from dbt.machine.ata.atapi import AtapiDrive
from dbt.machine.ata.codes import BSY, DRQ, ERR, READY, SECTOR, Op, name
from dbt.machine.ata.disk import IO, MULTIPLE, PIO, AtaDisk
from dbt.machine.ata.hba import (
    CCS,
    CLO,
    CR,
    DHRS,
    DPS,
    FR,
    FRE,
    HBFS,
    IFS,
    OFS,
    POD,
    PSS,
    SDBS,
    SETTINGS,
    ST,
    SUD,
    TFES,
    UNKNOWN,
)  # fmt: skip
from dbt.machine.ata.phy import Phy
from dbt.machine.ata.scatter import Scatter, TableShort
from dbt.machine.ata.transfer import Moving, Transfer
from dbt.machine.block import READ, WRITE, BlockError
from dbt.machine.errors import DmaError

if TYPE_CHECKING:
    from dbt.machine.ata.drive import Drive
    from dbt.machine.ata.hba import Hba
    from dbt.machine.ata.scatter import Source
    from dbt.machine.ata.transfer import Failure

QUEUED = (Op.READ_FPDMA_QUEUED, Op.WRITE_FPDMA_QUEUED)
SLOTS, AT_ONCE = 32, 8


class Port(Phy):
    """Port `number` of a host bus adapter."""

    task_file = False
    dma = True
    queue = SLOTS

    def __init__(self, hba: Hba, number: int, drive: Drive | None) -> None:
        super().__init__(hba, number, drive)
        self.slot: int | None = None  # of the command that is not queued
        self.queued: dict[int, Transfer] = {}  # by tag, which is the slot
        self._flags = self._table = self._entries = 0  # of the current command
        self._packet = b""
        self._scatter: Scatter | None = None
        self._looking = False
        self._data_interrupt = False

    @property
    def _list(self) -> int:
        return self.hba.PxCLBU[self.number] << 32 | self.hba.PxCLB[self.number]

    def write_command(self, value: int) -> None:
        """PxCMD."""
        hba, n = self.hba, self.number
        old = hba.PxCMD[n]
        new = old & (CCS | CR | FR) | SUD | POD | value & (ST | FRE | SETTINGS)
        if value & CLO:
            if old & ST:
                hba.guest_error(f"port {n}: CLO while the port runs")
            else:
                hba.PxTFD[n] &= ~(BSY | DRQ)
        new = new | FR if value & FRE else new & ~FR
        hba.PxCMD[n] = new
        if value & ST and not old & ST:
            self._start()
        elif old & ST and not value & ST:
            self._stop()
        if value & FRE and not old & FRE and self.drive is not None and hba.PxSIG[n] != UNKNOWN:
            self.post(fis.register_d2h(self.drive, interrupt=False))  # the signature was waiting
        self.look()

    def _start(self) -> None:
        hba, n = self.hba, self.number
        if hba.PxTFD[n] & (BSY | DRQ) or hba.PxSSTS[n] & 15 != 3:
            hba.guest_error(f"port {n} is started while its drive is busy or not there")
        hba.PxCMD[n] |= CR
        hba.stopped[n] = 0

    def _stop(self) -> None:
        """Forget what was issued. A command that is under way leaves the drive busy until it is reset."""
        hba, n = self.hba, self.number
        hba.PxCI[n] = hba.PxSACT[n] = 0
        hba.PxCMD[n] &= ~CCS
        hba.stopped[n] = 0
        self.drop()
        if self.drive is None or not self.drive.flying:
            hba.PxCMD[n] &= ~CR

    def drop(self) -> None:
        """See Phy."""
        if self.drive is not None and (self.slot is not None or self.queued):
            self.drive.give_up()
        self.slot = None
        self.queued.clear()

    def settled(self, drive: Drive) -> None:
        """What was given up has landed: the port stops, or goes on if software has started it again."""
        del drive
        if not self.hba.PxCMD[self.number] & ST:
            self.hba.PxCMD[self.number] &= ~CR
        self.look()

    # Issuing commands

    def look(self) -> None:
        """Send what software has issued and the drive can take, some at a time: others want the lock too."""
        if self._looking:
            return  # further up, look is at work
        self._looking = True
        hba, n, drive = self.hba, self.number, self.drive
        try:
            sent = 0
            while (
                hba.PxCI[n]
                and hba.PxCMD[n] & (ST | CR) == ST | CR
                and drive is not None
                and self.slot is None
                and not hba.stopped[n]
                and not hba.PxTFD[n] & (BSY | DRQ)
                and (self.queued or not drive.flying)
            ):
                if sent == AT_ONCE:
                    drive.later(self.look)
                    break
                self._send((hba.PxCI[n] & -hba.PxCI[n]).bit_length() - 1, drive)
                sent += 1
        finally:
            self._looking = False

    def _send(self, slot: int, drive: Drive) -> None:
        """Fetch a command and send it."""
        hba, n = self.hba, self.number
        hba.PxCMD[n] = hba.PxCMD[n] & ~CCS | slot << 8
        try:
            head = hba.dma.dma_read(self._list + fis.HEADER_SIZE * slot, fis.HEADER.size)
            self._flags, self._entries, _, table = fis.HEADER.unpack(head)
            self._table = table & ~0x7F
            frame = hba.dma.dma_read(self._table, fis.TABLE_HEAD)
        except DmaError:
            self._fatal(HBFS)
            return
        if self._flags & fis.LENGTH < 2 or frame[0] != fis.REGISTER_H2D or frame[1] & fis.PORT_MULTIPLIER:
            hba.guest_error(f"port {n}: slot {slot} has no register FIS to its drive")
            self._fatal(IFS)
            return
        self._packet = frame[fis.PACKET_AT : fis.PACKET_AT + 16]
        self._scatter = Scatter(
            hba.dma, fis.descriptors(hba.dma, self._table, self._entries, self._wants_data_interrupt)
        )
        if not frame[1] & fis.COMMAND_BIT:
            self._device_control(slot, frame, drive)
        elif frame[2] in QUEUED and isinstance(drive, AtaDisk):
            self._queue(slot, frame, drive)
        elif self.queued:
            hba.guest_error(f"port {n}: {name(frame[2])} while queued commands are outstanding")
            fis.load(drive, frame)
            self.drop()
            self.slot = slot
            drive.abort()
        else:
            self.slot = slot
            hba.PxTFD[n] |= BSY
            fis.load(drive, frame)
            drive.begin(frame[2])

    def _wants_data_interrupt(self) -> None:
        self._data_interrupt = True

    def _data_cause(self) -> int:
        """DPS, if descriptors have asked for it since the last time."""
        wanted, self._data_interrupt = self._data_interrupt, False
        return DPS if wanted else 0

    def _fatal(self, cause: int) -> None:
        """An error that stops the port."""
        self.hba.stopped[self.number] = 1
        self.interrupt_causes(cause)

    def _device_control(self, slot: int, frame: bytes, drive: Drive) -> None:
        """A software reset: SRST set, then cleared."""
        hba, n = self.hba, self.number
        hba.PxCI[n] &= ~(1 << slot)
        wanted = frame[15] >> 2 & 1
        if wanted and not hba.softreset[n]:
            self.drop()
            drive.begin_reset()
            hba.PxTFD[n] = BSY
        elif hba.softreset[n] and not wanted:
            drive.end_reset()
        hba.softreset[n] = wanted
        if self._flags & fis.CLEAR_BUSY:
            hba.PxTFD[n] &= ~BSY

    # What drives see

    def memory(self, drive: Drive) -> Source:
        """The command's PRDT."""
        del drive
        assert self._scatter is not None
        return self._scatter

    def packet(self, drive: Drive) -> bytes:
        """From the command table."""
        drive.status, status = READY, drive.status
        self.post(fis.pio_setup(drive, 12, to_host=False, interrupt=False))
        drive.status = status
        return self._packet

    def failed(self, drive: Drive, failure: Failure) -> bool:
        """The port stops; the drive stays busy."""
        del drive
        self.slot = None
        self._fatal(HBFS if isinstance(failure, DmaError) else OFS)
        return True

    def ended(self, drive: Drive, *, data_in: bool) -> None:
        """A command that was not queued has ended."""
        hba, n, slot = self.hba, self.number, self.slot
        if slot is None:
            return
        self.slot = None
        self.show_task_file()
        moved = self._scatter.taken if self._scatter else 0
        block = self._block(drive, moved)
        if isinstance(drive, AtapiDrive) and drive.command == Op.PACKET and not drive.dma and moved:
            self.post(fis.pio_setup(drive, min(moved, drive.limit), to_host=True, interrupt=True), PSS)
        elif block and not data_in:  # the last block of data to the drive; all but the first interrupt
            later = moved > block
            self.post(fis.pio_setup(drive, block, to_host=False, interrupt=later), PSS if later else 0)
        try:
            hba.dma.dma_write(self._list + fis.HEADER_SIZE * slot + 4, moved.to_bytes(4, "little"))
        except DmaError:
            self._fatal(HBFS)
            return
        failed = drive.status & ERR
        if not failed:
            hba.PxCI[n] &= ~(1 << slot)
        causes = self._data_cause() | (TFES if failed else 0)
        hba.stopped[n] = hba.stopped[n] or failed
        if data_in:
            self.post(fis.pio_setup(drive, block or moved, to_host=True, interrupt=True), causes | PSS)
        else:
            self.post(fis.register_d2h(drive, interrupt=True), causes | DHRS)
        self.look()

    @staticmethod
    def _block(drive: Drive, moved: int) -> int:
        """Bytes of a block of PIO data of sectors; 0 for other commands."""
        io = IO.get(drive.command)
        if io is None or io.way not in {PIO, MULTIPLE} or not isinstance(drive, AtaDisk):
            return 0
        return min(moved, SECTOR * (drive.multiple if io.way == MULTIPLE else 1))

    # Queued commands (Serial ATA 3.x, 13.6; ATA8-ACS, 4.15)

    def _queue(self, slot: int, frame: bytes, drive: AtaDisk) -> None:
        """READ or WRITE FPDMA QUEUED."""
        hba, n = self.hba, self.number
        fis.load(drive, frame)
        count, first = drive.feature or 0x10000, drive.address48
        to_host = frame[2] == Op.READ_FPDMA_QUEUED
        assert self._scatter is not None
        hba.PxCI[n] &= ~(1 << slot)
        transfer = drive.queued(
            READ if to_host else WRITE, first, count, self._scatter, self._queued_ended, fua=bool(frame[7] & 0x80)
        )  # fmt: skip
        self.queued[slot] = transfer
        if drive.failed_tag or drive.count >> 3 & 31 != slot or not hba.PxSACT[n] >> slot & 1:
            hba.guest_error(f"port {n}: slot {slot} is queued with another tag, not active, or after an error")
            self._queue_error(drive, slot, first, transfer)
        elif first + count > drive.size:
            hba.guest_error(f"port {n}: sectors beyond the end", f": {count} from {first:#x}")
            self._queue_error(drive, slot, max(first, drive.size), transfer)
        else:
            drive.command, drive.error, drive.status = frame[2], 0, READY
            self.show_task_file()
            self.post(fis.dma_setup(slot, count * SECTOR, to_host=to_host))
            transfer.go()

    def _queued_ended(self, moving: Moving) -> None:
        """One has ended: a Set Device Bits FIS says so."""
        hba, n, drive = self.hba, self.number, self.drive
        assert isinstance(drive, AtaDisk)
        assert isinstance(moving, Transfer)
        slot = next(slot for slot, other in self.queued.items() if other is moving)
        if isinstance(moving.failure, DmaError | TableShort):
            self.drop()
            self._fatal(HBFS if isinstance(moving.failure, DmaError) else OFS)
        elif moving.failure is not None:
            self._queue_error(drive, slot, moving.offset // SECTOR, moving)
        else:
            del self.queued[slot]
            hba.PxSACT[n] &= ~(1 << slot)
            self.post(
                fis.set_device_bits(drive.status, drive.error, 1 << slot),
                SDBS | self._data_cause(),
            )
            self.look()

    def _queue_error(self, drive: AtaDisk, slot: int, sector: int, transfer: Transfer) -> None:
        """One has failed, and with it all that are outstanding."""
        failure = transfer.failure
        drive.queue_failed(slot, sector, failure if isinstance(failure, BlockError) else None, transfer.operation)
        self.drop()
        self.show_task_file()
        self.hba.stopped[self.number] = 1
        self.post(fis.set_device_bits(drive.status, drive.error, 0), SDBS | TFES)

    # Saved states

    def resume(self) -> None:
        """Send again what had been sent to the drive and had not ended."""
        hba, n, drive = self.hba, self.number, self.drive
        self.slot = None
        self.queued.clear()
        if drive is None or not hba.PxCMD[n] & ST or hba.stopped[n] or drive.resetting:
            return
        hba.PxCI[n] |= hba.PxSACT[n]
        current = (hba.PxCMD[n] & CCS) >> 8
        if hba.PxTFD[n] & BSY and hba.PxCI[n] >> current & 1:
            hba.PxTFD[n] &= ~BSY
            self._send(current, drive)
        self.look()
