"""Mistakes with files and names, in every command but `run`: named with the reason and with what to do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from dbt.machine.boards import BOARDS
from dbt.machine.devices import DEVICES
from dbt.machine.devices import load as load_device

from dbt.errors import UsageError
from dbt.wording import WIDTH, instead

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Command


def test_a_name_that_is_not_there_brings_those_like_it_and_all_in_lines() -> None:
    with pytest.raises(UsageError) as caught:
        load_device("PL012")
    asked, *lines = caught.value.hint.splitlines()
    assert asked.startswith("did you mean pl0")
    assert " ".join(line.strip() for line in lines) == f"devices: {', '.join(DEVICES)}"
    assert max(map(len, lines)) <= WIDTH
    assert instead("zebra", "boards", BOARDS) == f"boards: {', '.join(BOARDS)}"


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ("machine virt --device pl012", 2, b"did you mean pl0"),
        ("machine --map", 2, b"which board?"),
        ("nbd nosuch", 1, b"nosuch: cannot be opened: No such file or directory"),
        ("nbd .", 1, b".: Is a directory"),
        ("nbd empty", 1, b"empty: the format is not guessed for writing"),
        ("nbd -f raw -p 99999 empty", 2, b"99999 is no port"),
        ("img resize nosuch 1G", 1, b"nosuch: cannot be opened: No such file or directory"),
        ("img info -f qcow empty", 1, b"did you mean qcow2?"),
        ("img info driver=nbd,host=localhost,port=99999", 1, b"99999 is no port"),
        ("img info -f raw nbd://name.invalid", 1, b"Name or service not known"),
    ],
)
def test_mistakes(words: str, status: int, says: bytes, dragoman: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    done = dragoman(*words.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (status, b"")
    assert done.stderr.startswith(b"dragoman: ")
    assert says in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_cache_folder_that_cannot_be_made(dragoman: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "file")}
    done = dragoman("cache", "build", env=environ)
    hint = "Set XDG_CACHE_HOME to a folder that can be written."
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == f"dragoman: cache {tmp_path}/file/dragoman: Not a directory\n{hint}\n"
    assert hint in dragoman("machine", "isapc", "--map", env=environ).stderr.decode()
