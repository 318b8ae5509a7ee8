"""`dragoman demo`: every guest that comes along, on every engine there is, as one table.

Each run is an ordinary `dragoman run --stats` in a process of its own, so the demo shows what a user would see.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, TextIO

from dbt import statistics
from dbt.guests import GUESTS, PLAIN, Guest
from dbt.machine import native
from dbt.run import ENGINES
from dbt.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS = ("guest", "engine", "output", "instructions", "compiling", "time", "speed")
LEFT_ALIGNED = 3  # of the columns
COMPILES_ANEW = "optimizer"
FIRST_COMPILE = f"""\
Engines compile what they need when they first meet it; that is kept, so the next run starts at once. The
{COMPILES_ANEW} compiles hot code anew in each run while the program goes on; these wait, to show each time alone.
"""
TRY_NEXT = """
Try next:
  {run} run --strace {hello}
  {run} run --engine reference --stats {fib} 12
  {run} features
  {run} run PROGRAM …     an AArch64 Linux program, such as busybox of Debian's busybox-static:arm64
"""


def run_guest(
    command: Sequence[bytes | str], guest: Guest, engine: str, counts: dict[str, float]
) -> tuple[bool, list[str]]:
    """Run one guest on one engine: whether it did what it should, and its row of the table.

    `counts`: instructions by what was run; an engine that counts notes them for one that does not.
    """
    slow = engine == "reference"
    expected = guest.short_line if slow else guest.ordinary_line
    work = [] if guest.kind == PLAIN else [str(guest.short if slow else guest.ordinary)]
    start = [*command, "run", "--stats", "--engine", engine, str(guest.path)]
    if not slow:  # what is not compiled yet shall not be in the figures
        short = [] if guest.kind == PLAIN else [str(guest.short)]
        subprocess.run([*start, *short], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    full = [*start, *work]
    if engine == COMPILES_ANEW:
        full.insert(len(command) + 1, "--wait")
    done = subprocess.run(full, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    output = done.stdout.rstrip("\n")
    if done.returncode or output != expected:
        message = [line for line in done.stderr.splitlines() if not line.startswith(statistics.PREFIX)]
        trouble = f"FAILED ({done.returncode}) {output} {' '.join(message[-2:])}"
        return False, [guest.name, engine, trouble, *[""] * (len(COLUMNS) - LEFT_ALIGNED)]
    facts = statistics.read(done.stderr)
    if "executed" in facts:
        counts[output] = facts["executed"]
    waited = facts.get("milliseconds_waited_for_regions", 0)
    executed, seconds = counts.get(output, 0), facts.get("time", 0) - waited / 1e3
    speed = f"{executed / seconds / 1e6:,.1f} M/s" if executed and seconds and guest.kind != PLAIN else ""
    number = f"{executed:,.0f}" if executed else ""
    compiling = f"{waited:,.0f} ms" if engine == COMPILES_ANEW else ""
    return True, [guest.name, engine, output, number, compiling, f"{seconds * 1e3:,.1f} ms", speed]


def format_row(cells: Sequence[str], widths: Sequence[int]) -> str:
    """One line of the table."""
    parts = [
        cell.ljust(width) if index < LEFT_ALIGNED else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(parts).rstrip() + "\n"


def demo(out: TextIO, command: Sequence[bytes], engines: Sequence[str] | None = None) -> int:
    """Run the demo with `command` as the dragoman command; 1 if a guest did not do what it should."""
    chosen = engines or ENGINES
    out.write(FIRST_COMPILE + "\n")
    out.flush()
    native.load(quiet=False)  # so that the first machine does not wait for it
    longest = max(len(line) for guest in GUESTS for line in (guest.short_line, guest.ordinary_line))
    names = (max(len(guest.name) for guest in GUESTS), max(len(engine) for engine in chosen))
    widths = [*names, longest, 13, 9, 11, 12]
    out.write(format_row(COLUMNS, widths))
    out.write("  ".join("-" * width for width in widths) + "\n")
    failed, counts = 0, dict[str, float]()
    for engine in chosen:
        for guest in GUESTS:
            good, row = run_guest(command, guest, engine, counts)
            failed += not good
            out.write(format_row(row, widths))
            out.flush()
    run = os.path.relpath(os.fsdecode(command[0]))
    paths = {guest.name: os.path.relpath(guest.path) for guest in GUESTS}
    out.write(TRY_NEXT.format(run=run, **paths))
    if failed:
        out.write(f"\n{counted(failed, 'run')} failed\n")
    return int(bool(failed))
