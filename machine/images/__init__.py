"""Files that are put into a machine's memory before it runs: raw, ELF, Linux's arm64 Image, x86's bzImage.

    loaded = load_image(machine.memory, "Image", ram=(0x4000_0000, 1 << 30))
    loaded.entry, loaded.pieces, loaded.facts

An image is placed as its format says, or at `address`; all of it has to be memory, which is seen to before anything is
copied. Files are hostile: see elf.py and linux.py. Nothing here starts a kernel: boot protocols are for CPUs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbt.machine.errors import BusError, MapError
from dbt.machine.images.elf import read_elf
from dbt.machine.images.linux import Arm64Image, BzImage, read_arm64, read_bzimage
from dbt.machine.images.source import Piece, Source

from dbt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dbt.machine.memory import AddressSpace

RAW, ELF, ARM64, BZIMAGE = "raw", "elf", "arm64 Image", "bzImage"
ALIGN_ARM64 = 2 << 20

__all__ = ["ARM64", "BZIMAGE", "ELF", "RAW", "Arm64Image", "BzImage", "Loaded", "kind_of", "load_image"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is where. `pieces`: (start, end) of memory that belongs to the image, also what it only needs as room."""

    path: str
    kind: str
    pieces: tuple[tuple[int, int], ...]
    entry: int | None = None
    facts: Arm64Image | BzImage | None = None


def kind_of(head: bytes) -> str:
    """What a file that begins with `head` (the first KiB) is."""
    if head[:4] == b"\x7fELF":
        return ELF
    if head[0x38:0x3C] == b"ARM\x64":
        return ARM64
    if head[0x202:0x206] == b"HdrS" and head[0x1FE:0x200] == b"\x55\xaa":
        return BZIMAGE
    return RAW


def load_image(
    space: AddressSpace, path: str, address: int | None = None, *, ram: tuple[int, int] | None = None, kind: str = ""
) -> Loaded:
    """Put an image into memory. `ram`: (start, size), for images that are placed relative to it; `kind`: of the four.

    ProgramNotFound and ProgramUnusable for the file, MapError if it does not fit, UsageError if no place is known.
    """
    with Source(path) as source:
        kind = kind or kind_of(source.read(0, min(source.size, 1024)))
        if kind == RAW:
            if address is None:
                raise UsageError(f"{path}: a raw image has no address of its own", f"say {path}@ADDRESS")
            put(space, source, [Piece(address, 0, source.size, source.size)])
            return Loaded(path, RAW, ((address, address + source.size),))
        if kind == ELF:
            if address is not None:
                raise UsageError(f"{path}: an ELF file is loaded at its own addresses", "leave the address out")
            pieces, entry = read_elf(source)
            put(space, source, pieces)
            return Loaded(path, ELF, tuple((piece.address, piece.end) for piece in pieces), entry)
        if kind == ARM64:
            facts = read_arm64(source)
            if address is None:
                if ram is None:
                    raise UsageError(f"{path}: where RAM begins has to be known", f"say {path}@ADDRESS")
                address = -(-ram[0] // ALIGN_ARM64) * ALIGN_ARM64 + facts.text_offset
            piece = Piece(address, 0, source.size, max(facts.size, source.size))
            put(space, source, [piece])
            return Loaded(path, ARM64, ((piece.address, piece.end),), address, facts)
        if kind == BZIMAGE:
            found = read_bzimage(source)
            start = found.address if address is None else address
            length = source.size - found.protected
            piece = Piece(start, found.protected, length, max(found.init_size, length))
            put(space, source, [piece])
            return Loaded(path, BZIMAGE, ((piece.address, piece.end),), start + found.entry, found)
    raise UsageError(f"there is no kind of image called {kind!r}", f"kinds: {RAW}, {ELF}, {ARM64}, {BZIMAGE}")


def put(space: AddressSpace, source: Source, pieces: Iterable[Piece]) -> None:
    """Copy pieces of a file into RAM or ROM, and make zeroes of the rest of each."""
    parts = []
    for piece in pieces:
        try:
            parts.append((piece, space.spans(piece.address, piece.room, writable=False)))
        except BusError as error:
            raise MapError(
                f"{source.path}: {piece.room:,} bytes at {piece.address:#x} of {space.name}: "
                f"{error.reason} at {error.address:#x}",
                "see `dragoman machine BOARD --map` for where memory is",
            ) from None
    for piece, spans in parts:
        done = 0
        for section, at, count in spans:
            memory = section.memory
            assert memory is not None
            copied = min(max(piece.length - done, 0), count)
            if copied:
                source.into(memory.view[at : at + copied], piece.offset + done)
                memory.written(at, copied)
            if copied < count:
                memory.clear(at + copied, count - copied)
            done += count


def in_mib(size: int) -> str:
    """A size for people."""
    return f"{size / (1 << 20):.1f} MiB" if size >= 1 << 20 else f"{size:,} B"


def about(loaded: Loaded) -> str:
    """A line for people."""
    where = ", ".join(f"{start:#x}-{end - 1:#x} ({in_mib(end - start)})" for start, end in loaded.pieces if end > start)
    entry = "" if loaded.entry is None else f", entry {loaded.entry:#x}"
    return f"{os.path.basename(loaded.path)}: {loaded.kind} at {where}{entry}"
