"""--strace: calls as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.linux import strace

from .conftest import HEAP, UNMAPPED

if TYPE_CHECKING:
    import pytest

    from dbt.linux.process import Process

CWD = (1 << 64) - 100


def shown(capfd: pytest.CaptureFixture[str], process: Process, number: int, *args: int) -> str:
    strace.traced(process, number, *args, *(0,) * (6 - len(args)))
    return capfd.readouterr().err.partition(" ")[2].rstrip("\n")


def test_names_flags_and_errors(capfd: pytest.CaptureFixture[str], process: Process) -> None:
    process.memory.write(HEAP, b'/no/su"ch\0')
    line = shown(capfd, process, 56, CWD, HEAP, 0o2000101, 0o644)
    assert line == (
        'openat(AT_FDCWD, "/no/su\\"ch", O_WRONLY|O_CREAT|O_CLOEXEC, 0644) = -1 ENOENT (No such file or directory)'
    )


def test_buffers(capfd: pytest.CaptureFixture[str], process: Process) -> None:
    process.memory.write(HEAP, b"a\n\x01" + b"z" * 50)
    assert shown(capfd, process, 64, 0xFFFFFFFF, HEAP, 3) == (
        'write(-1, "a\\n\\1", 3) = -1 EBADF (Bad file descriptor)'
    )
    assert '"...' in shown(capfd, process, 64, 0xFFFFFFFF, HEAP, 50)
    assert hex(UNMAPPED) in shown(capfd, process, 64, 0xFFFFFFFF, UNMAPPED, 50)


def test_memory(capfd: pytest.CaptureFixture[str], process: Process) -> None:
    line = shown(capfd, process, 222, 0, 4096, 3, 0x22, 0xFFFFFFFF, 0)
    assert line.startswith("mmap(0x0, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0x0) = 0x")


def test_calls_that_do_not_come_back_are_shown_before(capfd: pytest.CaptureFixture[str], process: Process) -> None:
    assert shown(capfd, process, 94, 3) == "exit_group(3) …"


def test_unknown_call(capfd: pytest.CaptureFixture[str], process: Process) -> None:
    assert shown(capfd, process, 4000, 1).startswith("syscall_4000(0x1, 0x0, 0x0, 0x0, 0x0, 0x0) = -1 ENOSYS")


def test_every_listed_call_exists() -> None:
    names = {strace.call_name(number) for number in range(512)}
    assert set(strace.ARGUMENTS) <= names


def test_flag_names() -> None:
    assert strace.flag_names(strace.FLAGS["prot"], 0) == "0"
    assert strace.flag_names(strace.FLAGS["prot"], 9) == "PROT_READ|0x8"
