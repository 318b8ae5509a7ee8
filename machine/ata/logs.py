"""READ LOG EXT (ATA8-ACS, 7.30 and annex A): the directory, and what went wrong with a queued command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.ata.codes import DRDY, ERR, SECTOR

if TYPE_CHECKING:
    from dbt.machine.ata.disk import AtaDisk

DIRECTORY, NCQ_ERROR = 0x00, 0x10
PAGES = {DIRECTORY: 1, NCQ_ERROR: 1}
NOT_QUEUED = 0x80


def read_log(drive: AtaDisk) -> None:
    """READ LOG EXT."""
    address, page = drive.low & 255, (drive.mid & 255) | (drive.mid >> 8) << 8
    if address not in PAGES or drive.count != 1 or page:
        drive.abort()
        return
    data = bytearray(SECTOR)
    if address == DIRECTORY:
        data[0:2] = (1).to_bytes(2, "little")
        for log, pages in PAGES.items():
            if log:
                data[2 * log : 2 * log + 2] = pages.to_bytes(2, "little")
    else:
        _ncq_error(drive, data)
        data[511] = -sum(data) & 0xFF
        drive.failed_tag = 0
    drive.small(data)


def _ncq_error(drive: AtaDisk, data: bytearray) -> None:
    """Log 10h: the tag, then the registers as they were."""
    if not drive.failed_tag:
        data[0] = NOT_QUEUED
        return
    address = drive.failed_lba.to_bytes(6, "little")
    data[0] = drive.failed_tag - 1
    data[2:4] = bytes((DRDY | ERR, drive.failed_error))
    data[4:7] = address[:3]
    data[7] = 0x40
    data[8:11] = address[3:]
