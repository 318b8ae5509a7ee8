"""Packet commands of a CD-ROM drive: SPC-3 and MMC-5, by their sections."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dbt.machine.ata import raw, sense
from dbt.machine.ata.sense import CheckCondition

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.ata.atapi import AtapiDrive

    Function = Callable[[AtapiDrive, bytes], None]

CD_ROM_PROFILE, DVD_ROM_PROFILE = 0x0008, 0x0010
LARGEST_CD = 80 * 60 * 75  # sectors; what is larger shows as a DVD
LEAD_OUT = 0xAA
DATA_TRACK = 0x14  # ADR 1, control: data
MEDIA_CLASS = 4
SYNC, HEADER, DATA, EDC = 0x80, 0x20, 0x10, 0x08  # of READ CD's byte 9
PARTS = ((SYNC, 0, 12), (HEADER, 12, 16), (DATA, 16, 2064), (EDC, 2064, 2352))


def _number(packet: bytes, at: int, size: int) -> int:
    return int.from_bytes(packet[at : at + size], "big")


def _invalid() -> CheckCondition:
    return CheckCondition(sense.ILLEGAL_REQUEST, sense.INVALID_FIELD)


def test_unit_ready(drive: AtapiDrive, packet: bytes) -> None:
    """SPC-3, 6.33."""
    del packet
    drive.ok()


def request_sense(drive: AtapiDrive, packet: bytes) -> None:
    """SPC-3, 6.27: what the last command ended with, or what has happened since."""
    key, code, information = drive.key, drive.code, drive.information
    if not key and drive.attention:
        key, code, drive.attention = sense.UNIT_ATTENTION, drive.attention, 0
    drive.reply(sense.fixed(key, code, information - 1 if information else None), packet[4])


def inquiry(drive: AtapiDrive, packet: bytes) -> None:
    """SPC-3, 6.4: standard data, and page 00h of vital product data."""
    most = _number(packet, 3, 2)
    if packet[1] & 1:
        if packet[2]:
            raise _invalid()
        drive.reply(bytearray((5, 0, 0, 1, 0)), most)
    elif packet[2]:
        raise _invalid()
    else:
        text = f"{drive.vendor:8.8}{drive.product:16.16}{drive.firmware:4.4}".encode("ascii", "replace")
        drive.reply(bytearray((5, 0x80, 0, 0x21, 31, 0, 0, 0)) + text, most)


def start_stop_unit(drive: AtapiDrive, packet: bytes) -> None:
    """MMC-5, 6.42."""
    if not packet[4] >> 4 and packet[4] & 2:  # a power condition otherwise
        drive.tray(opened=not packet[4] & 1)
    drive.ok()


def prevent_allow_medium_removal(drive: AtapiDrive, packet: bytes) -> None:
    """MMC-5, 6.17."""
    drive.locked = packet[4] & 1
    drive.ok()


def read_capacity(drive: AtapiDrive, packet: bytes) -> None:
    """MMC-5, 6.23."""
    del packet
    last = max(drive.sectors - 1, 0)
    drive.reply(bytearray(last.to_bytes(4, "big") + raw.USER.to_bytes(4, "big")), 8)


def read_10(drive: AtapiDrive, packet: bytes) -> None:
    """MMC-5, 6.18."""
    drive.reply_sectors(_number(packet, 2, 4), _number(packet, 7, 2))


def read_12(drive: AtapiDrive, packet: bytes) -> None:
    """MMC-5, 6.19."""
    drive.reply_sectors(_number(packet, 2, 4), _number(packet, 6, 4))


def seek(drive: AtapiDrive, packet: bytes) -> None:
    """MMC-5, 6.39."""
    if _number(packet, 2, 4) > drive.sectors:
        raise CheckCondition(sense.ILLEGAL_REQUEST, sense.LBA_OUT_OF_RANGE)
    drive.ok()


def _address(sector: int, *, as_msf: bool) -> bytes:
    return bytes((0, *raw.msf(sector))) if as_msf else sector.to_bytes(4, "big")


def read_toc(drive: AtapiDrive, packet: bytes) -> None:
    """MMC-5, 6.26: one track of data."""
    as_msf = bool(packet[1] & 2)
    form = packet[2] & 15 or packet[9] >> 6
    track = packet[6]
    if form == 0:
        if track > 1 and track != LEAD_OUT:
            raise _invalid()
        body = bytes((1, 1))
        if track <= 1:
            body += bytes((0, DATA_TRACK, 1, 0)) + _address(0, as_msf=as_msf)
        body += bytes((0, DATA_TRACK | 2, LEAD_OUT, 0)) + _address(drive.sectors, as_msf=as_msf)
    elif form == 1:
        body = bytes((1, 1, 0, DATA_TRACK, 1, 0)) + _address(0, as_msf=as_msf)
    elif form == 2:
        end = raw.msf(drive.sectors)
        points = ((0xA0, (1, 0, 0)), (0xA1, (1, 0, 0)), (0xA2, end), (1, raw.msf(0)))
        body = bytes((1, 1)) + b"".join(
            bytes((1, DATA_TRACK, 0, point, 0, 0, 0, 0, *where))
            for point, where in points
        )  # fmt: skip
    else:
        raise _invalid()
    drive.reply(bytearray(len(body).to_bytes(2, "big") + body), _number(packet, 7, 2))


def profile(drive: AtapiDrive) -> int:
    """The current one (MMC-5, 5.3.1); 0 without a disc."""
    if not drive.present:
        return 0
    return DVD_ROM_PROFILE if drive.sectors > LARGEST_CD else CD_ROM_PROFILE


def _feature(number: int, version: int, flags: int, data: bytes) -> tuple[int, int, bytes]:
    return number, flags, number.to_bytes(2, "big") + bytes((version << 2 | flags, len(data))) + data


def get_configuration(drive: AtapiDrive, packet: bytes) -> None:
    """MMC-5, 6.6: features 0 (profiles), 1 (core), 3 (removable medium), 10h (random reading), 1Eh (CD)."""
    current, choice, first = profile(drive), packet[1] & 3, _number(packet, 2, 2)
    if choice == 3:
        raise _invalid()
    profiles = b"".join(
        number.to_bytes(2, "big") + bytes((number == current, 0)) for number in (DVD_ROM_PROFILE, CD_ROM_PROFILE)
    )
    there, disc = int(drive.present), int(current == CD_ROM_PROFILE)
    features = (
        _feature(0x0000, 0, 3, profiles),
        _feature(0x0001, 0, 3, bytes((0, 0, 0, 2))),  # over ATAPI
        _feature(0x0003, 0, 3, bytes((0x29, 0, 0, 0))),  # a tray that locks and ejects
        _feature(0x0010, 0, there, raw.USER.to_bytes(4, "big") + bytes((0, 16, 0, 0))),
        _feature(0x001E, 0, disc, bytes(4)),
    )
    chosen = [
        data
        for number, flags, data in features
        if (number == first if choice == 2 else number >= first and (choice == 0 or flags & 1))
    ]
    body = bytes(2) + current.to_bytes(2, "big") + b"".join(chosen)
    drive.reply(bytearray(len(body).to_bytes(4, "big") + body), _number(packet, 7, 2))


def get_event_status_notification(drive: AtapiDrive, packet: bytes) -> None:
    """MMC-5, 6.7: what happened to the disc, when asked."""
    if not packet[1] & 1:
        raise _invalid()  # asynchronous events are not supported
    if packet[4] & 1 << MEDIA_CLASS:
        status = int(bool(drive.open)) | drive.present << 1
        data = bytearray((0, 4, MEDIA_CLASS, 1 << MEDIA_CLASS, drive.event, status, 0, 0))
        drive.event = 0
    else:
        data = bytearray((0, 0, 0x80, 1 << MEDIA_CLASS))
    drive.reply(data, _number(packet, 7, 2))


def read_disc_information(drive: AtapiDrive, packet: bytes) -> None:
    """MMC-5, 6.21: a finished disc of one session and one track."""
    if packet[1] & 7:
        raise _invalid()
    data = bytearray(34)
    data[1] = 32
    data[2] = 0x0E  # the last session is complete, and so is the disc
    data[3:7] = b"\1\1\1\1"
    data[7] = 0x20  # unrestricted use
    drive.reply(data, _number(packet, 7, 2))


def mechanism_status(drive: AtapiDrive, packet: bytes) -> None:
    """MMC-5, 6.10: no changer."""
    data = bytearray(8)
    data[1] = 0x10 if drive.open else 0
    data[5] = 1
    drive.reply(data, _number(packet, 8, 2))


def _error_recovery_page() -> bytes:
    return bytes((0x01, 6, 0, 5, 0, 0, 0, 0))


def _audio_page() -> bytes:
    return bytes((0x0E, 14, 4, 0, 0, 0, 0, 75, 0, 0, 0, 0, 0, 0, 0, 0))


def _capabilities_page(drive: AtapiDrive) -> bytes:
    """MM capabilities and mechanical status (MMC-3, 5.5.10)."""
    speed = (4 * 176).to_bytes(2, "big")
    lock = 0x29 | drive.locked << 1  # a tray; locks, ejects
    return bytes((0x2A, 20, 0x3B, 0, 0, 0, lock, 0)) + speed + b"\0\2\2\0" + speed + bytes(6)


def _pages(drive: AtapiDrive, control: int, code: int) -> bytes:
    if control == 3:
        raise CheckCondition(sense.ILLEGAL_REQUEST, sense.SAVING_NOT_SUPPORTED)
    pages = {0x01: _error_recovery_page(), 0x0E: _audio_page(), 0x2A: _capabilities_page(drive)}
    if code != 0x3F and code not in pages:
        raise _invalid()
    chosen = pages.values() if code == 0x3F else [pages[code]]
    if control == 1:  # nothing can be changed
        return b"".join(page[:2] + bytes(len(page) - 2) for page in chosen)
    return b"".join(chosen)


def _medium(drive: AtapiDrive) -> int:
    """The obsolete type of the disc in mode data: door open, none, data."""
    return 0x71 if drive.open else 0x01 if drive.present else 0x70


def mode_sense_6(drive: AtapiDrive, packet: bytes) -> None:
    """SPC-3, 6.9."""
    pages = _pages(drive, packet[2] >> 6, packet[2] & 0x3F)
    drive.reply(bytearray((len(pages) + 3, _medium(drive), 0, 0)) + pages, packet[4])


def mode_sense_10(drive: AtapiDrive, packet: bytes) -> None:
    """SPC-3, 6.10."""
    pages = _pages(drive, packet[2] >> 6, packet[2] & 0x3F)
    head = bytearray((len(pages) + 6).to_bytes(2, "big")) + bytes((_medium(drive), 0, 0, 0, 0, 0))
    drive.reply(head + pages, _number(packet, 7, 2))


def set_cd_speed(drive: AtapiDrive, packet: bytes) -> None:
    """MMC-5, 6.37: there is but one."""
    del packet
    drive.ok()


def part_size(parts: int) -> int:
    """Bytes of a sector of which READ CD wants these fields."""
    return sum(end - start for bit, start, end in PARTS if parts & bit)


def choose(sector: bytes, parts: int) -> bytes:
    """These fields of a raw sector."""
    return b"".join(sector[start:end] for bit, start, end in PARTS if parts & bit)


def read_cd(drive: AtapiDrive, packet: bytes) -> None:
    """MMC-5, 6.20: mode 1 sectors, any of their fields; no C2 and no sub-channel."""
    first, count = _number(packet, 2, 4), _number(packet, 6, 3)
    parts = packet[9] & ~0x40 & 0xFF  # there is no sub-header in mode 1
    if packet[1] >> 2 & 7 not in {0, 2}:
        raise CheckCondition(sense.ILLEGAL_REQUEST, sense.ILLEGAL_MODE_FOR_TRACK)
    if parts & ~(SYNC | HEADER | DATA | EDC) or packet[10] & 7:
        raise _invalid()
    if not count or not parts:
        drive.ok()
    else:
        drive.reply_sectors(first, count, 0 if parts == DATA else parts)


class Command(NamedTuple):
    """A packet command: whether it needs a disc, and whether it leaves a unit attention alone."""

    function: Function
    ready: bool = False
    unattended: bool = False


COMMANDS = {
    0x00: Command(test_unit_ready, ready=True),
    0x03: Command(request_sense, unattended=True),
    0x12: Command(inquiry, unattended=True),
    0x1A: Command(mode_sense_6),
    0x1B: Command(start_stop_unit),
    0x1E: Command(prevent_allow_medium_removal),
    0x25: Command(read_capacity, ready=True),
    0x28: Command(read_10, ready=True),
    0x2B: Command(seek, ready=True),
    0x43: Command(read_toc, ready=True),
    0x46: Command(get_configuration, unattended=True),
    0x4A: Command(get_event_status_notification, unattended=True),
    0x51: Command(read_disc_information, ready=True),
    0x5A: Command(mode_sense_10),
    0xA8: Command(read_12, ready=True),
    0xBB: Command(set_cd_speed),
    0xBD: Command(mechanism_status),
    0xBE: Command(read_cd, ready=True),
}


def perform(drive: AtapiDrive, packet: bytes) -> None:
    """Start a packet command; CheckCondition if it cannot be."""
    command = COMMANDS.get(packet[0])
    if command is None:
        drive.unimplemented(f"packet command {packet[0]:02X}h")
        raise CheckCondition(sense.ILLEGAL_REQUEST, sense.INVALID_OPCODE)
    if drive.attention and not command.unattended:
        code, drive.attention = drive.attention, 0
        raise CheckCondition(sense.UNIT_ATTENTION, code)
    if command.ready and not drive.present:
        raise CheckCondition(sense.NOT_READY, sense.TRAY_OPEN if drive.open else sense.MEDIUM_NOT_PRESENT)
    command.function(drive, packet)
