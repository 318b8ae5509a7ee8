"""The examples run and say what their comments promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str) -> str:
    done = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bare_cpu() -> None:
    lines = run("bare_cpu.py").splitlines()
    assert lines[0].startswith("budget spent at pc 0x10008")
    assert "x3 is 'i'" in lines[1]
    assert "the sum is 3927, Python says 3927" in lines[2]
    assert "read of 0xdead0000 faults at pc 0x10004" in lines[3]


def test_run_program() -> None:
    shown = run("run_program.py")
    assert "hello from AArch64" in shown
    assert "r-x" in shown
    assert shown.rstrip().endswith("ended: Exited(status=0)")
