"""Images: link, write, map, call; and every way in which a file can be wrong."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest
from dbt.backends.llvm import elf
from dbt.backends.llvm.compile import compile_text
from dbt.backends.llvm.image import PAGE, LinkError, link

from dbt.engine.files import write_aside
from dbt.engine.image import Image, ImageError, ImageHead, load_image

# Text that our emitter would not write, with what a linker meets: variables, pointers to functions, zeroed memory,
# references through a global offset table (default visibility, not dso_local).
TEXT = """
@counter = global i64 5
@zeroed = global [1000 x i64] zeroinitializer, align 64
@pointers = constant [3 x ptr] [ptr @double, ptr @bump, ptr getelementptr (i8, ptr @counter, i64 8)]
@numbers = private constant [4 x i32] [i32 10, i32 20, i32 30, i32 40]
define i64 @double(i64 %x) { %y = add i64 %x, %x ret i64 %y }
define i64 @bump() {
  %a = load i64, ptr @counter
  %b = add i64 %a, 1
  store i64 %b, ptr @counter
  store i64 %b, ptr getelementptr (i8, ptr @zeroed, i64 7992)
  ret i64 %b
}
define i64 @through(i64 %i, i64 %x) {
  %p = getelementptr ptr, ptr @pointers, i64 %i
  %f = load ptr, ptr %p
  %r = call i64 %f(i64 %x)
  ret i64 %r
}
define i32 @number(i64 %i) {
  %p = getelementptr i32, ptr @numbers, i64 %i
  %r = load i32, ptr %p
  ret i32 %r
}
define ptr @where(i64 %i) {
  %p = getelementptr ptr, ptr @pointers, i64 %i
  %r = load ptr, ptr %p
  ret ptr %r
}
"""


@pytest.fixture(scope="module")
def obj() -> bytes:
    return compile_text(TEXT)


@pytest.fixture
def image(obj: bytes, tmp_path: Path) -> Image:
    path = tmp_path / "image"
    path.write_bytes(link("stamp 1", obj))
    return load_image(str(path), "stamp 1")


def permissions(address: int) -> str:
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(n, 16) for n in line.split()[0].split("-"))
        if low <= address < high:
            return line.split()[1]
    return "none"


def test_round_trip(image: Image) -> None:
    word = ctypes.c_uint64
    assert image.function("double", word, (word,))(21) == 42
    assert image.function("bump", word, ())() == 6
    assert word.from_address(image.address("counter")).value == 6
    assert word.from_address(image.address("zeroed") + 7992).value == 6
    through = image.function("through", word, (word, word))
    assert through(0, 4) == 8
    assert through(1, 0) == 7
    assert [image.function("number", ctypes.c_uint32, (word,))(i) for i in range(4)] == [10, 20, 30, 40]
    assert image.function("where", word, (word,))(2) == image.address("counter") + 8
    assert image.address("zeroed") % 64 == 0


def test_code_is_not_writable_and_data_is_not_executable(image: Image) -> None:
    assert permissions(image.address("double")) == "r-xp"
    assert permissions(image.address("counter")) == "rw-p"


def test_two_of_one_file_share_nothing(image: Image) -> None:
    word = ctypes.c_uint64
    other = load_image(image.path, "stamp 1")
    assert other.base != image.base
    image.function("bump", word, ())()
    assert word.from_address(other.address("counter")).value == 5
    assert other.function("where", word, (word,))(0) == other.address("double")


def test_a_file_is_replaced_as_a_whole_and_private(obj: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image"
    write_aside(str(path), link("old", obj))
    inode = path.stat().st_ino
    write_aside(str(path), link("new", obj))
    assert path.stat().st_ino != inode
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["image"]
    with pytest.raises(OSError, match="No such file"):
        write_aside(str(tmp_path / "nowhere" / "image"), b"")


def test_the_same_object_gives_the_same_bytes(obj: bytes) -> None:
    assert link("s", obj) == link("s", compile_text(TEXT))


@pytest.mark.parametrize("offset", [0, 8, 16, 24, ImageHead.size, PAGE + 1, 2 * PAGE, -1])
def test_a_damaged_byte_is_noticed(image: Image, offset: int) -> None:
    path = Path(image.path)
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(ImageError, match=f"^{path}: "):
        load_image(image.path, "stamp 1")


@pytest.mark.parametrize(
    ("size", "message"), [(0, "not an image: 0 bytes"), (50, "not an image"), (PAGE, "truncated: 4096 of ")]
)
def test_a_short_file_is_noticed(image: Image, size: int, message: str) -> None:
    os.truncate(image.path, size)
    with pytest.raises(ImageError, match=message):
        load_image(image.path, "stamp 1")


def test_another_stamp(image: Image) -> None:
    with pytest.raises(ImageError, match="built from something else: 'stamp 1', not 'stamp 2'"):
        load_image(image.path, "stamp 2")


def test_what_is_not_exported(image: Image) -> None:
    with pytest.raises(ImageError, match="nothing is exported as 'numbers'"):
        image.address("numbers")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_image(str(tmp_path / "none"), "")


def test_no_descriptors_are_left(image: Image) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    load_image(image.path, "stamp 1")
    with pytest.raises(ImageError):
        load_image(image.path, "?")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_cannot_be_linked() -> None:
    with pytest.raises(LinkError, match="refers to 'memcpy', which it does not define"):
        link("", compile_text("declare void @memcpy()\ndefine void @f() { call void @memcpy() ret void }"))
    static = """@x = dso_local global i64 0
        define i64 @f(i64 %i) { %p = getelementptr i64, ptr @x, i64 %i %r = load i64, ptr %p ret i64 %r }"""
    with pytest.raises(LinkError, match=r"relocation type 1[01] of 'x'"):
        link("", compile_text(static, reloc="static"))
    with pytest.raises(elf.ElfError, match="not a relocatable ELF file for x86-64"):
        link("", b"\x7fELF" + bytes(200))
    with pytest.raises(elf.ElfError, match="damaged"):
        link("", b"")


def test_every_truncation_of_an_object_is_an_error(obj: bytes) -> None:
    for size in range(0, len(obj), 7):
        with pytest.raises(elf.ElfError):
            elf.read_object(obj[:size])


def test_the_reader_agrees_with_what_was_written(obj: bytes) -> None:
    read = elf.read_object(obj)
    assert read.symbol("double").binding == elf.STB_GLOBAL
    assert read.section(".text").flags & elf.SHF_EXECINSTR
    text = read.section(".text")
    assert {r.type for r in text.relocations} & {elf.R_X86_64_GOTPCREL, elf.R_X86_64_REX_GOTPCRELX}
    pointers = read.section(".data.rel.ro")
    assert [(r.offset, r.type, r.symbol.name, r.addend) for r in pointers.relocations] == [
        (0, elf.R_X86_64_64, "double", 0),
        (8, elf.R_X86_64_64, "bump", 0),
        (16, elf.R_X86_64_64, "counter", 8),
    ]
    with pytest.raises(elf.ElfError, match="no symbol nothing"):
        read.symbol("nothing")
    with pytest.raises(elf.ElfError, match="no section nothing"):
        read.section("nothing")
