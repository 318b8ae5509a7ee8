"""How tables reach a guest: as files of fw_cfg with a script of what firmware links (QEMU's bios-linker-loader).

Also as one image at an address, and as the text of `acpidump`, which `acpixtract` and `iasl` take.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from dbt.machine.boards.acpi.tables import POINTERS, rsdp, summed, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TABLES, POINTER, SCRIPT = "etc/acpi/tables", "etc/acpi/rsdp", "etc/table-loader"
ALLOCATE, ADD_POINTER, ADD_CHECKSUM = 1, 2, 3
HIGH_ZONE, FSEG_ZONE = 1, 2  # anywhere below 4 GiB; below 1 MiB, where systems look for the pointer
ALIGN = 64  # the FACS's


class _Image:
    """All tables behind each other: `at` is where each starts, `links` are (offset, size, target)."""

    def __init__(self, tables: Mapping[str, bytes]) -> None:
        listed = [signature for signature in tables if signature not in {"DSDT", "FACS"}]
        every = {
            **tables,
            "RSDT": table("RSDT", 1, bytes(4 * len(listed))),
            "XSDT": table("XSDT", 1, bytes(8 * len(listed))),
        }
        self.at: dict[str, int] = {}
        self.sizes = {signature: len(data) for signature, data in every.items()}
        self.data = bytearray()
        for signature, data in every.items():
            self.data += bytes(-len(self.data) % ALIGN)
            self.at[signature] = len(self.data)
            self.data += data
        self.links = [
            (self.at[signature] + offset, size, self.at[target])
            for signature in tables
            for offset, size, target in POINTERS.get(signature, ())
            if target in tables
        ]
        for number, signature in enumerate(listed):
            self.links.append((self.at["RSDT"] + 36 + 4 * number, 4, self.at[signature]))
            self.links.append((self.at["XSDT"] + 36 + 8 * number, 8, self.at[signature]))

    def linked(self, base: int) -> bytes:
        """The image as it is at an address."""
        data = bytearray(self.data)
        for offset, size, target in self.links:
            data[offset : offset + size] = (base + target).to_bytes(size, "little")
        for signature, at in self.at.items():
            if signature != "FACS":
                data[at : at + self.sizes[signature]] = summed(bytes(data[at : at + self.sizes[signature]]))
        return bytes(data)


def image(tables: Mapping[str, bytes], base: int) -> tuple[bytes, bytes]:
    """(pointer, tables) for firmware that puts the tables at `base`."""
    made = _Image(tables)
    return rsdp(base + made.at["RSDT"], base + made.at["XSDT"]), made.linked(base)


def _text(name: str) -> bytes:
    return name.encode("ascii").ljust(56, b"\0")


def _commands(made: _Image) -> Iterator[bytes]:
    yield struct.pack("<I56sIB", ALLOCATE, _text(TABLES), ALIGN, HIGH_ZONE)
    yield struct.pack("<I56sIB", ALLOCATE, _text(POINTER), 16, FSEG_ZONE)
    for offset, size, _ in made.links:
        yield struct.pack("<I56s56sIB", ADD_POINTER, _text(TABLES), _text(TABLES), offset, size)
    for signature, at in made.at.items():
        if signature != "FACS":
            yield struct.pack("<I56sIII", ADD_CHECKSUM, _text(TABLES), at + 9, at, made.sizes[signature])
    for offset, size in ((16, 4), (24, 8)):
        yield struct.pack("<I56s56sIB", ADD_POINTER, _text(POINTER), _text(TABLES), offset, size)
    for offset, length in ((8, 20), (32, 36)):
        yield struct.pack("<I56sIII", ADD_CHECKSUM, _text(POINTER), offset, 0, length)


def files(tables: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of fw_cfg. Pointers hold offsets, and sums are zero, until firmware runs the script."""
    made = _Image(tables)
    data = bytearray(made.linked(0))
    for signature, at in made.at.items():
        if signature != "FACS":
            data[at + 9] = 0
    pointer = bytearray(rsdp(made.at["RSDT"], made.at["XSDT"]))
    pointer[8] = pointer[32] = 0
    script = b"".join(command.ljust(128, b"\0") for command in _commands(made))
    return {TABLES: bytes(data), POINTER: bytes(pointer), SCRIPT: script}


def dump(tables: Mapping[str, bytes], base: int = 0) -> str:
    """The text that `acpidump` prints on a system with these tables."""
    pointer, data = image(tables, base)
    made = _Image(tables)
    parts = [("RSD PTR ", 0, pointer)]
    parts += [(name, base + at, data[at : at + made.sizes[name]]) for name, at in made.at.items()]
    lines = []
    for signature, address, content in parts:
        lines.append(f"{signature} @ 0x{address:016X}")
        for at in range(0, len(content), 16):
            row = content[at : at + 16]
            shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
            lines.append(f"    {at:04X}: {' '.join(f'{byte:02X}' for byte in row):47}  {shown}")
        lines.append("")
    return "\n".join(lines) + "\n"
