"""Raw sectors of a CD-ROM, mode 1 (ECMA-130, 14 and annexes A and B): sync, header, user data, EDC, P and Q parity.

The parity is computed for all columns (P) or diagonals (Q) at once: a step of Horner's rule is an XOR of long integers
and a multiplication by the field's generator in all bytes, which is a translation table. The error detection code is
the XOR of one entry of a table (2 MiB) for each byte.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

Words = np.ndarray[Any, np.dtype[np.uint32]]

USER, RAW = 2048, 2352
COVERED = 2068  # bytes of a sector up to its error detection code, and that
SYNC = b"\0" + b"\xff" * 10 + b"\0"
PREGAP = 150  # frames before sector 0


@cache
def _edc_tables() -> Words:
    """What each byte adds to the code, by its place and value: the code is linear, so all may be looked up at once."""
    step: Words = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        step = (step >> 1 ^ (step & 1) * np.uint32(0xD8018001)).astype(np.uint32)
    tables = np.empty((COVERED, 256), np.uint32)
    tables[-1] = step
    for place in range(COVERED - 2, -1, -1):
        later = tables[place + 1]
        tables[place] = later >> 8 ^ step[later & 255]
    return tables


def _times(factor: int) -> bytes:
    """Multiplication by a constant in GF(256) modulo x^8 + x^4 + x^3 + x^2 + 1, as a table."""
    table = bytearray()
    for byte in range(256):
        product, shifted, rest = 0, byte, factor
        while rest:
            if rest & 1:
                product ^= shifted
            shifted = shifted << 1 ^ (0x11D if shifted & 0x80 else 0)
            rest >>= 1
        table.append(product)
    return bytes(table)


def _inverse(value: int) -> int:
    return next(other for other in range(1, 256) if _times(value)[other] == 1)


DOUBLE = _times(2)
BY_THREE = _times(_inverse(3))
P_COLUMNS, P_ROWS = 86, 24
Q_DIAGONALS, Q_LENGTH = 52, 43
# Byte indices of each step of Q: the diagonals of the low and of the high bytes of 26 rows of 43 words.
Q_STEPS = np.array([
    [(43 * (n >> 1) + 44 * step) % 1118 * 2 + (n & 1) for n in range(Q_DIAGONALS)] for step in range(Q_LENGTH)
])  # fmt: skip


def msf(sector: int) -> tuple[int, int, int]:
    """Minute, second and frame of a sector, as the disc counts."""
    frames = sector + PREGAP
    return frames // (75 * 60) % 100, frames // 75 % 60, frames % 75


def _bcd(value: int) -> int:
    return value // 10 << 4 | value % 10


def edc(data: bytes) -> int:
    """The error detection code of up to COVERED bytes."""
    values = np.frombuffer(data, np.uint8)
    places = np.arange(COVERED - len(values), COVERED)
    return int(np.bitwise_xor.reduce(_edc_tables()[places, values]))


def _parity(rows: list[bytes]) -> bytes:
    """Two rows that make each column a code word with roots 1 and 2, after so many rows of data."""
    width = len(rows[0])
    plain = weighted = 0
    for row in rows:
        number = int.from_bytes(row, "little")
        plain ^= number
        weighted = int.from_bytes((weighted ^ number).to_bytes(width, "little").translate(DOUBLE), "little")
    # c0 + c1 = plain; 2 c0 + c1 = weighted * 2: the sum is 3 c0.
    doubled = int.from_bytes(weighted.to_bytes(width, "little").translate(DOUBLE), "little")
    first = int.from_bytes((doubled ^ plain).to_bytes(width, "little").translate(BY_THREE), "little")
    return first.to_bytes(width, "little") + (first ^ plain).to_bytes(width, "little")


def sector(number: int, user: bytes | bytearray) -> bytes:
    """The 2,352 bytes of a sector."""
    head = bytes((*map(_bcd, msf(number)), 1)) + bytes(user)
    covered = SYNC + head
    body = bytearray(head + edc(covered).to_bytes(4, "little") + bytes(8))
    body += _parity([bytes(body[P_COLUMNS * row : P_COLUMNS * (row + 1)]) for row in range(P_ROWS)])
    diagonals = np.frombuffer(bytes(body), np.uint8)[Q_STEPS].tobytes()
    body += _parity([diagonals[Q_DIAGONALS * step : Q_DIAGONALS * (step + 1)] for step in range(Q_LENGTH)])
    return SYNC + bytes(body)
