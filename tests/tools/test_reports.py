"""Files that reports go to: those that cannot be written are refused before the program runs, or said at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT

from .guests import STATUS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Command

HELLO = ROOT / "bench" / "guests" / "bin" / "hello"


@pytest.mark.parametrize("words", ["trace -o", "coverage -o", "profile -o", "profile --html"])
@pytest.mark.parametrize("name", [".", "nowhere/x"])
def test_a_file_that_cannot_be_written_is_refused_at_once(
    words: str, name: str, dragoman: Command, tmp_path: Path
) -> None:
    done = dragoman(*words.split(), name, HELLO, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")  # the program has not run
    assert done.stderr.startswith(f"dragoman: {name}".encode())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", ["trace -o /dev/full", "coverage -o /dev/full", "profile -o /dev/full"])
def test_a_report_that_is_lost_is_said_and_fails(words: str, warm: Command) -> None:
    done = warm(*words.split(), HELLO)
    assert (done.returncode, done.stdout) == (1, b"hello from AArch64\n")
    assert done.stderr == b"dragoman: /dev/full: No space left on device\n"


def test_the_programs_own_failure_comes_first(warm: Command, looping: Path) -> None:
    done = warm("profile", "-o", "/dev/full", looping)
    assert done.returncode == STATUS
    assert done.stderr == b"dragoman: /dev/full: No space left on device\n"


def test_explain_takes_options_behind_the_program_and_no_arguments(warm: Command, looping: Path) -> None:
    before = warm("explain", "--at", "loop", "--engine", "reference", looping)
    behind = warm("explain", looping, "--at", "loop", "--engine", "reference")
    assert before.returncode == behind.returncode == 0
    assert behind.stdout.splitlines()[0] == before.stdout.splitlines()[0]
    assert behind.stdout.startswith(b"loop in ")
    assert b": block" in behind.stdout
    assert warm("explain", looping, "argument").returncode == 2
