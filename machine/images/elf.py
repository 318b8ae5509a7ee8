"""ELF files by their physical addresses, read with pyelftools: 32 and 64 bits, of any machine."""

from __future__ import annotations

import os
import struct
from itertools import pairwise
from typing import TYPE_CHECKING

from dbt.machine.images.source import Piece

if TYPE_CHECKING:
    from dbt.machine.images.source import Source

MOST = 1024  # program headers


def read_elf(source: Source) -> tuple[list[Piece], int]:
    """The loaded segments, sorted and without overlap, and the physical address of the entry."""
    from elftools.common.exceptions import ELFError
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile

    try:
        with open(source.path, "rb") as file:
            elf = ELFFile(file)
            if elf["e_phnum"] > MOST:
                source.wrong(f"{elf['e_phnum']} program headers, and at most {MOST} are taken")
            loads = [segment.header for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD"]
            entry = elf["e_entry"]
    except (
        ELFError,
        ConstructError,
        struct.error,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
    ) as e:
        source.wrong(f"is no ELF file that can be read: {type(e).__name__} {e}")
    except OSError as error:
        source.wrong(f"cannot be read: {os.strerror(error.errno or 0)}")
    pieces = []
    for number, load in enumerate(loads):
        address, offset, length, room = load["p_paddr"], load["p_offset"], load["p_filesz"], load["p_memsz"]
        if offset + length > source.size or length > room:
            source.wrong(f"segment {number} of {length} bytes, {room} in memory, is not in the file", offset)
        if room:
            pieces.append(Piece(address, offset, length, room))
        if load["p_vaddr"] <= elf["e_entry"] < load["p_vaddr"] + room:
            entry = elf["e_entry"] - load["p_vaddr"] + address
    pieces.sort(key=lambda piece: piece.address)
    for one, other in pairwise(pieces):
        if other.address < one.end:
            source.wrong(f"segments overlap at {other.address:#x}")
    if not pieces:
        source.wrong("has nothing to load")
    return pieces, entry
