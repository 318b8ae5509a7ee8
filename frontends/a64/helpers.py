"""Native helpers of A64 instructions, called by templates; part of dbt/engine/helpers.py's table.

Imported by the warm path: nothing but @native functions and small tables.
"""

from __future__ import annotations

from dbt.engine.layout import Env
from dbt.native import native, table, u32, u64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dbt.native import Native


def _crc_table(polynomial: int) -> list[int]:
    """What four steps do to each value of the low four bits; the polynomial's bits are reversed."""
    entries = []
    for entry in range(16):
        value = entry
        for _ in range(4):
            value = value >> 1 ^ (polynomial if value & 1 else 0)
        entries.append(value)
    return entries


CRC32 = table(u32, _crc_table(0xEDB88320))
CRC32C = table(u32, _crc_table(0x82F63B78))


@native(export=True)
def helper_crc32(env: Env, crc: u64, value: u64, size: u64) -> u64:
    """CRC32B to CRC32X: `size` bytes of value are added to a checksum with ISO 3309's polynomial."""
    for _ in range(2 * size):
        crc = crc >> 4 ^ CRC32[(crc ^ value) & 15]
        value >>= 4
    return crc


@native(export=True)
def helper_crc32c(env: Env, crc: u64, value: u64, size: u64) -> u64:
    """CRC32CB to CRC32CX: the same with Castagnoli's polynomial."""
    for _ in range(2 * size):
        crc = crc >> 4 ^ CRC32C[(crc ^ value) & 15]
        value >>= 4
    return crc


HELPERS: dict[str, tuple[Native, str]] = {"crc32": (helper_crc32, "pure"), "crc32c": (helper_crc32c, "pure")}
