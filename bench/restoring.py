"""Times restoring a snapshot in a process with dbt: `python -I bench/restoring.py ROUNDS`; prints JSON.

Three lines: over pages that were written to since, in a memory of one size; over the size of the memory, all of it
full, with the same number of pages written to; and over what was merely read since, once.
"""

from __future__ import annotations

import json
import sys
import time

import dbt

DATA, PAGE = 1 << 32, 4096
MIB = 1 << 20
WRITTEN = (0, 1, 4, 16, 64, 256, 1024)  # pages
SIZES = (1, 4, 16, 64, 256)  # MiB
READ = (0, 1, 4, 16, 64)  # MiB
SIZE = 256  # MiB of the first and the third line
FEW = 16  # pages written to on the second and the third


def filled(cpu: dbt.CPU, mebibytes: int) -> dbt.Snapshot:
    """Memory of that size without a page of zeros, and a snapshot of it."""
    cpu.memory.map(DATA, mebibytes * MIB)
    piece = bytes(range(1, 256)) * (MIB // 255 + 1)
    for number in range(mebibytes):
        cpu.memory.write(DATA + number * MIB, piece[:MIB])
    return cpu.snapshot()


def restoring(cpu: dbt.CPU, snapshot: dbt.Snapshot, pages: int, size: int, rounds: int) -> list[float]:
    """Seconds of the processor for each restore after so many pages, spread over the memory, were written to."""
    step = max(size * MIB // PAGE // max(pages, 1), 1) * PAGE
    found = []
    for number in range(rounds + 1):
        for page in range(pages):
            cpu.memory.write(DATA + page * step, b"written")
        start = time.thread_time()
        cpu.restore(snapshot)
        taken = time.thread_time() - start
        if cpu.memory.read(DATA, 7) == b"written":
            raise SystemExit("nothing was restored")
        if number:
            found.append(taken)
    return found


def main(rounds: int) -> None:
    """Measure."""
    lines: dict[str, list[tuple[int, list[float]]]] = {"written": [], "size": [], "read": []}
    with dbt.open_cpu() as cpu:
        snapshot = filled(cpu, SIZE)
        for pages in WRITTEN:
            lines["written"].append((pages, restoring(cpu, snapshot, pages, SIZE, rounds)))
    for mebibytes in SIZES:
        with dbt.open_cpu() as cpu:
            snapshot = filled(cpu, mebibytes)
            lines["size"].append((mebibytes, restoring(cpu, snapshot, FEW, mebibytes, rounds)))
    for mebibytes in READ:
        with dbt.open_cpu() as cpu:
            snapshot = filled(cpu, SIZE)
            cpu.restore(snapshot)
            for place in range(0, mebibytes * MIB, MIB):
                cpu.memory.read(DATA + place, MIB)
            lines["read"].append((mebibytes, restoring(cpu, snapshot, FEW, SIZE, rounds)))
    print(json.dumps(lines))


if __name__ == "__main__":
    main(int(sys.argv[1]))
