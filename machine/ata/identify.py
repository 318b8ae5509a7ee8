"""IDENTIFY DEVICE and IDENTIFY PACKET DEVICE data (ATA8-ACS, 7.16 and 7.17), by declared fields.

Numbers are little-endian over their words, texts have the first of two characters in a word's high byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

SIZE = 512
SIGNATURE = 0xA5  # of the integrity word


class Field(NamedTuple):
    """Words of the data; `text`: characters."""

    word: int
    words: int = 1
    text: bool = False


FIELDS = {
    "general configuration": Field(0),
    "cylinders": Field(1),
    "heads": Field(3),
    "sectors per track": Field(6),
    "serial number": Field(10, 10, text=True),
    "firmware revision": Field(23, 4, text=True),
    "model number": Field(27, 20, text=True),
    "sectors of a multiple": Field(47),
    "capabilities": Field(49),
    "capabilities 50": Field(50),
    "PIO cycle": Field(51),
    "DMA cycle": Field(52),
    "valid fields": Field(53),
    "current cylinders": Field(54),
    "current heads": Field(55),
    "current sectors per track": Field(56),
    "current CHS sectors": Field(57, 2),
    "current multiple": Field(59),
    "LBA28 sectors": Field(60, 2),
    "multiword DMA": Field(63),
    "PIO modes": Field(64),
    "minimum multiword DMA cycle": Field(65),
    "recommended multiword DMA cycle": Field(66),
    "minimum PIO cycle": Field(67),
    "minimum PIO cycle with IORDY": Field(68),
    "additional support": Field(69),
    "queue depth": Field(75),
    "SATA capabilities": Field(76),
    "SATA features supported": Field(78),
    "SATA features enabled": Field(79),
    "major version": Field(80),
    "minor version": Field(81),
    "features supported": Field(82, 3),
    "features enabled": Field(85, 3),
    "Ultra DMA": Field(88),
    "hardware reset result": Field(93),
    "LBA48 sectors": Field(100, 4),
    "blocks of DATA SET MANAGEMENT": Field(105),
    "physical sectors": Field(106),
    "world wide name": Field(108, 4),
    "command set 4": Field(119),
    "command set 4 enabled": Field(120),
    "data set management": Field(169),
    "rotation rate": Field(217),
    "transport version": Field(222),
}


def build(values: Mapping[str, int | str], *, device: bool = True) -> bytearray:
    """The 512 bytes. `device`: with the integrity word, which ATAPI devices need not have."""
    data = bytearray(SIZE)
    for name, value in values.items():
        field = FIELDS[name]
        at, length = 2 * field.word, 2 * field.words
        if isinstance(value, str):
            text = value.encode("ascii", "replace").ljust(length)[:length]
            data[at : at + length] = b"".join(text[n : n + 2][::-1] for n in range(0, length, 2))
        elif name == "world wide name":  # its words are in the order of a big-endian number
            for n in range(4):
                data[at + 2 * n : at + 2 * n + 2] = (value >> 48 - 16 * n & 0xFFFF).to_bytes(2, "little")
        else:
            data[at : at + length] = value.to_bytes(length, "little")
    if device:
        data[510] = SIGNATURE
        data[511] = -sum(data) & 0xFF
    return data


def parse(data: bytes | bytearray) -> dict[str, int | str]:
    """All fields of such data: what a driver reads out of it."""
    values: dict[str, int | str] = {}
    for name, field in FIELDS.items():
        part = bytes(data[2 * field.word : 2 * (field.word + field.words)])
        if field.text:
            values[name] = b"".join(part[n : n + 2][::-1] for n in range(0, len(part), 2)).decode("ascii").rstrip()
        else:
            values[name] = int.from_bytes(part, "little")
    return values


def modes(mode: int) -> tuple[int, int]:
    """The words of multiword and Ultra DMA, with the mode that SET FEATURES has chosen."""
    kind, number = mode >> 3, mode & 7
    return 0x0007 | (1 << 8 + number if kind == 4 else 0), 0x003F | (1 << 8 + number if kind == 8 else 0)
