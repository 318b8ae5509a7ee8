"""The examples run and say what their comments promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
TOOLS = ("coverage", "explain", "gdb", "instrumentation", "library", "profile", "trace")  # pages of docs/


def test_each_example_is_run_and_each_page_names_one() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    for example in EXAMPLES.glob("*.py"):
        assert f'run("{example.name}")' in tests
    for page in TOOLS:
        text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
        named = re.findall(r"\(\.\./examples/(\w+\.py)\)", text)
        assert named, page
        assert set(named) <= {example.name for example in EXAMPLES.glob("*.py")}


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


def test_count_blocks() -> None:
    lines = run("count_blocks.py").splitlines()
    assert lines[1:3] == ["Exited(status=0)", "46,151,396 instructions"]
    assert lines[3].startswith("0x400140 was entered 3,148,0")


def test_watch_stores() -> None:
    lines = run("watch_stores.py").splitlines()
    assert lines == [
        "at 0x10008 x1 is 15: str x2, [x0, x1, lsl #3]",
        "system call at pc 0x1001c",
        "16 stores, the last of 225 to 0x20078 by 0x10008",
    ]


def test_compare_coverage() -> None:
    lines = run("compare_coverage.py").splitlines()
    assert lines[1].startswith("work 1: ")
    assert lines[-1].endswith("at 0x400120")


def test_profile_program() -> None:
    assert "100.0 %        6,796,496  [hash]" in run("profile_program.py")


def test_explain_block() -> None:
    lines = run("explain_block.py").splitlines()
    assert lines[0].startswith("[hash]+0x230 in ")
    assert "operations, " in lines[-1]


def test_devices_and_watchpoints() -> None:
    lines = run("devices_and_watchpoints.py").splitlines()
    assert lines[0] == "watched: write of 8 bytes at 0x40800 by the instruction at 0x10018"
    assert lines[1] == "so far b'd' after 2 looks at the flags"
    assert lines[3] == "dragoman in 8 characters"
    assert lines[4].endswith("the CPU stands at 0x10008")


def test_hook_system_calls() -> None:
    lines = run("hook_system_calls.py").splitlines()
    assert lines == [
        "ended: Exited(status=0)",
        "calls: {64: 1, 94: 1}",
        "it would have written: b'hello from AArch64\\n'",
    ]


def test_hook_code() -> None:
    lines = run("hook_code.py").splitlines()
    assert lines[2] == "0x10008 writes 8 bytes at 0x40010: x2 is 98"
    assert lines[3] == "stopped: system call at pc 0x10018"
    assert lines[4].endswith("additions: 100")


def test_snapshots() -> None:
    lines = run("snapshots.py").splitlines()
    assert lines[0] == "found b'OK'"
    assert lines[1].startswith("676 inputs, ")
    assert lines[-1] == "on another engine: budget spent at pc 0x1000c x4 is 16"


@pytest.mark.needs("gdb-multiarch")
def test_debug_program() -> None:
    lines = run("debug_program.py").splitlines()
    assert "Breakpoint 1, 0x0000000000400140 in " in "\n".join(lines)
    assert any(line.startswith("=> 0x400140") for line in lines)
    assert lines[-1] == "without gdb: Exited(status=0)"
