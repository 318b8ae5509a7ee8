"""Reading ELF64 executables: what the loader needs, and a clear error for everything else.

Source: the System V gABI, chapter 4 and 5, and linux/fs/binfmt_elf.c for what a kernel accepts. Files are hostile:
no number of the file is used before it is checked, and nothing is allocated in proportion to one.
"""

from __future__ import annotations

import os
import stat
from struct import unpack_from

from dbt.errors import ProgramUnusable

from .abi import ESPIPE, PAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

EM_AARCH64 = 183
ET_EXEC, ET_DYN = 2, 3
PT_LOAD, PT_INTERP, PT_PHDR = 1, 3, 6
HEADER_SIZE, PHDR_SIZE = 64, 56
_MAX_HEADERS = 65536 // PHDR_SIZE  # as the kernel
_MAX_ALIGN = 1 << 30
_MACHINES = {3: "i386", 8: "MIPS", 20: "PowerPC", 21: "PowerPC64", 22: "S/390", 40: "32-bit Arm", 62: "x86-64", 243: "RISC-V", 258: "LoongArch"}  # fmt: skip  # noqa: E501
_TYPES = {0: "an ELF file of no type", 1: "an object file that is not linked", 4: "a core dump"}


class Image:
    """What an executable says about itself. `segments` holds (address, memory size, offset, file size, PROT_ bits)."""

    __slots__ = ("align", "entry", "interpreter", "path", "phdr", "phnum", "pie", "segments")

    def __init__(self, path: str) -> None:
        self.path = path
        self.pie = False
        self.entry = 0
        self.phnum = 0
        self.phdr = 0  # address of the program headers in memory, 0 if they are not loaded
        self.align = PAGE  # of the load address of a position-independent file
        self.interpreter = b""
        self.segments: list[tuple[int, int, int, int, int]] = []

    @property
    def start(self) -> int:
        """The lowest address, rounded down to a page."""
        return self.segments[0][0] & -PAGE

    @property
    def end(self) -> int:
        """The end of the highest byte."""
        return max(segment[0] + segment[1] for segment in self.segments)


def is_guest(head: bytes) -> bool:
    """Whether a file that begins with `head` is a 64-bit little-endian ELF file for AArch64."""
    return len(head) >= 20 and head[:6] == b"\x7fELF\x02\x01" and head[18] == EM_AARCH64 and not head[19]


def read_image(fd: int, path: str, limit: int) -> Image:
    """Read the headers of an executable. `limit` is the end of guest addresses. Raises ProgramUnusable."""

    def bad(reason: str, offset: int | None = None, hint: str = "") -> NoReturn:
        raise ProgramUnusable(path, reason, hint, offset)

    try:
        info = os.fstat(fd)
        size = info.st_size
        head = os.pread(fd, HEADER_SIZE, 0)
    except OSError as error:
        bad("not a regular file" if error.errno == ESPIPE else f"cannot be read: {os.strerror(error.errno or 0)}")
    if not stat.S_ISREG(info.st_mode):
        bad("not a regular file")
    _check_header(head, bad)
    kind, entry, phoff = unpack_from("<H", head, 16)[0], *unpack_from("<QQ", head, 24)
    phentsize, phnum = unpack_from("<HH", head, 54)
    if phentsize != PHDR_SIZE:
        bad(f"program headers of {phentsize} bytes, not {PHDR_SIZE}", 54)
    if not 0 < phnum <= _MAX_HEADERS:
        bad(f"{phnum} program headers, not 1 to {_MAX_HEADERS}", 56)
    if phoff + phnum * PHDR_SIZE > size:
        bad(f"the program headers at {phoff:#x} end behind the end of the file ({size} bytes): truncated?", 32)
    headers = os.pread(fd, phnum * PHDR_SIZE, phoff)
    if len(headers) != phnum * PHDR_SIZE:
        bad("the program headers cannot be read", phoff)
    image = Image(path)
    image.pie = kind == ET_DYN
    image.entry, image.phnum = entry, phnum
    for index in range(phnum):
        at = index * PHDR_SIZE
        tag, flags, offset, address, _, filesz, memsz, align = unpack_from("<IIQQQQQQ", headers, at)
        if tag == PT_INTERP:
            image.interpreter = _interpreter(fd, offset, filesz, phoff + at, bad)
        elif tag == PT_PHDR:
            image.phdr = address
        elif tag == PT_LOAD and memsz:
            name = f"segment {index}"
            if filesz > memsz:
                bad(f"{name} has {filesz} bytes in the file and {memsz} in memory", phoff + at + 32)
            if offset + filesz > size:
                bad(f"{name} ends at {offset + filesz:#x}, the file at {size:#x}: truncated?", phoff + at + 8)
            if address + memsz > limit - PAGE:
                bad(f"{name} at {address:#x} lies outside of the guest's addresses (below {limit:#x})", phoff + at + 16)
            if filesz and (address - offset) % PAGE:
                bad(f"{name}: address {address:#x} and offset {offset:#x} differ within a page", phoff + at + 16)
            if image.segments and address < image.segments[-1][0]:
                bad(f"{name} at {address:#x} is not in order of addresses", phoff + at + 16)
            if align & (align - 1):
                bad(f"{name} has an alignment of {align:#x}, not a power of two", phoff + at + 48)
            image.align = max(image.align, min(align, _MAX_ALIGN))
            prot = (flags >> 2 & 1) | (flags & 2) | (flags & 1) << 2
            image.segments.append((address, memsz, offset, filesz, prot))
    if not image.segments:
        bad("no segment to load")
    if not image.phdr:
        image.phdr = _headers_address(image, phoff)
    return image


def _check_header(head: bytes, bad: Bad) -> None:
    """Check everything of the file header that does not depend on the rest of the file."""
    if head[:4] != b"\x7fELF"[: len(head)] or not head:
        bad("empty file" if not head else "not an ELF file", 0)
    if len(head) < HEADER_SIZE:
        bad(f"the ELF header is truncated ({len(head)} of {HEADER_SIZE} bytes)", len(head))
    machine, version = unpack_from("<HI", head, 18)
    if head[4] != 2:
        bad("a 32-bit ELF file; only 64-bit AArch64 programs run", 4)
    if head[5] != 1:
        bad("a big-endian ELF file; only little-endian AArch64 programs run", 5)
    if machine != EM_AARCH64:
        name = _MACHINES.get(machine, f"machine {machine}")
        bad(f"an ELF file for {name}, not AArch64", 18, "Host programs need no translation: start them directly.")
    if version != 1 or head[6] != 1:
        bad(f"ELF version {version}, not 1", 20)
    kind = unpack_from("<H", head, 16)[0]
    if kind not in {ET_EXEC, ET_DYN}:
        bad(f"{_TYPES.get(kind, f'ELF type {kind}')}, not an executable", 16)


def _interpreter(fd: int, offset: int, size: int, at: int, bad: Bad) -> bytes:
    """The path in PT_INTERP."""
    if not 2 <= size <= PAGE:
        bad(f"an interpreter path of {size} bytes", at + 32)
    text = os.pread(fd, size, offset) if offset < 1 << 62 else b""
    if len(text) != size or text[-1] or b"\0" in text[:-1]:
        bad("the interpreter's path is cut short or has no end", at + 8)
    return text[:-1]


def _headers_address(image: Image, phoff: int) -> int:
    """Where the program headers come to lie if a segment holds them (there is no PT_PHDR); 0 if none does."""
    for address, _, offset, filesz, _ in image.segments:
        if offset <= phoff and phoff + image.phnum * PHDR_SIZE <= offset + filesz:
            return address + phoff - offset
    return 0


if TYPE_CHECKING:
    from typing import Protocol

    class Bad(Protocol):
        """Reports what is wrong with a file, and does not return."""

        def __call__(self, reason: str, offset: int | None = None, hint: str = "") -> NoReturn: ...
