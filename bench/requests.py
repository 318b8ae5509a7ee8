"""What requests to virtio-blk cost: `python -m bench machine` runs this and reads the JSON line that it prints.

The driver of bench/movers/virtio.py with a disk in memory: 32 requests, a notification, and a look at what came back.
Reads are answered at once, writes go through the disk's workers. Processor time of all threads.
"""

from __future__ import annotations

import json
import struct
import sys
import time
from pathlib import Path

from dbt.machine.devices.virtio_blk import VirtioBlk

sys.path.append(str(Path(__file__).parents[1]))  # behind the installed dbt, which is what is measured

from bench.movers import MIB, SECTOR, Traps, disk
from bench.movers.virtio import AVAILABLE, INDIRECT, LISTS, NEXT, SIZE, TABLE, VERSION_1, WRITES, Virtio

DEPTH = 32  # requests at once
HEADERS, DATA = LISTS + 0x1000, 8 * MIB
IN, OUT = 0, 1
EVENT_IDX = 1 << 29
USED_EVENT = AVAILABLE + 4 + 2 * SIZE  # the device interrupts when it gets there


class Requests(Virtio):
    """As little of a driver as there can be: descriptors are made once. It asks for no interrupt that it waits for."""

    features = VERSION_1 | INDIRECT | EVENT_IDX

    def device(self) -> VirtioBlk:
        """With a disk that is as large as 32 requests of a MiB, and more."""
        self.disk = disk(64 * MIB)
        return VirtioBlk("blk", self.machine, self.disk)

    def chains(self) -> list[int]:
        """Request n in slot n: `prepare` says what they are."""
        self.traps = Traps(self.machine)
        return list(range(DEPTH))

    def prepare(self, kind: int, length: int) -> None:
        """The descriptors of one request in each slot, at different places of the disk."""
        for slot in range(DEPTH):
            header, table = HEADERS + 32 * slot, LISTS + 64 * slot
            struct.pack_into("<IIQB", self.ram, header, kind, 0, slot * length // SECTOR, 0xFF)
            self.describe(slot, table, 48, TABLE)
            for number, (address, size, flags) in enumerate((
                (header, 16, NEXT), (DATA + slot * length, length, NEXT | (0 if kind == OUT else WRITES)),
                (header + 16, 1, WRITES),
            )):  # fmt: skip
                struct.pack_into("<QIHH", self.ram, table + 16 * number, address, size, flags, number + 1)

    def run(self, requests: int) -> float:
        """Seconds of processor time for each of so many requests."""
        start = time.process_time()
        for _ in range(0, requests, DEPTH):
            self.offer(self.traps, DEPTH)
            while not self.idle:
                self.settle()  # the device goes on from a timer
                time.sleep(0)
            struct.pack_into("<H", self.ram, USED_EVENT, self.available)
        return (time.process_time() - start) / requests

    def check(self) -> bool:
        """Whether the last requests succeeded."""
        return all(self.ram[HEADERS + 32 * slot + 16] == 0 for slot in range(DEPTH))


def main(rounds: int) -> None:
    """Print seconds by what was done, one of each round."""
    figures: dict[str, list[float]] = {}
    for name, native in (("", True), (", rings in Python", False)):
        driver = Requests(native=native)
        for what, kind, length, requests in (
            ("write of 4 KiB", OUT, 4096, 4096), ("read of 4 KiB", IN, 4096, 16384), ("read of 1 MiB", IN, MIB, 256),
        ):  # fmt: skip
            driver.prepare(kind, length)
            driver.run(DEPTH)
            figures[what + name] = [driver.run(requests) for _ in range(rounds)]
            if not driver.check():
                raise SystemExit(f"{what} failed")
        driver.disk.close()
    driver = Requests()
    driver.prepare(IN, 512)
    for requests in (1 << 10, 1 << 13, 1 << 17):
        figures[f"read of 512 bytes, {requests:,} times"] = [driver.run(requests) for _ in range(rounds)]
    driver.disk.close()
    print(json.dumps(figures))


if __name__ == "__main__":
    main(int(sys.argv[1]))
