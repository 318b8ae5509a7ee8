"""What a PCI driver does: find functions, size and place BARs, enable them, all through the memory map or ports.

It works on our machines and, through qtest, on QEMU's: a `Config` is made with the `Bus` of qtest.py. `machine` makes
one of ours with a root bus, ECAM at QEMU's address and the ports.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dbt.machine.machine import PORTS, Machine
from dbt.machine.memory import MMIO, RAM, Unassigned
from dbt.machine.pci import ConfigPorts, Ones, PciBus, ecam

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from dbt.machine.log import Log
    from dbt.machine.pci import PciFunction

    from tests.machine.qtest import Bus

ECAM, ECAM_LOW = 0x40_1000_0000, 0x3F00_0000  # of QEMU's virt: high, and without high memory
ADDRESS_PORT, DATA_PORT = 0xCF8, 0xCFC
MEMORY_AT, IO_AT = 0x1000_0000, 0xC000  # where drivers of tests put BARs: the window of virt, and free ports of pc
COMMAND, STATUS, BAR0, ROM, CAPABILITIES = 0x04, 0x06, 0x10, 0x30, 0x34
RAM_AT, RAM_SIZE = 0x4000_0000, 16 << 20


def machine(*, zero: bool = True, log: Log | None = None) -> tuple[Machine, PciBus]:
    """A machine with RAM and one root bus: ECAM and ports, memory everywhere but in RAM, ports everywhere."""
    made = Machine(unassigned=Unassigned.ONES, log=log)
    bus = PciBus("pci", made, zero=zero)
    made.system.place(RAM("ram", RAM_SIZE), RAM_AT, 2)
    made.system.place(ecam("ecam", bus), ECAM, 2)
    made.system.place(bus.memory, 0, 1)
    made.system.place(MMIO("abort", 1 << 63, Ones()), 0)
    ports = ConfigPorts("config", made, bus)
    made.place(ports, ADDRESS_PORT, PORTS, "ADDRESS")
    made.place(ports, DATA_PORT, PORTS, "DATA")
    made.io.place(bus.io, 0, -1)
    return made, bus


@dataclass(slots=True)
class Config:
    """Configuration space by ECAM at `ecam`, or by ports if that is 0. A place is (bus, slot, function)."""

    bus: Bus
    ecam: int = 0

    def _address(self, place: tuple[int, int, int], offset: int) -> int:
        number, slot, function = place
        if self.ecam:
            return self.ecam + (number << 20 | slot << 15 | function << 12 | offset)
        self.bus.out(ADDRESS_PORT, 1 << 31 | number << 16 | slot << 11 | function << 8 | offset & 0xFC, 4)
        return DATA_PORT | offset & 3

    def read(self, place: tuple[int, int, int], offset: int, size: int = 4) -> int:
        address = self._address(place, offset)
        return self.bus.read(address, size) if self.ecam else self.bus.inp(address, size)

    def write(self, place: tuple[int, int, int], offset: int, value: int, size: int = 4) -> None:
        address = self._address(place, offset)
        if self.ecam:
            self.bus.write(address, value, size)
        else:
            self.bus.out(address, value, size)

    def scan(self, number: int = 0) -> Iterator[tuple[tuple[int, int, int], int]]:
        """(place, vendor | device << 16) of all functions on one bus."""
        for slot in range(32):
            for function in range(8):
                found = self.read((number, slot, function), 0)
                if found != 0xFFFFFFFF:
                    yield (number, slot, function), found
                if function == 0 and (found == 0xFFFFFFFF or not self.read((number, slot, 0), 0x0E, 1) & 0x80):
                    break

    def find(self, vendor: int, device: int, number: int = 0) -> tuple[int, int, int]:
        """The place of the first such function on a bus."""
        return next(place for place, found in self.scan(number) if found == vendor | device << 16)

    def function(self, vendor: int, device: int) -> Function:
        """The first such function on bus 0."""
        return Function(self, self.find(vendor, device))


@dataclass(slots=True)
class Function:
    """One function, as its driver has it. `bars`: address of each BAR that `place` gave one, and its size."""

    config: Config
    at: tuple[int, int, int]
    bars: dict[int, tuple[int, int]] = field(default_factory=dict)

    def read(self, offset: int, size: int = 4) -> int:
        return self.config.read(self.at, offset, size)

    def write(self, offset: int, value: int, size: int = 4) -> None:
        self.config.write(self.at, offset, value, size)

    def size(self, index: int) -> tuple[int, bool, bool]:
        """(bytes, whether it is ports, whether it has 64 bits) of a BAR; its value is left as it was."""
        offset = ROM if index == 6 else BAR0 + 4 * index
        old = self.read(offset)
        self.write(offset, 0xFFFFF800 if index == 6 else 0xFFFFFFFF)
        ones = self.read(offset)
        self.write(offset, old)
        if ones & 1 and index != 6:
            return (-(ones & 0xFFFFFFFC)) & 0xFFFF if ones & 0xFFFFFFFC else 0, True, False
        wide = ones & 6 == 4 and index != 6
        high = 0xFFFFFFFF
        if wide:
            old = self.read(offset + 4)
            self.write(offset + 4, 0xFFFFFFFF)
            high = self.read(offset + 4)
            self.write(offset + 4, old)
        address = high << 32 | ones & (0xFFFFF800 if index == 6 else 0xFFFFFFF0)
        return (-address & (1 << 64) - 1) if ones & 0xFFFFFFF0 or high != 0xFFFFFFFF else 0, False, wide

    def place(self, memory: int = MEMORY_AT, ports: int = IO_AT, bars: int = 6) -> dict[int, tuple[int, int]]:
        """Size all BARs, put them behind each other from `memory` and `ports` on, and enable everything."""
        index = 0
        while index < bars:
            length, is_io, wide = self.size(index)
            if length:
                start = -(-(ports if is_io else memory) // length) * length
                self.write(BAR0 + 4 * index, start & 0xFFFFFFFF)
                if wide:
                    self.write(BAR0 + 4 * index + 4, start >> 32)
                self.bars[index] = start, length
                if is_io:
                    ports = start + length
                else:
                    memory = start + length
            index += 2 if wide else 1
        self.enable()
        return self.bars

    def enable(self, *, memory: bool = True, io: bool = True, master: bool = True, intx: bool = True) -> None:
        """The command register."""
        self.write(COMMAND, int(io) | memory << 1 | master << 2 | (not intx) << 10, 2)

    def capabilities(self) -> dict[int, list[int]]:
        """Offsets of the capabilities, by identifier, in the list's order."""
        found: dict[int, list[int]] = {}
        if self.read(STATUS, 2) & 0x10:
            at = self.read(CAPABILITIES, 1)
            while at:
                found.setdefault(self.read(at, 1), []).append(at)
                at = self.read(at + 1, 1)
        return found

    def capability(self, number: int) -> int:
        """The offset of the first capability of a kind."""
        return self.capabilities()[number][0]

    def enable_msi(self, address: int, data: int, vectors: int = 1) -> int:
        """Set MSI up; the result is the capability's offset."""
        at = self.capability(0x05)
        control = self.read(at + 2, 2)
        self.write(at + 4, address & 0xFFFFFFFF)
        if control & 0x80:
            self.write(at + 8, address >> 32)
        self.write(at + (12 if control & 0x80 else 8), data, 2)
        self.write(at + 2, control & ~0x71 | vectors.bit_length() - 1 << 4 | 1, 2)
        return at

    def enable_msix(self, messages: list[tuple[int, int]]) -> int:
        """Give the first vectors of MSI-X an (address, data), unmask them, enable it; BARs have to be placed."""
        at = self.capability(0x11)
        table = self.read(at + 4)
        base = self.bars[table & 7][0] + (table & ~7)
        for number, (address, data) in enumerate(messages):
            for word, value in enumerate((address & 0xFFFFFFFF, address >> 32, data, 0)):
                self.config.bus.write(base + 16 * number + 4 * word, value)
        self.write(at + 2, 0x8000, 2)
        return at


class Messages:
    """A target of messages, for `machine.msi.add`."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []  # offset, data, requester ID

    def __call__(self, offset: int, data: int, requester_id: int) -> None:
        self.seen.append((offset, data, requester_id))


def poke(device: PciFunction, random: Random) -> None:
    """Any configuration access, for `also` of `fuzz`; mostly the function may be a bus master afterwards."""
    size = random.choice((1, 2, 4))
    offset = random.randrange(0x100 // size) * size
    device.config_write(offset, size, random.choice((0, (1 << 8 * size) - 1, random.getrandbits(8 * size))))
    assert 0 <= device.config_read(offset, size) < 1 << 8 * size
    if random.randrange(8):
        device.config_write(COMMAND, 2, 0x7)
