"""The commands of a hard disk that move no sectors: ATA8-ACS, 7; the retired ones ATA-4, 8."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.ata import logs, smart
from dbt.machine.ata.codes import ABRT, DF, DRDY, ERR, IDNF, SECTOR, Op
from dbt.machine.ata.transfer import Copy, Moving
from dbt.machine.block import DISCARD, FLUSH, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.ata.disk import AtaDisk
    from dbt.machine.ata.drive import Drive
    from dbt.machine.block import BlockError

STANDBY_MODE, ACTIVE = 0x00, 0xFF
RANGES = SECTOR // 8  # of one block of DATA SET MANAGEMENT
TRANSFER_MODES = {0: 2, 1: 5, 4: 3, 8: 6}  # kind: how many (PIO default, PIO with flow control, MWDMA, UDMA)
KEPT_FEATURES = {0x66, 0xCC}  # settings survive a software reset or do not: they always do


def nop(drive: Drive) -> None:
    """NOP is always aborted."""
    drive.abort()


def identify_device(drive: AtaDisk) -> None:
    """IDENTIFY DEVICE."""
    drive.small(drive.identity())


def recalibrate(drive: AtaDisk) -> None:
    """RECALIBRATE and SEEK move nothing here."""
    drive.done()


def seek(drive: AtaDisk) -> None:
    """SEEK (ATA-4): the address has to exist."""
    where = drive.address28 if drive.by_lba else 0
    if where < drive.size:
        drive.done()
    else:
        drive.abort(IDNF)


def diagnostic(drive: Drive) -> None:
    """EXECUTE DEVICE DIAGNOSTIC: both devices of a channel do it, and device 0 answers."""
    other = drive.link.other(drive)
    if other is not None:
        other.begin_reset()
        other.end_reset()
    drive.sign()
    drive.error = 1
    drive.done(drive.AFTER_RESET)


def initialize_device_parameters(drive: AtaDisk) -> None:
    """INITIALIZE DEVICE PARAMETERS (ATA-4): a CHS translation."""
    heads, sectors = (drive.select & 15) + 1, drive.count & 255
    if not sectors:
        drive.abort()
        return
    drive.heads, drive.sectors = heads, sectors
    drive.done()


def set_multiple_mode(drive: AtaDisk) -> None:
    """SET MULTIPLE MODE: powers of two up to 16; 0 turns it off."""
    wanted = drive.count & 255
    if wanted > 16 or wanted & (wanted - 1):
        drive.abort()
        return
    drive.multiple = wanted
    drive.done()


def _power(level: int, *, sleep: bool = False) -> Callable[[AtaDisk], None]:
    def command(drive: AtaDisk) -> None:
        drive.power, drive.asleep = level, int(sleep)
        drive.done()

    return command


def check_power_mode(drive: AtaDisk) -> None:
    """CHECK POWER MODE."""
    drive.count = drive.count & 0xFF00 | drive.power
    drive.done()


def flush_cache(drive: AtaDisk) -> None:
    """FLUSH CACHE (EXT)."""

    def landed(error: BlockError | None, at_once: bool) -> None:
        del at_once
        if error is None:
            drive.done()
        else:
            drive.error = ABRT
            drive.done(DRDY | DF | ERR)

    drive.start(Request(FLUSH), None, landed)


def read_native_max(drive: AtaDisk) -> None:
    """READ NATIVE MAX ADDRESS (EXT): the last sector."""
    last = drive.size - 1
    if drive.command == Op.READ_NATIVE_MAX_ADDRESS_EXT:
        drive.show48(last)
    else:
        drive.show28(min(last, (1 << 28) - 1))
    drive.done()


def set_transfer_mode(drive: Drive) -> bool:
    """SET FEATURES 03h; whether there is such a mode."""
    kind, number = drive.count >> 3 & 31, drive.count & 7
    if number >= TRANSFER_MODES.get(kind, 0) or (kind >= 4 and not drive.link.dma):
        return False
    if kind >= 4:
        drive.mode = drive.count & 255
    return True


def set_features(drive: AtaDisk) -> None:
    """SET FEATURES."""
    feature = drive.feature & 255
    if feature == 0x03:
        if not set_transfer_mode(drive):
            drive.abort()
            return
    elif feature in {0x02, 0x82}:
        drive.cached = int(feature == 0x02)
        if not drive.cached:
            flush_cache(drive)
            return
    elif feature in {0xAA, 0x55}:
        drive.ahead = int(feature == 0xAA)
    elif feature not in KEPT_FEATURES:
        drive.unimplemented(f"SET FEATURES {feature:02X}h")
        drive.abort()
        return
    drive.done()


# Data that is not the medium's


def send(drive: AtaDisk, data: bytearray) -> None:
    """PIO data to memory, of links without a data register."""

    def sent(moving: Moving) -> None:
        if moving.failure is not None:
            drive.lost(moving.failure)
        else:
            drive.done(data_in=True)

    drive.moving = Copy(drive, data, drive.link.memory(drive), sent, to_memory=True)
    drive.moving.go()


def _receive(drive: AtaDisk, length: int, *, dma: bool) -> None:
    """Data from the host, for `received`."""

    def come(moving: Moving) -> None:
        if moving.failure is not None:
            drive.lost(moving.failure)
        else:
            assert isinstance(moving, Copy)
            received(drive, moving.data)

    if dma or not drive.link.task_file:
        drive.wants_dma(Copy(drive, bytearray(length), drive.link.memory(drive), come, to_memory=False))
    else:
        drive.ask(length, interrupt=False)


def received(drive: AtaDisk, data: bytearray) -> None:
    """What the host has sent with a command that takes data other than sectors."""
    if drive.command == Op.DATA_SET_MANAGEMENT:
        ranges = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]
        _trim(drive, [(entry & (1 << 48) - 1, entry >> 48) for entry in ranges if entry >> 48])
    else:
        drive.abort()


def data_set_management(drive: AtaDisk) -> None:
    """DATA SET MANAGEMENT: TRIM, of one block of ranges."""
    if drive.feature & 255 != 1 or drive.count != 1 or not drive.link.dma:
        drive.abort()
    else:
        _receive(drive, SECTOR, dma=True)


def _trim(drive: AtaDisk, ranges: list[tuple[int, int]]) -> None:
    """Discard one range after the other; what a format cannot discard stays."""
    if any(start + count > drive.size for start, count in ranges):
        drive.guest_error("TRIM beyond the end")
        drive.abort(ABRT | IDNF)
        return
    waiting = len(ranges)
    if not waiting:
        drive.done()
        return

    def landed(error: BlockError | None, at_once: bool) -> None:
        nonlocal waiting
        del error, at_once  # TRIM is a hint
        waiting -= 1
        if not waiting:
            drive.done()

    for start, count in ranges:
        drive.start(Request(DISCARD, start * SECTOR, length=count * SECTOR), None, landed)


COMMANDS: dict[int, Callable[[AtaDisk], None]] = {
    Op.NOP: nop,
    Op.DATA_SET_MANAGEMENT: data_set_management,
    **dict.fromkeys(range(Op.RECALIBRATE, Op.RECALIBRATE + 16), recalibrate),
    **dict.fromkeys(range(Op.SEEK, Op.SEEK + 16), seek),
    Op.READ_NATIVE_MAX_ADDRESS_EXT: read_native_max,
    Op.READ_NATIVE_MAX_ADDRESS: read_native_max,
    Op.READ_LOG_EXT: logs.read_log,
    Op.EXECUTE_DEVICE_DIAGNOSTIC: diagnostic,
    Op.INITIALIZE_DEVICE_PARAMETERS: initialize_device_parameters,
    **dict.fromkeys((Op.STANDBY_IMMEDIATE, Op.STANDBY_IMMEDIATE_OLD, Op.STANDBY, Op.STANDBY_OLD), _power(STANDBY_MODE)),
    **dict.fromkeys((Op.IDLE_IMMEDIATE, Op.IDLE_IMMEDIATE_OLD, Op.IDLE, Op.IDLE_OLD), _power(ACTIVE)),
    **dict.fromkeys((Op.SLEEP, Op.SLEEP_OLD), _power(STANDBY_MODE, sleep=True)),
    **dict.fromkeys((Op.CHECK_POWER_MODE, Op.CHECK_POWER_MODE_OLD), check_power_mode),
    Op.SMART: smart.command,
    Op.SET_MULTIPLE_MODE: set_multiple_mode,
    Op.FLUSH_CACHE: flush_cache,
    Op.FLUSH_CACHE_EXT: flush_cache,
    Op.IDENTIFY_DEVICE: identify_device,
    Op.SET_FEATURES: set_features,
    # A hard disk has no packets, and says so by an abort.
    Op.PACKET: nop,
    Op.IDENTIFY_PACKET_DEVICE: nop,
    Op.DEVICE_RESET: nop,
}
