"""What a packet command can end with: sense keys with additional codes (SPC-3, 4.5; MMC-5, annex F)."""

from __future__ import annotations

NO_SENSE, NOT_READY, MEDIUM_ERROR, ILLEGAL_REQUEST, UNIT_ATTENTION = 0x0, 0x2, 0x3, 0x5, 0x6

# ASC << 8 | ASCQ.
NONE = 0x0000
UNRECOVERED_READ_ERROR = 0x1100
PARAMETER_LIST_LENGTH = 0x1A00
INVALID_OPCODE = 0x2000
LBA_OUT_OF_RANGE = 0x2100
INVALID_FIELD = 0x2400
MEDIUM_MAY_HAVE_CHANGED = 0x2800
POWER_ON_OR_RESET = 0x2900
SAVING_NOT_SUPPORTED = 0x3900
MEDIUM_NOT_PRESENT = 0x3A00
TRAY_OPEN = 0x3A02
REMOVAL_PREVENTED = 0x5302
ILLEGAL_MODE_FOR_TRACK = 0x6400


class CheckCondition(Exception):
    """The command ends with this sense."""

    def __init__(self, key: int, code: int = NONE) -> None:
        super().__init__(key, code)
        self.key = key
        self.code = code


def fixed(key: int, code: int, information: int | None) -> bytearray:
    """Sense data in fixed format (SPC-3, 4.5.3)."""
    data = bytearray(18)
    data[0] = 0x70 | (0x80 if information is not None else 0)
    data[2] = key
    data[3:7] = (information or 0).to_bytes(4, "big")
    data[7] = 10
    data[12], data[13] = code >> 8, code & 255
    return data
