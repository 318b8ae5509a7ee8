"""What `run --stats` prints at the end of a run, one fact a line, and the reader of it for demo and benchmarks.

For example: `dragoman: stats: executed 4180 instructions`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbt.linux.process import Process

PREFIX = "dragoman: stats: "


def measured_run(process: Process) -> str:
    """Run a process that is loaded to its end; the text for it.

    Every instruction is counted, but on the optimizer: where they are counted there are no regions.
    """
    cpu = process.cpu
    baseline = cpu.baseline
    counted = cpu.engine != "optimizer"
    budget = (1 << 63) - 1
    if baseline is None:
        cpu.reference()  # imports the semantics: no part of the run
    elif counted:
        cpu.counting = True
        cpu.env.budget = budget
    start = time.perf_counter()
    process.run()
    seconds = time.perf_counter() - start
    facts: list[tuple[str, float, str]] = [("time", seconds, "seconds")]
    if counted:
        executed = cpu.executed if baseline is None else budget - int(cpu.env.budget)
        facts.insert(0, ("executed", executed, "instructions"))
        facts.append(("speed", executed / seconds, "instructions a second"))
    if baseline is not None:
        facts += [(name.replace(" ", "_"), count, "") for name, count in baseline.statistics().items()]
    return show(facts)


def show(facts: list[tuple[str, float, str]]) -> str:
    """The text for (name, value, unit) facts; names are single words."""
    lines = []
    for name, value, unit in facts:
        number = str(int(value)) if value == int(value) else f"{value:.6g}"
        lines.append(f"{PREFIX}{name} {number} {unit}".rstrip() + "\n")
    return "".join(lines)


def read(text: str) -> dict[str, float]:
    """The facts in what a run with --stats wrote on standard error; other lines are passed over."""
    facts = {}
    for line in text.splitlines():
        if line.startswith(PREFIX):
            name, value, *_ = line.removeprefix(PREFIX).split()
            facts[name] = float(value)
    return facts
