"""Files that reports go to: those that cannot be written are refused before the program runs, or said at its end."""

from __future__ import annotations

import re
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


def test_pages_are_for_both_schemes_narrow_screens_and_keyboards(warm: Command, looping: Path, tmp_path: Path) -> None:
    pages = tmp_path / "profile.html", tmp_path / "explain.html"
    assert warm("profile", "--html", pages[0], looping).returncode == STATUS
    assert warm("explain", "--html", pages[1], "--engine", "optimizer", "--at", "loop", looping).returncode == 0
    profile, explain = (path.read_text() for path in pages)
    for page, title in ((profile, "looping: profile"), (explain, "loop explained")):
        assert f"<title>{title}</title>" in page
        assert "color-scheme: light dark" in page
        assert "@media (max-width: 700px)" in page
    for number in range(2):  # a link of the map unfolds what it leads to, since it leads inside
        assert re.search(rf'<details>(?:(?!</details>).)*<table id="f{number}">', profile, re.DOTALL)
    assert '<a href="#f0"' in profile
    assert 'class="panel scroll" tabindex="0"' in explain
    assert 'long" tabindex="0"' in explain
