"""SMART (ATA8-ACS, 7.52) as far as drivers ask: a disk that is well and counts nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.ata.codes import SECTOR

if TYPE_CHECKING:
    from dbt.machine.ata.disk import AtaDisk

READ_DATA, READ_THRESHOLDS, AUTOSAVE, EXECUTE_OFFLINE, READ_LOG = 0xD0, 0xD1, 0xD2, 0xD4, 0xD5
ENABLE, DISABLE, RETURN_STATUS = 0xD8, 0xD9, 0xDA
KEY = (0x4F, 0xC2)  # in LBA mid and high
ENABLED, AUTOSAVED = 1, 2
LOG_DIRECTORY, SUMMARY_ERRORS, SELF_TESTS = 0x00, 0x01, 0x06
SELF_TEST_IMMEDIATE = {0, 1, 2, 0x7F, 0x81, 0x82}  # off-line, short and extended tests, abort; captive ones
# Attribute: (flags, value, worst, raw value, threshold). Nothing of it changes.
ATTRIBUTES = {
    0x01: (0x0003, 100, 100, 0, 6),  # read errors
    0x03: (0x0003, 100, 100, 16, 0),  # spin-up time
    0x04: (0x0002, 100, 100, 100, 20),  # starts
    0x05: (0x0003, 100, 100, 0, 36),  # reallocated sectors
    0x09: (0x0003, 100, 100, 1, 0),  # power-on hours
    0x0C: (0x0003, 100, 100, 0, 0),  # power cycles
    0xBE: (0x0003, 69, 69, 31, 50),  # temperature
}


def command(drive: AtaDisk) -> None:
    """SMART, by its subcommand in the feature register."""
    if (drive.mid & 255, drive.high & 255) != KEY:
        drive.abort()
        return
    what, argument = drive.feature & 255, drive.count & 255
    if not drive.smart & ENABLED and what != ENABLE:
        drive.abort()
    elif what == READ_DATA:
        drive.small(_checked(_data(drive)))
    elif what == READ_THRESHOLDS:
        drive.small(_checked(_thresholds()))
    elif what == READ_LOG:
        _log(drive)
    elif what == AUTOSAVE and argument in {0x00, 0xF1}:
        drive.smart = drive.smart & ~AUTOSAVED | (AUTOSAVED if argument else 0)
        drive.done()
    elif what == EXECUTE_OFFLINE and drive.low & 255 in SELF_TEST_IMMEDIATE:
        drive.done()  # done already, and nothing was found
    elif what in {ENABLE, DISABLE}:
        drive.smart = drive.smart & ~ENABLED | (what == ENABLE)
        drive.done()
    elif what == RETURN_STATUS:  # the key again: no threshold is exceeded
        drive.done()
    else:
        drive.unimplemented(f"SMART {what:02X}h")
        drive.abort()


def _data(drive: AtaDisk) -> bytearray:
    data = bytearray(SECTOR)
    data[0] = 1
    for number, (identity, (flags, value, worst, raw, _)) in enumerate(ATTRIBUTES.items()):
        at = 2 + 12 * number
        data[at : at + 12] = bytes((identity, flags & 255, flags >> 8, value, worst)) + raw.to_bytes(7, "little")
    data[362] = 0x02 | (0x80 if drive.smart & AUTOSAVED else 0)  # off-line collection was completed
    data[364:366] = (288).to_bytes(2, "little")  # seconds of that
    data[367] = 0x01 | 0x02 | 0x08 | 0x10  # execute off-line immediate, autosave, off-line scan, self-tests
    data[368:370] = (3).to_bytes(2, "little")
    data[370] = 1  # error logs
    data[372], data[373] = 2, 54  # minutes of a short and an extended test
    return data


def _thresholds() -> bytearray:
    data = bytearray(SECTOR)
    data[0] = 1
    for number, (identity, (*_, threshold)) in enumerate(ATTRIBUTES.items()):
        data[2 + 12 * number : 4 + 12 * number] = bytes((identity, threshold))
    return data


def _log(drive: AtaDisk) -> None:
    address = drive.low & 255
    data = bytearray(SECTOR)
    if drive.count & 255 != 1 or address not in {LOG_DIRECTORY, SUMMARY_ERRORS, SELF_TESTS}:
        drive.abort()
        return
    if address == LOG_DIRECTORY:
        data[0] = 1
        data[2 * SUMMARY_ERRORS] = data[2 * SELF_TESTS] = 1
    else:
        data[0] = 1  # no entries
    drive.small(_checked(data) if address else data)


def _checked(data: bytearray) -> bytearray:
    data[511] = -sum(data) & 0xFF
    return data
