"""Standard output and error that are full, closed, or read by nobody: no traceback, and a result that is lost fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dbt.guests import BY_NAME

if TYPE_CHECKING:
    from tests.conftest import Command

DRAGOMAN = Path(sys.executable).with_name("dragoman")
HELLO = BY_NAME["hello"].path
FULL = b"dragoman: output: No space left on device\n"
CLOSED = b"dragoman: output: Bad file descriptor\n"


def shell(line: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line in which `dragoman` is the command."""
    return subprocess.run(
        ["/bin/sh", "-c", line.replace("dragoman", str(DRAGOMAN), 1)], capture_output=True, check=False
    )


@pytest.mark.parametrize("words", ["features", "machine --registers e1000", "run --help", "img options -f qcow2"])
def test_a_result_that_is_lost_is_a_failure(words: str) -> None:  # e1000's page is more than a buffer
    assert (done := shell(f"dragoman {words} >/dev/full")).stderr == FULL
    assert done.returncode == 1
    assert (done := shell(f"dragoman {words} >&-")).stderr == CLOSED
    assert done.returncode == 1


def test_a_reader_that_has_gone_is_a_failure_without_words() -> None:
    line = "(sleep 0.2; dragoman machine --registers e1000; echo $? >&2) | true"
    done = shell(line)
    assert (done.returncode, done.stderr) == (0, b"1\n")


@pytest.mark.parametrize("errors", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_complaints_that_nobody_gets_change_nothing(errors: str) -> None:
    assert shell(f"dragoman run nosuch {errors}").returncode == 127
    assert shell(f"dragoman fly {errors}").returncode == 2
    assert shell(f"dragoman features {errors}").returncode == 0


def test_no_file_gets_the_number_of_a_closed_descriptor(tmp_path: Path) -> None:
    """It would have what is printed written into it."""
    image = tmp_path / "image"
    done = shell(f"dragoman img create -f raw {image} 1M <&- >&- 2>&-")
    assert done.returncode in {0, 1}
    assert image.read_bytes() == bytes(1 << 20)


def test_the_guest_gets_closed_descriptors_closed(busybox: Path, warm: Command) -> None:
    warm("run", busybox, "true")
    script = "test -e /proc/self/fd/$0 && echo open; true"
    assert shell(f"dragoman run {busybox} sh -c '{script}' 2 2>&-").stdout == b""
    assert shell(f"dragoman run {busybox} sh -c '{script}' 2").stdout == b"open\n"
    assert shell(f"dragoman run --strace {HELLO} 2>&-").stdout == b"hello from AArch64\n"
