"""What restoring a snapshot costs: over pages written to, over the size of the memory, over pages merely read."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from .measure import BenchError, Command, Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .suites import Setting

ROUNDS = 20  # for each of the setting's: a restore takes less than a millisecond
FLAT = 1.5  # times as long in the largest memory as in the smallest, at most
LINES = {
    "written": ("restore, {:,} pages written", "restore by pages written, of 256 MiB"),
    "size": ("restore, {:,} MiB full", "restore by MiB of memory, 16 pages written"),
    "read": ("restore, {:,} MiB read before", "restore by MiB read once, 16 pages written"),
}


def snapshots(setting: Setting) -> Iterator[Figure]:
    """Restores of a bare CPU's memory, in a process with dbt."""
    script = Path(__file__).with_name("restoring.py")
    python = setting.dragoman.with_name("python3")
    command: Command = [python, "-I", script, str(ROUNDS * setting.rounds)]
    done = subprocess.run(command, env=setting.environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(done.stderr)
    facts = json.loads(done.stdout.splitlines()[-1])
    for line, (name, kind) in LINES.items():
        for at, seconds in facts[line]:
            yield Figure(name.format(at), "us", seconds, kind=kind, at=at)
    (small, least), (large, most) = facts["size"][0], facts["size"][-1]
    times = [much / little for little, much in zip(sorted(least), sorted(most), strict=True)]
    yield Figure(f"restore, {large} MiB by {small} MiB", "x", times, limit=FLAT, kind="snapshots")
