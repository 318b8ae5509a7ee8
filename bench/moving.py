"""What moving data through each device costs: `python -m bench devices` runs this and reads the JSON line it prints.

For each way: accesses that reach a device (what a processor would trap for), bytes that the device layer copies, and
processor time, each for a MiB; then what one access costs, and how time grows with requests and with regions. The time
is that of devices: the drivers' rings are prepared beforehand.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # behind the installed dbt, which is what is measured

from bench.dispatch import build
from bench.movers import MIB, Counted, Mover, Traps, ata, network, virtio

MOVERS: tuple[type[Mover], ...] = (*ata.MOVERS, *virtio.MOVERS[:2], *network.MOVERS, *virtio.MOVERS[2:])
GROWTH: tuple[type[Mover], ...] = (ata.Ahci, virtio.Blk, network.Card, virtio.Net)
COUNTS = (1, 4, 16, 64, 256, 1024, 4096)
REGIONS = (1, 4, 16, 64, 256, 1024, 4096, 16384)
ACCESSES = 100_000


def measure(kind: type[Mover], rounds: int) -> dict[str, Any]:
    """All figures of one way."""
    mover = kind()
    counted = Counted(mover.machine)
    counted.watch(mover.move)
    if not mover.check():
        raise SystemExit(f"{kind.NAME}: the data has not arrived")
    per = MIB / mover.size
    plain, seconds = Traps(mover.machine), []
    for _ in range(rounds):
        start = time.process_time()
        mover.move(plain)
        seconds.append((time.process_time() - start) * per)
    return {"name": kind.NAME, "accesses": counted.traps * per, "copied": counted.copied * per, "seconds": seconds}


def access(rounds: int) -> list[float]:
    """Nanoseconds of one access: the alternate status of an IDE drive."""
    mover = ata.Pio()
    inp, found = Traps(mover.machine).inp, []
    for _ in range(rounds):
        start = time.process_time_ns()
        for _ in range(ACCESSES):
            inp(0x3F6, 1)
        found.append((time.process_time_ns() - start) / ACCESSES)
    return found


def growth(kind: type[Mover], rounds: int) -> list[tuple[int, list[float]]]:
    """(requests, seconds of each round)."""
    points = []
    mover = kind()
    plain = Traps(mover.machine)
    every = mover.requests
    for count in COUNTS:
        seconds = []
        for _ in range(rounds):
            left, start = count, time.process_time()
            while left:
                mover.requests = min(left, every)
                mover.move(plain)
                left -= mover.requests
            seconds.append(time.process_time() - start)
        points.append((count, seconds))
    return points


def regions(rounds: int) -> list[tuple[int, list[float]]]:
    """(regions, nanoseconds of an access among so many in each round), the rounds in turns."""
    reads = [(count, build(count).read) for count in REGIONS]
    found: dict[int, list[float]] = {count: [] for count in REGIONS}
    for _ in range(rounds):
        for count, read in reads:
            addresses = [number * 7919 % count << 16 for number in range(ACCESSES // 4)]
            start = time.process_time_ns()
            for address in addresses:
                read(address, 4)
            found[count].append((time.process_time_ns() - start) / len(addresses))
    return list(found.items())


def main(rounds: int) -> None:
    """Print it all."""
    print(json.dumps({
        "ways": [measure(kind, rounds) for kind in MOVERS],
        "access": access(rounds),
        "regions": regions(rounds),
        "growth": [{"name": kind.NAME, "points": growth(kind, rounds)} for kind in GROWTH],
    }))  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]))
