"""What a user may get wrong, from the command line: each is named with the reason, none shows a traceback."""

from __future__ import annotations

import signal
from struct import pack_into, unpack_from
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT
from tests.robustness.images import interpreted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Command

HELLO = (ROOT / "bench" / "guests" / "bin" / "hello").read_bytes()


def patched(offset: int, value: bytes) -> bytes:
    return HELLO[:offset] + value + HELLO[offset + len(value) :]


def entered_at(word: int) -> bytes:
    """The program with another first instruction."""
    entry, table = unpack_from("<QQ", HELLO, 24)
    offset, address = unpack_from("<8xQQ", HELLO, table)[:2]
    data = bytearray(HELLO)
    pack_into("<I", data, entry - address + offset, word)
    return bytes(data)


BAD = {
    "x86-64": (lambda: patched(18, b"\x3e\0"), "an ELF file for x86-64, not AArch64"),
    "32 bits": (lambda: patched(4, b"\1"), "32-bit"),
    "big-endian": (lambda: patched(5, b"\2"), "big-endian"),
    "object file": (lambda: patched(16, b"\1\0"), "not linked"),
    "cut off": (lambda: HELLO[:100], "truncated?"),
    "cut off in its header": (lambda: HELLO[:40], "the ELF header is truncated (40 of 64 bytes)"),
    "no interpreter": (lambda: interpreted(HELLO), "/no/interpreter"),
}


@pytest.mark.parametrize("name", BAD)
def test_programs(name: str, dragoman: Command, tmp_path: Path) -> None:
    make: Callable[[], bytes] = BAD[name][0]
    path = tmp_path / "program"
    path.write_bytes(make())
    path.chmod(0o755)
    done = dragoman("run", path)
    assert done.returncode == 126
    assert done.stderr.startswith(f"dragoman: {path}".encode())
    assert BAD[name][1].encode() in done.stderr
    assert b"Traceback" not in done.stderr


def test_unknown_engine(dragoman: Command) -> None:
    done = dragoman("run", "--engine", "warp", "program")
    assert done.returncode == 2
    assert b"'warp'" in done.stderr
    assert b"baseline" in done.stderr


@pytest.mark.parametrize("engine", ["baseline", "reference"])
def test_an_instruction_that_is_not_implemented(engine: str, dragoman: Command, tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(entered_at(0x04A20020))  # add z0.s, z1.s, z2.s: SVE
    path.chmod(0o755)
    done = dragoman("run", "--engine", engine, path)
    assert done.returncode == -signal.SIGILL
    entry = unpack_from("<Q", HELLO, 24)[0]
    assert f"20 00 a2 04 at {entry:#x} (add z0.s, z1.s, z2.s) is not implemented".encode() in done.stderr


def test_an_instruction_that_is_undefined_needs_no_comment(dragoman: Command, tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(entered_at(0))
    path.chmod(0o755)
    done = dragoman("run", path)
    assert (done.returncode, done.stderr) == (-signal.SIGILL, b"")
