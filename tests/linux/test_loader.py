"""The image in memory and the first stack."""

from __future__ import annotations

import os
from struct import pack, unpack
from typing import TYPE_CHECKING, Any

import pytest

from dbt.errors import ProgramNotFound, ProgramUnusable
from dbt.linux import loader
from dbt.linux.process import Process

if TYPE_CHECKING:
    from pathlib import Path


def segment(tag: int, flags: int, offset: int, address: int, filesz: int, memsz: int) -> bytes:
    return pack("<IIQQQQQQ", tag, flags, offset, address, address, filesz, memsz, 0x1000)


def write_program(path: Path, kind: int, base: int, *more: bytes) -> Path:
    """Code at base, data at base + 0x11f00 whose first 0x40 bytes are 'D' and 0x2000 more are zero."""
    segments = [segment(1, 5, 0, base, 0x400, 0x400), segment(1, 6, 0x1F00, base + 0x11F00, 0x40, 0x2040), *more]
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = pack("<HHIQQQIHHHHHH", kind, 183, 1, base + 0x200, 64, 0, 0, 64, 56, len(segments), 64, 0, 0)
    data = (ident + head + b"".join(segments)).ljust(0x1F00, b"C") + b"D" * 0x40 + b"X" * 0x100
    path.write_bytes(data)
    path.chmod(0o755)
    return path


def load(cpu: Any, path: Path, *argv: bytes, hwcap: int = 0, hwcap2: int = 0) -> Process:
    process = Process(cpu, hwcap=hwcap, hwcap2=hwcap2)
    process.load(str(path), list(argv), [b"A=1", b"B=two"])
    return process


def prot_at(process: Process, address: int) -> int:
    area = process.memory.area_at(address)
    assert area is not None
    return area.prot


def test_image(cpu: Any, tmp_path: Path) -> None:
    process = load(cpu, write_program(tmp_path / "p", 2, 0x400000), b"p")
    memory = process.memory
    assert cpu.reg("pc") == 0x400200
    assert memory.read(0x411F00, 0x40) == b"D" * 0x40
    assert memory.read(0x411F40, 0x2000) == bytes(0x2000)
    assert prot_at(process, 0x400000) == 5
    assert prot_at(process, 0x412000) == 3
    assert process.brk == process.brk_start == 0x414000
    assert memory.read(process.sigreturn, 8) == pack("<II", 0xD2801168, 0xD4000001)


def test_position_independent_image(cpu: Any, tmp_path: Path) -> None:
    process = load(cpu, write_program(tmp_path / "p", 3, 0), b"p")
    bias = cpu.reg("pc") - 0x200
    assert bias % 0x1000 == 0
    assert bias >= 0x10000
    assert process.memory.read(bias + 0x11F00, 4) == b"DDDD"


def test_stack(cpu: Any, tmp_path: Path) -> None:
    path = write_program(tmp_path / "p", 2, 0x400000)
    process = load(cpu, path, b"zero", b"one", b"", hwcap=0x1234, hwcap2=0x56)
    memory, sp = process.memory, cpu.reg("sp")
    assert sp % 16 == 0
    words = unpack("<8Q", memory.read(sp, 64))
    assert words[0] == 3
    assert [memory.read_cstring(word) for word in words[1:4]] == [b"zero", b"one", b""]
    assert words[4] == 0
    assert [memory.read_cstring(word) for word in words[5:7]] == [b"A=1", b"B=two"]
    assert words[7] == 0
    assert words[1] + 5 == words[2]  # as the kernel lays them out, one behind the other
    vector = memory.read(sp + 64, len(process.auxv))
    assert vector == process.auxv
    values = list(unpack(f"<{len(vector) // 8}Q", vector))
    auxv = dict(zip(values[::2], values[1::2], strict=True))
    assert values[-2:] == [0, 0]
    assert auxv[loader.AT_HWCAP] == 0x1234
    assert auxv[loader.AT_HWCAP2] == 0x56
    assert auxv[loader.AT_PAGESZ] == 4096
    assert auxv[loader.AT_ENTRY] == 0x400200
    assert auxv[loader.AT_PHDR] == 0x400040
    assert auxv[loader.AT_PHNUM] == 2
    assert auxv[loader.AT_PHENT] == 56
    assert auxv[loader.AT_UID] == os.getuid()
    assert memory.read_cstring(auxv[loader.AT_PLATFORM]) == b"aarch64"
    assert memory.read_cstring(auxv[loader.AT_EXECFN]) == os.fsencode(path)
    assert len(memory.read(auxv[loader.AT_RANDOM], 16)) == 16
    assert 33 not in auxv  # AT_SYSINFO_EHDR


def test_bss_of_read_only_segment(cpu: Any, tmp_path: Path) -> None:
    path = write_program(tmp_path / "p", 2, 0x400000, segment(1, 4, 0x1F00, 0x500F00, 0x40, 0x80))
    process = load(cpu, path, b"p")
    assert process.memory.read(0x500F40, 0x40) == bytes(0x40)
    assert prot_at(process, 0x500000) == 1


def test_missing_program(cpu: Any, tmp_path: Path) -> None:
    with pytest.raises(ProgramNotFound):
        load(cpu, tmp_path / "none", b"p")


def test_folder_and_plain_file(cpu: Any, tmp_path: Path) -> None:
    with pytest.raises(ProgramUnusable):
        load(cpu, tmp_path, b"p")
    path = write_program(tmp_path / "p", 2, 0x400000)
    path.chmod(0o644)
    with pytest.raises(ProgramUnusable, match="not executable"):
        load(cpu, path, b"p")


def test_a_pipe_is_not_waited_for(cpu: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o755)
    with pytest.raises(ProgramUnusable, match="not a regular file"):
        load(cpu, tmp_path / "pipe", b"p")
    path = write_program(tmp_path / "p", 3, 0, segment(3, 4, 0x1E00, 0x1E00, size := len(f"{tmp_path}/pipe") + 1, size))
    data = bytearray(path.read_bytes())
    data[0x1E00 : 0x1E00 + size] = os.fsencode(tmp_path / "pipe") + b"\0"
    path.write_bytes(data)
    with pytest.raises(ProgramUnusable, match="not a regular file"):
        load(cpu, path, b"p")
    process = load(cpu, write_program(tmp_path / "q", 2, 0x400000), b"q")
    name = process.stack[0]
    process.memory.write(name, os.fsencode(path) + b"\0")
    assert process.do(221, name, 0, 0) == -13  # execve


@pytest.mark.parametrize(("below", "words"), [(0x2000, "where the stack has to be"), (0x801000, "no room")])
def test_images_that_leave_no_room(cpu: Any, tmp_path: Path, below: int, words: str) -> None:
    """One that reaches into the stack, and one that takes all below it."""
    start = 0x14000
    cpu.memory.map(0x10000, 0x1000, 1)
    rest = segment(1, 6, 0, start, 0, cpu.memory.limit - below - start)
    with pytest.raises(ProgramUnusable, match=words):
        load(cpu, write_program(tmp_path / "p", 2, 0, rest), b"p")


def test_missing_interpreter(cpu: Any, tmp_path: Path) -> None:
    path = write_program(tmp_path / "p", 3, 0, segment(3, 4, 0x1E00, 0x1E00, 9, 9))
    data = bytearray(path.read_bytes())
    data[0x1E00:0x1E09] = b"/no/such\0"
    path.write_bytes(data)
    with pytest.raises(ProgramUnusable, match="/no/such"):
        load(cpu, path, b"p")


def test_too_many_strings() -> None:
    with pytest.raises(OSError, match="rgument list"):
        loader.check_strings([b"x" * 1000] * 3000, [], 8 << 20)
    with pytest.raises(OSError, match="rgument list"):
        loader.check_strings([b"x" * (1 << 17)], [], 8 << 20)
    loader.check_strings([b"x" * 1000] * 1000, [], 8 << 20)
