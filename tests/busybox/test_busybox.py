"""Debian's arm64 busybox, whole: output, exit status and terminating signal are those of qemu-aarch64-static."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Command

CASES = Path(__file__).with_name("cases.txt")
pytestmark = pytest.mark.needs("qemu-aarch64-static")
QEMU = shutil.which("qemu-aarch64-static") or ""
DRAGOMAN = Path(sys.executable).with_name("dragoman")
SECONDS = 60


@dataclass(frozen=True, slots=True)
class Outcome:
    """What can be seen of a process from outside. `status` is negative for a signal."""

    status: int
    out: str
    err: list[str]


def scripts() -> list[str]:
    """The shell scripts of cases.txt."""
    lines = CASES.read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def fill(folder: Path) -> None:
    """Something for commands to work on: files with known contents and times, and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "sub" / "deeper").mkdir(parents=True)
    (folder / "lines").write_text("".join(f"{i * 7919 % 1000} line {i}\n" for i in range(200)))
    (folder / "words").write_text("pear\nApple\nfig\nbanana\nfig\n\ncherry\n")
    (folder / "bytes").write_bytes(bytes(i * i % 251 for i in range(100_000)))
    (folder / "empty").touch()
    (folder / "sub" / "deeper" / "leaf").write_text("leaf\n")
    (folder / "link").symlink_to("words")
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
            os.utime(path, (1_600_000_000, 1_600_000_000))


@pytest.fixture(scope="session")
def applets(busybox: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two folders for PATH with all of busybox's commands: links for us, for qemu what binfmt_misc would do."""
    listed = subprocess.run([QEMU, busybox, "--list"], capture_output=True, text=True, check=True)
    folders = {"ours": tmp_path_factory.mktemp("ours"), "qemu": tmp_path_factory.mktemp("qemu")}
    for name in listed.stdout.split():
        (folders["ours"] / name).symlink_to(busybox)
        script = folders["qemu"] / name
        script.write_text(f'#!/bin/sh\nexec {QEMU} {busybox} {name} "$@"\n')
        script.chmod(0o755)
    return folders


def outcome(command: list[str | Path], folder: Path, applets: Path, environ: dict[str, str]) -> Outcome:
    """Run a command in the folder, filled anew. PWD is given, since the shell of our launcher would set it."""
    fill(folder)
    path = folder.with_name("bin")  # one name for both, since the value of PATH can be seen
    path.unlink(missing_ok=True)
    path.symlink_to(applets)
    done = subprocess.run(
        command,
        input=b"first input line\nsecond\n",
        capture_output=True,
        cwd=folder,
        env={"PATH": str(path), "LANG": "C", "PWD": str(folder), **environ},
        timeout=SECONDS,
        check=False,
    )
    errors = [line for line in done.stderr.decode("latin-1").splitlines() if not line.startswith("qemu: uncaught")]
    return Outcome(done.returncode, done.stdout.decode("latin-1"), errors)


def compare(busybox: Path, folder: Path, applets: dict[str, Path], *words: str) -> None:
    """The same busybox command under both must look the same from outside."""
    cache = {"XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]}
    ours = outcome([DRAGOMAN, "run", "-U", "XDG_CACHE_HOME", busybox, *words], folder, applets["ours"], cache)
    theirs = outcome([QEMU, busybox, *words], folder, applets["qemu"], {})
    assert ours == theirs


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("script", scripts())
def test_script(script: str, busybox: Path, tmp_path: Path, applets: dict[str, Path]) -> None:
    compare(busybox, tmp_path / "work", applets, "sh", "-c", script)


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize(
    "words", [["echo", "a", "b"], ["false"], ["vi", "--help"], ["ls", "-l", "."], ["nonsense"], []]
)
def test_command(words: list[str], busybox: Path, tmp_path: Path, applets: dict[str, Path]) -> None:
    compare(busybox, tmp_path / "work", applets, *words)


def test_a_guest_executes_a_guest_in_the_same_process(busybox: Path, warm: Command) -> None:
    script = f"echo $$; exec {busybox} sh -c 'echo $$'"
    done = warm("run", busybox, "sh", "-c", script)
    before, after = done.stdout.split()
    assert before == after, done.stderr.decode()


def test_a_guest_executes_a_program_of_the_host(busybox: Path, warm: Command) -> None:
    done = warm("run", busybox, "sh", "-c", "/bin/echo from the host; /bin/sh -c 'exit 3'")
    assert (done.stdout, done.returncode) == (b"from the host\n", 3), done.stderr.decode()


def test_proc_self_is_the_guest(busybox: Path, warm: Command) -> None:
    """qemu shows itself in comm; the kernel would show what is tested here."""
    done = warm("run", busybox, "sh", "-c", "cat /proc/self/comm; cat /proc/self/cmdline | tr '\\0' '|'")
    assert done.stdout == b"cat\ncat|/proc/self/cmdline|", done.stderr.decode()


def test_on_the_reference_engine(busybox: Path, warm: Command) -> None:
    done = warm("run", "--engine", "reference", busybox, "echo", "plain Python")
    assert (done.stdout, done.returncode) == (b"plain Python\n", 0), done.stderr.decode()
