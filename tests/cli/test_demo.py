"""dbt/demo.py: a row of its table, from what a run prints."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from dbt.guests import BY_NAME

from dbt.demo import run_guest

if TYPE_CHECKING:
    from pathlib import Path

FIB = BY_NAME["fib"]


@pytest.fixture
def stub(tmp_path: Path) -> list[bytes]:
    """A command that notes its words and says what a run of fib would."""
    script = tmp_path / "stub"
    facts = "executed 1000000 instructions", "time 0.75 seconds", "milliseconds_waited_for_regions 250"
    lines = [f"echo 'dragoman: stats: {fact}' >&2" for fact in facts]
    script.write_text("\n".join(["#!/bin/sh", f'echo "$*" >>{tmp_path}/words', f"echo '{FIB.ordinary_line}'", *lines]))
    script.chmod(0o755)
    return [os.fsencode(script)]


@pytest.mark.parametrize(("engine", "compiling"), [("baseline", ""), ("optimizer", "250 ms")])
def test_time_for_regions_stands_apart(engine: str, compiling: str, stub: list[bytes], tmp_path: Path) -> None:
    good, row = run_guest(stub, FIB, engine, {})
    assert good
    assert row == ["fib", engine, FIB.ordinary_line, "1,000,000", compiling, "500.0 ms", "2.0 M/s"]
    wait = "--wait " if engine == "optimizer" else ""
    last = (tmp_path / "words").read_text().splitlines()[-1]
    assert last == f"run {wait}--stats --engine {engine} {FIB.path} {FIB.ordinary}"


def test_another_result_is_a_failure(tmp_path: Path) -> None:
    script = tmp_path / "stub"
    script.write_text("#!/bin/sh\necho fib 30 1\necho 'dragoman: trouble' >&2\n")
    script.chmod(0o755)
    good, row = run_guest([os.fsencode(script)], FIB, "baseline", {})
    assert not good
    assert row[2] == "FAILED (0) fib 30 1 dragoman: trouble"
