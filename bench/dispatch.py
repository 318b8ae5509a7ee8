"""What an access to a device costs: `python -m bench machine` runs this and reads the JSON line that it prints.

A map of 1,000 devices: look-up, the machine's lock, dispatch, a handler that does nothing; and the same with a register
of a PL031, so with what register declarations cost. Processor time: others on the machine do not count.
"""

from __future__ import annotations

import json
import sys
import time

from dbt.machine.devices.pl031 import PL031
from dbt.machine.machine import Machine
from dbt.machine.memory import MMIO, AccessSizes, AddressSpace, Attributes, Container

DEVICES, ACCESSES, MOVES = 1000, 100_000, 100


class Word:
    """A device of one word."""

    def __init__(self) -> None:
        self.value = 0

    def read(self, offset: int, size: int, attributes: Attributes) -> int:
        """The word."""
        del offset, size, attributes
        return self.value

    def write(self, offset: int, size: int, value: int, attributes: Attributes) -> None:
        """Change it."""
        del offset, size, attributes
        self.value = value


def build(devices: int) -> AddressSpace:
    """A space with so many devices, 64 KiB apart."""
    system = Container("system", 1 << 40)
    with system.changes():
        for number in range(devices):
            system.place(MMIO(f"word{number}", 0x1000, Word(), AccessSizes((1, 4), (1, 4))), number << 16)
    return AddressSpace("memory", system, bits=40)


def main(rounds: int) -> None:
    """Print nanoseconds of a read, a write and a change of the map, one of each round, and of reads by devices."""
    figures: dict[str, list[float]] = {"read": [], "write": []}
    space = build(DEVICES)
    address = (DEVICES // 3) << 16
    for _ in range(rounds):
        read, start = space.read, time.process_time_ns()
        for _ in range(ACCESSES):
            read(address, 4)
        figures["read"].append((time.process_time_ns() - start) / ACCESSES)
        write, start = space.write, time.process_time_ns()
        for _ in range(ACCESSES):
            write(address, 4, 1)
        figures["write"].append((time.process_time_ns() - start) / ACCESSES)
    machine = Machine()
    machine.place(PL031("rtc", machine), 0x0901_0000)
    figures["register read"], read = [], machine.memory.read
    for _ in range(rounds):
        start = time.process_time_ns()
        for _ in range(ACCESSES):
            read(0x0901_0004, 4)
        figures["register read"].append((time.process_time_ns() - start) / ACCESSES)
    figures["a region moves"] = []
    system = space.root
    moving = MMIO("moving", 0x1000, Word())
    assert isinstance(system, Container)
    system.place(moving, 1 << 36)
    for _ in range(rounds):
        start = time.process_time_ns()
        for number in range(MOVES):
            system.move(moving, (1 << 36) + (number << 12))
        figures["a region moves"].append((time.process_time_ns() - start) / MOVES)
    for devices in (1, 10, 100, 1000, 10_000):
        read = build(devices).read
        start = time.process_time_ns()
        for _ in range(ACCESSES):
            read((devices // 3) << 16, 4)
        figures[f"read among {devices}"] = [(time.process_time_ns() - start) / ACCESSES]
    print(json.dumps(figures))


if __name__ == "__main__":
    main(int(sys.argv[1]))
