"""Times a guest program with and without a counter in every block, in pairs, in a process with dbt.

`python -I bench/counting.py PROGRAM WORK ROUNDS ENGINE`: the last line of standard output is JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time

import dbt


class Blocks(dbt.Plugin):
    """Counts how often each block runs."""

    def block(self, block: dbt.Block) -> None:
        """Insert a counter."""
        block.count(self.counters[block.pc])


def seconds(path: str, work: str, engine: str, *, counted: bool) -> float:
    """Of one run, without what it takes to load it."""
    with dbt.open_program(path, [os.path.basename(path), work], engine=engine) as program:
        plugin = Blocks()
        if counted:
            program.instrument(plugin)
        start = time.perf_counter()
        found = program.run()
        taken = time.perf_counter() - start
        if found != dbt.Exited(0):
            raise SystemExit(f"{path}: {found}")
        if counted and not sum(plugin.counters.values().values()):
            raise SystemExit(f"{path}: nothing was counted")
        return taken


def main(path: str, work: str, rounds: str, engine: str) -> None:
    """Measure, after a run of each that has everything compiled."""
    found: dict[bool, list[float]] = {False: [], True: []}
    for number in range(int(rounds) + 1):
        for counted in (False, True) if number % 2 else (True, False):
            taken = seconds(path, work, engine, counted=counted)
            if number:
                found[counted].append(taken)
    print()
    print(json.dumps({"plain": found[False], "counted": found[True]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
