"""What `run --stats` prints at the end of a run, one fact a line, and the reader of it for demo and benchmarks.

    dragoman: stats: executed 4180 instructions
"""

from __future__ import annotations

PREFIX = "dragoman: stats: "


def show(facts: list[tuple[str, float, str]]) -> str:
    """The text for (name, value, unit) facts; names are single words."""
    lines = []
    for name, value, unit in facts:
        number = f"{value:.6g}" if isinstance(value, float) else str(value)
        lines.append(f"{PREFIX}{name} {number} {unit}\n")
    return "".join(lines)


def read(text: str) -> dict[str, float]:
    """The facts in what a run with --stats wrote on standard error; other lines are passed over."""
    facts = {}
    for line in text.splitlines():
        if line.startswith(PREFIX):
            name, value, *_ = line.removeprefix(PREFIX).split()
            facts[name] = float(value)
    return facts
