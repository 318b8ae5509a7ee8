"""What virtio-blk costs: `python -m bench machine` runs this and reads the JSON line that it prints.

A driver with its rings in guest memory, over MMIO, and a disk in memory: 32 requests, a notification, and a look at
what came back. Reads are answered at once, writes go through the disk's workers. Processor time of all threads.
"""

from __future__ import annotations

import json
import struct
import sys
import time

from dbt.machine.block import Disk, open_image
from dbt.machine.devices.virtio_blk import VirtioBlk
from dbt.machine.machine import Machine
from dbt.machine.memory import RAM
from dbt.machine.virtio.mmio import VirtioMmio

RAM_AT, MMIO_AT, RAM_SIZE = 0x4000_0000, 0x0A00_0000, 64 << 20
SIZE, DEPTH = 256, 32  # of the queue; requests at once
TABLE, AVAILABLE, USED, TABLES, HEADERS, DATA = (RAM_AT + (number << 16) for number in (0, 1, 2, 3, 4, 32))
IN, OUT = 0, 1
INDIRECT_DESC, EVENT_IDX, VERSION_1 = 1 << 28, 1 << 29, 1
DISK = 64 << 20


class Driver:
    """As little of a driver as there can be: descriptors are made once."""

    def __init__(self, *, native: bool) -> None:
        self.machine = Machine(native=native)
        ram = RAM("ram", RAM_SIZE)
        self.machine.place(ram, RAM_AT)
        self.view = ram.memory.view
        self.disk = Disk(open_image(f"driver=raw,file.driver=memory,file.size={DISK}", writable=True))
        for at in range(0, DISK, 1 << 20):
            self.disk.write(at, bytes(range(256)) * 4096)
        self.machine.place(VirtioMmio("mmio", self.machine, device=VirtioBlk("disk", self.machine, self.disk)), MMIO_AT)
        self.machine.reset()
        for offset, value in (
            (0x70, 1), (0x70, 3), (0x24, 0), (0x20, INDIRECT_DESC | EVENT_IDX), (0x24, 1), (0x20, VERSION_1),
            (0x70, 11), (0x38, SIZE), (0x80, TABLE), (0x90, AVAILABLE), (0xA0, USED), (0x44, 1), (0x70, 15),
        ):  # fmt: skip
            self.machine.memory.write(MMIO_AT + offset, 4, value)
        for slot in range(SIZE):
            self.store(AVAILABLE + 4 + 2 * slot, struct.pack("<H", slot % DEPTH))
        self.index = 0

    def store(self, address: int, data: bytes) -> None:
        """Put bytes into the guest's memory."""
        self.view[address - RAM_AT : address - RAM_AT + len(data)] = data

    def prepare(self, kind: int, length: int) -> None:
        """The descriptors of one request in each slot, at different places of the disk."""
        for slot in range(DEPTH):
            header, table = HEADERS + 32 * slot, TABLES + 64 * slot
            self.store(header, struct.pack("<IIQ", kind, 0, slot * length // 512))
            self.store(TABLE + 16 * slot, struct.pack("<QIHH", table, 48, 4, 0))
            self.store(table, struct.pack("<QIHH", header, 16, 1, 1))
            self.store(table + 16, struct.pack("<QIHH", DATA + slot * length, length, 1 if kind == OUT else 3, 2))
            self.store(table + 32, struct.pack("<QIHH", header + 16, 1, 2, 0))

    def run(self, requests: int) -> float:
        """Seconds of processor time for each of so many requests."""
        used, write = self.view[USED - RAM_AT :].cast("H"), self.machine.memory.write
        start = time.process_time()
        for _ in range(0, requests, DEPTH):
            self.index = (self.index + DEPTH) & 0xFFFF
            write(AVAILABLE + 2, 2, self.index)
            write(MMIO_AT + 0x50, 4, 0)
            while used[1] != self.index:
                self.machine.advance(0)  # the device goes on from a timer
                time.sleep(0)
            write(AVAILABLE + 4 + 2 * SIZE, 2, self.index)
        return (time.process_time() - start) / requests

    def good(self) -> bool:
        """Whether the last requests succeeded."""
        return all(self.view[HEADERS + 32 * slot + 16 - RAM_AT] == 0 for slot in range(DEPTH))


def main(rounds: int) -> None:
    """Print seconds by what was done, one of each round."""
    figures: dict[str, list[float]] = {}
    for name, native in (("", True), (", rings in Python", False)):
        driver = Driver(native=native)
        for what, kind, length, requests in (
            ("write of 4 KiB", OUT, 4096, 4096), ("read of 4 KiB", IN, 4096, 16384),
            ("read of 1 MiB", IN, 1 << 20, 256),
        ):  # fmt: skip
            driver.prepare(kind, length)
            driver.run(DEPTH)
            figures[what + name] = [driver.run(requests) for _ in range(rounds)]
            if not driver.good():
                raise SystemExit(f"{what} failed")
        driver.disk.close()
    driver = Driver(native=True)
    driver.prepare(IN, 512)
    for requests in (1 << 10, 1 << 13, 1 << 17):
        figures[f"read of 512 bytes, {requests:,} times"] = [driver.run(requests) for _ in range(rounds)]
    driver.disk.close()
    print(json.dumps(figures))


if __name__ == "__main__":
    main(int(sys.argv[1]))
