"""What headers of Linux kernels say about their place: Documentation/arch/arm64/booting and arch/x86/boot."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbt.machine.images.source import Source

ARM64 = struct.Struct("<8xQQQ24xI4x")  # text offset, image size, flags; the magic number is known
OLD_TEXT_OFFSET = 0x80000
LOADED_HIGH = 1


@dataclass(frozen=True, slots=True)
class Arm64Image:
    """`text_offset`: from 2 MiB-aligned memory; `size`: what it needs from there on, 0: not known (before 3.17)."""

    text_offset: int
    size: int
    big_endian: bool
    page_size: int  # of the kernel, in bytes; 0: not said
    anywhere: bool  # it need not be near the start of RAM


def read_arm64(source: Source) -> Arm64Image:
    """The header of an arm64 Image."""
    if source.size < 64:
        source.wrong("is too short for an arm64 Image")
    text_offset, size, flags, _ = ARM64.unpack(source.read(0, 64))
    if not size:
        text_offset = OLD_TEXT_OFFSET
    if text_offset >= 2 << 20 or text_offset % 4096:
        source.wrong(f"a text offset of {text_offset:#x}", 8)
    if size > 1 << 32:
        source.wrong(f"an image size of {size:#x}", 16)
    page = {1: 4096, 2: 16384, 3: 65536}.get(flags >> 1 & 3, 0)
    return Arm64Image(text_offset, size, bool(flags & 1), page, bool(flags >> 3 & 1))


@dataclass(frozen=True, slots=True)
class BzImage:
    """`protected`: where in the file the protected-mode code begins; the real-mode setup is before it."""

    version: int
    protected: int
    address: int  # of the protected-mode code
    entry: int  # from there: the 32-bit one; the 64-bit one is 0x200 further, if `long_mode`
    relocatable: bool
    alignment: int
    init_size: int  # what the kernel needs from `address` on, before it knows about memory
    long_mode: bool
    above_4g: bool
    initrd_max: int  # the highest address of an initrd
    command_line: int  # most bytes of it


def read_bzimage(source: Source) -> BzImage:
    """The setup header of a bzImage of boot protocol 2.00 or later."""
    if source.size < 0x270:
        source.wrong("is too short for a bzImage")
    head = source.read(0, 0x270)

    def number(at: int, size: int, since: int, otherwise: int) -> int:
        return int.from_bytes(head[at : at + size], "little") if version >= since else otherwise

    version = int.from_bytes(head[0x206:0x208], "little")
    if version < 0x200:
        source.wrong(f"boot protocol {version:#x}: at least 2.00 is needed", 0x206)
    if not head[0x211] & LOADED_HIGH:
        source.wrong("a zImage, which is loaded below 1 MiB", 0x211, "make a bzImage")
    protected = ((head[0x1F1] or 4) + 1) * 512
    if protected >= source.size:
        source.wrong(f"{protected} bytes of setup, and the file has {source.size}", 0x1F1)
    alignment, flags = number(0x230, 4, 0x205, 0), number(0x236, 2, 0x20C, 0)
    return BzImage(
        version=version,
        protected=protected,
        address=number(0x258, 8, 0x20A, 0x100000),
        entry=0,
        relocatable=bool(number(0x234, 1, 0x205, 0)),
        alignment=alignment,
        init_size=number(0x260, 4, 0x20A, 0),
        long_mode=bool(flags & 1),
        above_4g=bool(flags & 2),
        initrd_max=number(0x22C, 4, 0x203, 0x37FFFFFF),
        command_line=number(0x238, 4, 0x206, 255),
    )
