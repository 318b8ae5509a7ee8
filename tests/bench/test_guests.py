"""The guests that come along: the committed binaries do what their sources say, on qemu and on every engine of ours."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from dbt.guests import BY_NAME, FOLDER, GUESTS, PLAIN, Guest

from dbt.run import ENGINES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Command

each_guest = pytest.mark.parametrize("guest", GUESTS, ids=lambda guest: guest.name)


def arguments(guest: Guest, work: int) -> list[str]:
    return [] if guest.kind == PLAIN else [str(work)]


@pytest.fixture(scope="session")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All guests, built now from their sources."""
    folder = tmp_path_factory.mktemp("guests")
    subprocess.run([FOLDER / "build.sh", folder], check=True)
    return folder


@each_guest
def test_small_and_with_a_source(guest: Guest) -> None:
    assert guest.source.exists()
    assert guest.path.stat().st_size <= 4096


def test_every_source_is_in_the_table() -> None:
    sources = {path.stem for path in (*FOLDER.glob("*.c"), *FOLDER.glob("*.S"))}
    assert sources == set(BY_NAME) == {path.name for path in (FOLDER / "bin").iterdir()}


@pytest.mark.needs("aarch64-linux-gnu-gcc", "qemu-aarch64-static")
@each_guest
def test_rebuilt_from_source_it_does_the_same(guest: Guest, rebuilt: Path) -> None:
    for path in (guest.path, rebuilt / guest.name):
        for work, line in ((guest.short, guest.short_line), (guest.ordinary, guest.ordinary_line)):
            command: list[str | Path] = ["qemu-aarch64-static", path, *arguments(guest, work)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            assert done.stdout == line + "\n"


@pytest.mark.parametrize("engine", ENGINES)
@each_guest
def test_on_our_engines(guest: Guest, engine: str, warm: Command) -> None:
    done = warm("run", "--engine", engine, guest.path, *arguments(guest, guest.short))
    assert (done.stdout.decode(), done.returncode) == (guest.short_line + "\n", 0), done.stderr.decode()


@each_guest
def test_ordinary_work_on_the_baseline(guest: Guest, warm: Command) -> None:
    done = warm("run", guest.path, *arguments(guest, guest.ordinary))
    assert (done.stdout.decode(), done.returncode) == (guest.ordinary_line + "\n", 0), done.stderr.decode()
