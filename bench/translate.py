"""Times the translation of a guest's blocks, in a process with dbt: `python -I bench/translate.py BUSYBOX ROUNDS`.

The guest runs once, so that its blocks are known; then the translations are dropped and each block is asked for. Asking
a second time, when all are there, costs the same but for the translation. Prints JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time

from dbt.engine.cpu import Cpu
from dbt.engine.layout import Block
from dbt.linux.process import Process


def ask_for_all(cpu: Cpu, addresses: list[int]) -> int:
    """Nanoseconds to look up or translate all blocks."""
    baseline = cpu.baseline
    assert baseline is not None
    translate_at = baseline.runtime.translate_at
    start = time.perf_counter_ns()
    for address in addresses:
        translate_at(cpu.env_address, address)
    return time.perf_counter_ns() - start


def main(program: str, rounds: int) -> None:
    """Run, then measure `rounds` times."""
    cpu = Cpu()
    baseline = cpu.baseline
    assert baseline is not None
    process = Process(cpu)
    process.load(program, [os.fsencode(program), b"vi", b"--help"], [])
    out = os.dup(1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)  # the guest's output is not ours
    process.run()
    os.dup2(out, 1)
    ctx = baseline.ctx
    first = int(ctx.blocks)
    addresses = [int(Block.at(first + i * Block.size).pc) for i in range(int(ctx.n_blocks))]
    nanoseconds, host_bytes = [], []
    for _ in range(rounds):
        baseline.flush()
        instructions, size = int(ctx.n_instructions), int(ctx.host_bytes)
        spent = ask_for_all(cpu, addresses) - ask_for_all(cpu, addresses)
        done = int(ctx.n_instructions) - instructions
        nanoseconds.append(spent / done)
        host_bytes.append((int(ctx.host_bytes) - size) / done)
    sys.stdout.write(json.dumps({"nanoseconds": nanoseconds, "host_bytes": host_bytes}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
