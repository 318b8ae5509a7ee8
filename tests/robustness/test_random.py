"""Random code and damaged programs leave the host process alive, end in bounded time, and with an outcome we know.

They run in child processes, a batch each; what happens to a child is blamed on the seed it named last.
DRAGOMAN_FUZZ_COUNT is how many of a kind the baseline engine gets, 10,000 if not set; DRAGOMAN_FUZZ_START is the first
seed. The reference engine, which is slower, gets a fiftieth of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

COUNT = int(os.environ.get("DRAGOMAN_FUZZ_COUNT", "10000"))
START = int(os.environ.get("DRAGOMAN_FUZZ_START", "0"))
BATCHES = 4
TIMEOUT = 30 + COUNT // BATCHES * 0.2  # seconds of a batch, which takes a tenth of that
PAGES = {
    "SystemCall", "Undefined", "Unsupported", "MemoryFault", "Misaligned", "Breakpoint", "BudgetSpent",
}  # fmt: skip
SIGNALS = {f"signal {number}" for number in (4, 5, 7, 8, 11)}
IMAGES = {"ProgramUnusable", "still running", *SIGNALS} | {f"exit {status}" for status in range(256)}


def run(kind: str, engine: str, start: int, count: int) -> dict[str, int]:
    """The outcomes of a batch; fails with the seed to blame."""
    command = [sys.executable, "-m", "tests.robustness.child", kind, engine, str(start), str(count)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired as late:
        lines = (late.stdout or b"").split()
        pytest.fail(f"{kind} on {engine}: seed {lines[-1:]} does not end; alone: {' '.join(command[:-2])} SEED 1")
    lines = done.stdout.splitlines()
    if done.returncode:
        how = f"{kind} on {engine}: seed {lines[-1:]} ended the process with {done.returncode}"
        pytest.fail(f"{how}; alone: {' '.join(command[:-2])} SEED 1\n{done.stderr.decode()[-4000:]}")
    outcomes: dict[str, int] = json.loads(lines[-1])
    return outcomes


@pytest.mark.parametrize("batch", range(BATCHES))
@pytest.mark.parametrize(("kind", "known"), [("pages", PAGES), ("images", IMAGES)])
def test_baseline(kind: str, known: set[str], batch: int, stencils: Path) -> None:
    assert stencils.exists()
    size = COUNT // BATCHES
    outcomes = run(kind, "baseline", START + batch * size, size)
    assert set(outcomes) <= known
    assert len(outcomes) > 3, f"too much alike: {outcomes}"


@pytest.mark.parametrize(("kind", "known"), [("pages", PAGES), ("images", IMAGES)])
def test_reference(kind: str, known: set[str]) -> None:
    outcomes = run(kind, "reference", START, COUNT // 50)
    assert set(outcomes) <= known


def test_baseline_and_reference_agree(stencils: Path) -> None:
    assert stencils.exists()
    outcomes = run("same", "baseline", START, COUNT // 50)
    assert set(outcomes) == {"same", "not compared"}
    assert outcomes["same"] > outcomes["not compared"]


@pytest.mark.parametrize("kind", ["pages", "images"])
def test_seeds_do_the_same_again(kind: str, stencils: Path) -> None:
    assert stencils.exists()
    assert run(kind, "baseline", START, 20) == run(kind, "baseline", START, 20)
