"""The ELF reader: what it takes, what it says about the rest, and that no file whatever upsets it."""

from __future__ import annotations

import random
from struct import pack, pack_into
from typing import TYPE_CHECKING

import pytest

from dbt.errors import ProgramUnusable
from dbt.linux.elf import EM_AARCH64, Image, is_guest, read_image

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 1 << 46


def header(kind: int = 2, machine: int = EM_AARCH64, phoff: int = 64, phnum: int = 1, entry: int = 0x400100) -> bytes:
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    return ident + pack("<HHIQQQIHHHHHH", kind, machine, 1, entry, phoff, 0, 0, 64, 56, phnum, 64, 0, 0)


def segment(
    tag: int = 1, flags: int = 5, offset: int = 0, address: int = 0x400000, filesz: int = 0x200, memsz: int = 0x200,
    align: int = 0x1000,
) -> bytes:  # fmt: skip
    return pack("<IIQQQQQQ", tag, flags, offset, address, address, filesz, memsz, align)


def program(*segments: bytes, head: bytes | None = None, size: int = 0x1000) -> bytes:
    parts = segments or (segment(),)
    return ((head or header(phnum=len(parts))) + b"".join(parts)).ljust(size, b"\0")


def read(tmp_path: Path, data: bytes) -> Image:
    path = tmp_path / "program"
    path.write_bytes(data)
    with path.open("rb") as file:
        return read_image(file.fileno(), str(path), LIMIT)


def complaint(tmp_path: Path, data: bytes) -> str:
    with pytest.raises(ProgramUnusable) as caught:
        read(tmp_path, data)
    assert str(tmp_path / "program") in str(caught.value)
    return str(caught.value)


def test_program(tmp_path: Path) -> None:
    image = read(tmp_path, program(segment(), segment(flags=6, address=0x500000, filesz=0x10, memsz=0x3000)))
    assert not image.pie
    assert image.entry == 0x400100
    assert image.phdr == 0x400040
    assert image.segments == [(0x400000, 0x200, 0, 0x200, 5), (0x500000, 0x3000, 0, 0x10, 3)]
    assert (image.start, image.end) == (0x400000, 0x503000)


def test_interpreter(tmp_path: Path) -> None:
    data = bytearray(program(segment(3, 4, 0x300, 0x400300, 11, 11), segment()))
    data[0x300:0x30B] = b"/lib/ld.so\0"
    assert read(tmp_path, bytes(data)).interpreter == b"/lib/ld.so"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty file"),
        (b"#!/bin/sh\n", "not an ELF file"),
        (b"\x7fEL", "truncated"),
        (header()[:40], "the ELF header is truncated (40 of 64 bytes)"),
        (program(head=header(machine=62)), "an ELF file for x86-64, not AArch64"),
        (program(head=header(machine=999)), "machine 999"),
        (program(head=header(kind=1)), "an object file that is not linked"),
        (program(head=header(kind=4)), "a core dump"),
        (program(head=header(phnum=0)), "0 program headers"),
        (program(head=header(phnum=2000)), "2000 program headers"),
        (program(head=header(phoff=1 << 63)), "truncated?"),
        (header() + segment()[:20], "truncated?"),
        (program(segment(filesz=0x300)), "0x300".replace("0x300", "768 bytes in the file and 512 in memory")),
        (program(segment(filesz=0x2000, memsz=0x2000)), "segment 0 ends at 0x2000, the file at 0x1000: truncated?"),
        (program(segment(offset=(1 << 64) - 0x1000)), "truncated?"),
        (program(segment(address=1 << 46)), "outside of the guest's addresses"),
        (program(segment(memsz=1 << 63)), "outside of the guest's addresses"),
        (program(segment(address=0x400010)), "differ within a page"),
        (program(segment(address=0x500000), segment()), "not in order"),
        (program(segment(align=0x1001)), "not a power of two"),
        (program(segment(tag=4)), "no segment to load"),
        (program(segment(tag=3, filesz=1 << 40)), "an interpreter path of"),
        (program(segment(tag=3, offset=1 << 62, filesz=9)), "cut short"),
    ],
)
def test_complaints(tmp_path: Path, data: bytes, words: str) -> None:
    assert words in complaint(tmp_path, data)


def test_complaint_names_the_offset(tmp_path: Path) -> None:
    assert "at offset 0x12" in complaint(tmp_path, program(head=header(machine=40)))


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (segment(filesz=0x300), 0x20), (segment(offset=0x1000), 8), (segment(address=1 << 46), 0x10),
        (segment(address=0x500010), 0x10), (segment(address=0x300000), 0x10),
        (segment(address=0x500000, align=3), 0x30),
    ],
    ids=("filesz", "offset", "limit", "page", "order", "align"),
)  # fmt: skip
def test_complaints_about_a_segment_name_its_field(tmp_path: Path, bad: bytes, field: int) -> None:
    """Of the second header, which is 64 bytes of the file's header and 56 of the first one behind the start."""
    assert f"at offset {64 + 56 + field:#x}" in complaint(tmp_path, program(segment(), bad))


def test_other_classes(tmp_path: Path) -> None:
    data = bytearray(program())
    data[4] = 1
    assert "32-bit" in complaint(tmp_path, bytes(data))
    data[4], data[5] = 2, 2
    assert "big-endian" in complaint(tmp_path, bytes(data))


def test_folder(tmp_path: Path) -> None:
    import os

    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(ProgramUnusable, match="cannot be read"):
            read_image(fd, str(tmp_path), LIMIT)
    finally:
        os.close(fd)


def test_is_guest() -> None:
    assert is_guest(header())
    assert not is_guest(header(machine=62))
    assert not is_guest(header()[:19])


@pytest.mark.parametrize("seed", range(4))
def test_mutations_are_read_or_refused(tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    whole = program(segment(), segment(3, 4, 0x300, 0x400300, 11, 11), segment(flags=6, address=0x500000))
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(source.randint(1, 6)):
            at = source.randrange(64 + 3 * 56)
            if source.random() < 0.5:
                data[at] = source.choice((0, 1, 0x7F, 0x80, 0xFF, source.randrange(256)))
            elif at + 8 < len(data):
                pack_into(
                    "<Q", data, at, source.choice((0, 1, 1 << 63, (1 << 64) - 1, 1 << 46, source.getrandbits(64)))
                )
        if source.random() < 0.2:
            del data[source.randrange(len(data)) :]
        try:
            image = read(tmp_path, bytes(data))
        except ProgramUnusable as error:
            assert str(tmp_path) in str(error)  # noqa: PT017
        else:
            assert all(start + memsz < LIMIT and filesz <= memsz for start, memsz, _, filesz, _ in image.segments)
