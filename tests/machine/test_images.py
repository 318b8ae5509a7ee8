"""Images: where each format puts its bytes; real files of this host's compilers; files that are damaged."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from random import Random

import pytest
from dbt.machine.boards import Options, load
from dbt.machine.errors import MapError
from dbt.machine.images import ARM64, BZIMAGE, ELF, RAW, Arm64Image, BzImage, load_image
from dbt.machine.images import about as about_image
from dbt.machine.machine import Machine
from dbt.machine.memory import RAM, ROM, Alias

from dbt.errors import ProgramNotFound, ProgramUnusable, UsageError

BASE, SIZE = 0x4000_0000, 16 << 20


def machine() -> Machine:
    made = Machine()
    made.place(RAM("ram", SIZE), BASE)
    made.place(ROM("rom", 0x10000), 0)
    for at in range(BASE, BASE + SIZE, 1 << 20):
        made.memory.write(at, 8, (1 << 64) - 1)
    return made


def elf(segments: list[tuple[int, int, bytes, int]], entry: int, *, bits: int = 64, kind: int = 183) -> bytes:
    """(virtual, physical, content, room) of each segment."""
    head, each = (64, 56) if bits == 64 else (52, 32)
    offset = head + each * len(segments)
    headers, body = b"", b""
    for virtual, physical, content, room in segments:
        at = offset + len(body)
        if bits == 64:
            headers += struct.pack("<2I6Q", 1, 7, at, virtual, physical, len(content), room, 4096)
        else:
            headers += struct.pack("<8I", 1, at, virtual, physical, len(content), room, 7, 4096)
        body += content
    ident = b"\x7fELF" + bytes((2 if bits == 64 else 1, 1, 1)) + bytes(9)
    words = "<2HI3QI6H" if bits == 64 else "<2HI3II6H"
    return (
        ident + struct.pack(words, 2, kind, 1, entry, head, 0, 0, head, each, len(segments), 64, 0, 0) + headers + body
    )


def test_elf_files_are_at_their_physical_addresses(tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    for bits, kind in ((64, 183), (32, 3), (32, 40)):
        made = machine()
        high = 0xC000_0000 if bits == 32 else 0xFFFF_8000_0000_0000
        segments = [(high, BASE, b"text" * 1000, 4000), (high + 0x10_0000, BASE + 0x10_0000, b"data", 0x20_0000)]
        path.write_bytes(elf(segments, high + 0x20, bits=bits, kind=kind))
        loaded = load_image(made.memory, str(path))
        assert (loaded.kind, loaded.entry) == (ELF, BASE + 0x20)
        assert loaded.pieces == ((BASE, BASE + 4000), (BASE + 0x10_0000, BASE + 0x30_0000))
        assert made.memory.peek(BASE, 4000) == b"text" * 1000
        assert made.memory.peek(BASE + 0x10_0000, 8) == b"data\0\0\0\0"
        assert made.memory.read(BASE + 0x20_0000, 8) == 0
        assert made.memory.read(BASE + 0x30_0000, 8) == (1 << 64) - 1
        assert about_image(loaded).startswith("kernel: elf at 0x40000000-0x40000f9f (4,000 B), 0x40100000-")


@pytest.mark.needs("aarch64-linux-gnu-gcc")
def test_what_a_compiler_makes(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("int table[3] = {1, 2, 3}; char room[100000]; void _start(void) { table[0]++; }")
    words = ["aarch64-linux-gnu-gcc", "-nostdlib", "-static", "-Wl,-Ttext=0x40080000,-Tdata=0x40200000", "-o"]
    subprocess.run([*words, f"{tmp_path}/a", f"{tmp_path}/a.c"], check=True)
    made = load("virt").build(Options(ram=SIZE))
    loaded = load_image(made.memory, f"{tmp_path}/a")
    assert loaded.entry == 0x4008_0000
    assert made.memory.peek(0x4020_0000, 12) == struct.pack("<3i", 1, 2, 3)
    assert made.memory.read(0x4008_0000, 4) & 0x9F00_0000 == 0x9000_0000  # adrp


def test_raw_files_are_where_one_says(tmp_path: Path) -> None:
    path = tmp_path / "bios"
    path.write_bytes(b"reset" * 100)
    made = machine()
    assert load_image(made.memory, str(path), 0x100).pieces == ((0x100, 0x100 + 500),)
    assert made.memory.peek(0x100, 5) == b"reset"
    with pytest.raises(UsageError, match="no address of its own"):
        load_image(made.memory, str(path))
    for at in (BASE + SIZE - 499, 0x8000_0000, -1, 1 << 64):
        with pytest.raises(MapError, match="500 bytes at"):
            load_image(made.memory, str(path), at)
    assert made.memory.peek(BASE + SIZE - 8, 8) == bytes(8)
    with pytest.raises(ProgramNotFound):
        load_image(made.memory, f"{path}.no", 0)
    with pytest.raises(ProgramUnusable):
        load_image(made.memory, str(tmp_path), 0)
    with pytest.raises(UsageError, match="kinds: raw"):
        load_image(made.memory, str(path), 0, kind="toast")
    path.write_bytes(b"\x7fELF" + bytes(2000))
    assert load_image(made.memory, str(path), 0, kind=RAW).kind == RAW
    with pytest.raises(UsageError, match="own addresses"):
        load_image(made.memory, str(path), 0)


def arm64(text_offset: int = 0x80000, size: int = 0x20_0000, flags: int = 0b1010) -> bytes:
    return struct.pack("<II3Q24s4sI", 0x91005A4D, 0x14000000, text_offset, size, flags, b"", b"ARM\x64", 0x40)


def test_arm64_images(tmp_path: Path) -> None:
    path = tmp_path / "Image"
    path.write_bytes(arm64().ljust(5000, b"k"))
    made = Machine()
    made.place(RAM("ram", SIZE), BASE + 0x1000)
    loaded = load_image(made.memory, str(path), ram=(BASE + 0x1000, SIZE))
    start = BASE + 0x20_0000 + 0x80000
    assert (loaded.kind, loaded.pieces, loaded.entry) == (ARM64, ((start, start + 0x20_0000),), start)
    assert loaded.facts == Arm64Image(0x80000, 0x20_0000, big_endian=False, page_size=4096, anywhere=True)
    assert made.memory.peek(start + 4999, 2) == b"k\0"
    assert load_image(made.memory, str(path), BASE + 0x40_0000).entry == BASE + 0x40_0000
    with pytest.raises(UsageError, match="where RAM begins"):
        load_image(made.memory, str(path))
    path.write_bytes(arm64(size=SIZE).ljust(5000, b"k"))
    with pytest.raises(MapError, match="nothing is there"):
        load_image(made.memory, str(path), ram=(BASE + 0x1000, SIZE))
    path.write_bytes(arm64(text_offset=0, size=0).ljust(5000, b"k"))
    assert load_image(made.memory, str(path), ram=(BASE + 0x1000, SIZE)).entry == start
    for wrong in (arm64(text_offset=1 << 30), arm64(text_offset=100), arm64(size=1 << 40)):
        path.write_bytes(wrong)
        with pytest.raises(ProgramUnusable, match="at offset 0x"):
            load_image(made.memory, str(path), ram=(BASE, SIZE))


def bzimage(**numbers: int) -> bytes:
    head = bytearray(0x270)
    fields = {
        "sectors": (0x1F1, 1, 3), "flag": (0x1FE, 2, 0xAA55), "magic": (0x202, 4, 0x53726448),
        "version": (0x206, 2, 0x20F), "flags": (0x211, 1, 1), "initrd": (0x22C, 4, 0x7FFF_FFFF),
        "align": (0x230, 4, 0x20_0000), "moves": (0x234, 1, 1), "xflags": (0x236, 2, 0x3F), "line": (0x238, 4, 2047),
        "at": (0x258, 8, 0x100_0000), "room": (0x260, 4, 0x30_0000),
    }  # fmt: skip
    for name, (at, size, value) in fields.items():
        head[at : at + size] = numbers.get(name, value).to_bytes(size, "little")
    return bytes(head).ljust(2048, b"s") + b"protected" * 1000


def test_bzimages(tmp_path: Path) -> None:
    path = tmp_path / "bzImage"
    path.write_bytes(bzimage())
    made = Machine()
    ram = RAM("ram", 64 << 20)
    made.place(Alias("low", ram, 0, 0xA0000), 0)
    made.place(Alias("high", ram, 0x10_0000), 0x10_0000)
    loaded = load_image(made.memory, str(path))
    assert (loaded.kind, loaded.pieces, loaded.entry) == (BZIMAGE, ((0x100_0000, 0x130_0000),), 0x100_0000)
    assert isinstance(loaded.facts, BzImage)
    assert (loaded.facts.version, loaded.facts.protected, loaded.facts.command_line) == (0x20F, 2048, 2047)
    assert (loaded.facts.relocatable, loaded.facts.long_mode, loaded.facts.above_4g) == (True, True, True)
    assert made.memory.peek(0x100_0000, 9) == b"protected"
    path.write_bytes(bzimage(version=0x204))
    assert load_image(made.memory, str(path)).pieces == ((0x10_0000, 0x10_0000 + 9000),)
    for wrong in (bzimage(version=0x105), bzimage(flags=0), bzimage(sectors=200), bzimage()[:0x220]):
        path.write_bytes(wrong)
        with pytest.raises(ProgramUnusable):
            load_image(made.memory, str(path))
    path.write_bytes(bzimage(at=0xFFFF_FFFF_FFFF_F000))
    with pytest.raises(MapError):
        load_image(made.memory, str(path))


def test_damaged_files_are_errors(tmp_path: Path) -> None:
    random = Random(7)
    path = tmp_path / "x"
    segments = [(0, BASE, b"text" * 100, 4000), (0, BASE + 0x10_0000, b"data", 0x2_0000)]
    goods = [elf(segments, 0), elf(segments, 0, bits=32), arm64().ljust(3000, b"k"), bzimage()]
    made = machine()
    refused = 0
    for number in range(1200):
        good = goods[number % len(goods)]
        data = bytearray(good)
        for _ in range(random.randrange(1, 4)):
            at = random.randrange(0x270 if number % 4 == 3 else 0xC0)
            data[at : at + 4] = random.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", random.randbytes(4)))[
                : random.randrange(1, 5)
            ]
        path.unlink(missing_ok=True)  # ext4 waits for the disk if an old file is cut off instead
        path.write_bytes(data[: random.choice((len(data), random.randrange(len(data))))])
        try:
            load_image(made.memory, str(path), ram=(BASE, SIZE))
        except (ProgramUnusable, MapError, UsageError):
            refused += 1
    assert refused > 400
