"""The wheel, installed plainly into an environment of its own, works from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from dbt.guests import GREETING, GUESTS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `pip install .` would make, from a copy of what git has or would add."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(path.read_bytes())
            (source / name).chmod(path.stat().st_mode)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", out, source], check=True)
    (found,) = out.glob("dragoman-*.whl")
    return found


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dragoman command of a fresh environment, without llvmlite and the other requirements."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([ROOT / "bin" / "make-venv", sys.executable, folder], check=True)
    pip: list[str | Path] = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", wheel], check=True)
    return folder / "bin" / "dragoman"


def dragoman(command: Path, *arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    words = [command, *arguments]
    return subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=120)


def test_the_wheel_holds_sources_guests_and_the_launcher(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"dbt/py.typed", "dbt/frontends/pattern.py", "dbt/backends/llvm/__init__.py"} <= names
    assert {f"dbt/guests/bin/{guest.name}" for guest in GUESTS} <= names
    assert not [name for name in names if name.startswith(("tests", "bench", "frontends"))]
    assert any(name.endswith(".data/scripts/dragoman") for name in names)


def test_it_works_from_another_folder(installed: Path, tmp_path: Path) -> None:
    assert installed.read_bytes() == (ROOT / "bin" / "dragoman").read_bytes()
    done = dragoman(installed, "--version", folder=tmp_path)
    assert (done.stdout.split()[0], done.returncode, done.stderr) == ("dragoman", 0, "")
    done = dragoman(installed, "--help", folder=tmp_path)
    assert "run a program" in done.stdout


def test_it_works_through_a_symbolic_link(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "dragoman").symlink_to(installed)
    done = dragoman(tmp_path / "dragoman", "--version", folder=Path("/"))
    assert done.returncode == 0, done.stderr


def test_a_guest_runs_on_the_reference_engine_without_a_compiler(installed: Path, tmp_path: Path) -> None:
    hello = next(guest for guest in GUESTS if guest.name == "hello")
    done = dragoman(installed, "run", "--engine", "reference", hello.path, folder=tmp_path)
    assert done.stdout == GREETING + "\n", done.stderr


def test_features_need_no_compiler(installed: Path, tmp_path: Path) -> None:
    done = dragoman(installed, "features", folder=tmp_path)
    assert done.stdout.startswith("Dragoman "), done.stderr
