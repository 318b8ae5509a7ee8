"""Runs of guests whose worker or cache is sabotaged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from dbt.guests import GUESTS, Guest

from tests.conftest import ROOT

NATIVE = ("baseline", "interpreter")
ENGINES = (*NATIVE, "optimizer")
HELLO, GUEST = (next(guest for guest in GUESTS if guest.name == name) for name in ("hello", "fib"))
FIRST = {"baseline": GUEST, "interpreter": HELLO, "optimizer": HELLO}  # whatever runs first will do, some fast ones
TIMEOUT = 100  # seconds: shorter than the patience that a silent worker finds
STARTED_AGAIN = "was started again"


class Run:
    """What a run of the command came to, and what the guest should have printed."""

    def __init__(self, done: subprocess.CompletedProcess[str], expected: str) -> None:
        self.expected = expected
        self.status = done.returncode
        self.output = done.stdout.strip()
        self.lines = done.stderr.splitlines()


class Bench:
    """A cache of its own, and the command with a worker that something happens to."""

    def __init__(self, folder: Path) -> None:
        self.cache = folder / "cache"
        self.notes = folder / "notes"
        self.notes.mkdir()

    @property
    def build(self) -> Path:
        """The folder of this build."""
        (folder,) = (path for path in (self.cache / "dragoman").iterdir() if path.is_dir())
        return folder

    def start(
        self, what: str, *words: str | Path, count: int = 1, prefix: tuple[str, ...] = ()
    ) -> subprocess.Popen[str]:
        """Start `python -m tests.robustness.sabotage` with these words."""
        command = [*prefix, sys.executable, "-m", "tests.robustness.sabotage", what, self.notes, str(count), *words]
        environment = {**os.environ, "XDG_CACHE_HOME": str(self.cache)}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=pipe, stderr=pipe)

    def run(
        self, what: str, engine: str, *, count: int = 1, guest: Guest = GUEST, long: bool = False,
        prefix: tuple[str, ...] = (),
    ) -> Run:  # fmt: skip
        """Run a guest, for as long as its hot code takes to become regions if `long`."""
        work, expected = (guest.ordinary, guest.ordinary_line) if long else (guest.short, guest.short_line)
        words = ("run", "--wait", "--engine", engine, guest.path, str(work))
        child = self.start(what, *words, count=count, prefix=prefix)
        output, errors = child.communicate(timeout=TIMEOUT)
        return Run(subprocess.CompletedProcess(child.args, child.returncode, output, errors), expected)

    def done(self) -> int:
        """How often it happened."""
        return len(list(self.notes.glob("done-*")))


def right(run: Run) -> None:
    """The guest did what it does."""
    assert run.output == run.expected, run.lines
    assert run.status == 0


def said(run: Run, *words: str) -> None:
    """One line, with these words in it."""
    assert len(run.lines) == 1, run.lines
    assert run.lines[0].startswith("dragoman: ")
    for word in words:
        assert word in run.lines[0]


def wait_for(bench: Bench, child: subprocess.Popen[Any]) -> None:
    """Until it has happened; the worker stops itself at once then."""
    while child.poll() is None:
        for note in bench.notes.glob("done-*"):
            process = note.read_text()
            if process and Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T":
                return
