"""How a driver reaches a virtio device: MMIO (section 4.2), PCI (4.1) and its legacy ports (4.1.4.10)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tests.machine.pci import Function
    from tests.machine.qtest import Bus


class Transport(Protocol):
    """`known`: features that are looked at; comparisons leave out what only one side has."""

    bus: Bus
    legacy: bool
    known: int

    def status(self) -> int: ...
    def set_status(self, value: int) -> None: ...
    def features(self) -> int: ...
    def accept(self, features: int) -> None: ...
    def most(self, index: int) -> int: ...
    def set_queue(self, index: int, size: int, places: tuple[int, int, int]) -> None: ...
    def notify(self, index: int) -> None: ...
    def config(self, offset: int, size: int) -> int: ...
    def set_config(self, offset: int, value: int, size: int) -> None: ...
    def interrupt(self) -> int: ...


def wide(read: Callable[[int, int], int], offset: int, size: int) -> int:
    """A field of the configuration space: of 8 bytes in halves (section 2.5.1)."""
    return read(offset, 4) | read(offset + 4, 4) << 32 if size == 8 else read(offset, size)


class Mmio:
    """Section 4.2; `legacy`: version 1 of the registers. `sizes`: whether those of queues are looked at."""

    known = ~0
    sizes = True

    def __init__(self, bus: Bus, base: int, *, legacy: bool = False) -> None:
        self.bus = bus
        self.base = base
        self.legacy = legacy

    def read(self, offset: int) -> int:
        return self.bus.read(self.base + offset)

    def write(self, offset: int, value: int) -> None:
        self.bus.write(self.base + offset, value)

    def identity(self) -> tuple[int, int, int, int]:
        return self.read(0), self.read(4), self.read(8), self.read(12)

    def status(self) -> int:
        return self.read(0x70)

    def set_status(self, value: int) -> None:
        self.write(0x70, value)

    def features(self) -> int:
        words = 0
        for select in range(1 if self.legacy else 2):
            self.write(0x14, select)
            words |= self.bus.read(self.base + 0x10, 4, self.known >> 32 * select) << 32 * select
        return words

    def accept(self, features: int) -> None:
        for select in range(1 if self.legacy else 2):
            self.write(0x24, select)
            self.write(0x20, features >> 32 * select & 0xFFFF_FFFF)

    def most(self, index: int) -> int:
        self.write(0x30, index)
        return self.bus.read(self.base + 0x34) if self.sizes else min(self.unnoted(0x34), 256)

    def unnoted(self, offset: int) -> int:
        value = self.read(offset)
        self.bus.log.pop()
        return value

    def set_queue(self, index: int, size: int, places: tuple[int, int, int]) -> None:
        self.write(0x30, index)
        if self.legacy:
            assert self.read(0x40) == 0
            self.write(0x38, size)
            self.write(0x3C, 4096)
            self.write(0x40, places[0] >> 12)
            return
        assert self.read(0x44) == 0
        self.write(0x38, size)
        for offset, address in zip((0x80, 0x90, 0xA0), places, strict=True):
            self.write(offset, address & 0xFFFF_FFFF)
            self.write(offset + 4, address >> 32)
        self.write(0x44, 1)
        assert self.read(0x44) == 1

    def notify(self, index: int) -> None:
        self.write(0x50, index)

    def config(self, offset: int, size: int) -> int:
        return wide(lambda at, count: self.bus.read(self.base + 0x100 + at, count), offset, size)

    def set_config(self, offset: int, value: int, size: int) -> None:
        self.bus.write(self.base + 0x100 + offset, value, size)

    def interrupt(self) -> int:
        """The reasons, which are acknowledged. Not noted: how many there are is a question of time."""
        reasons = self.unnoted(0x60)
        if reasons:
            self.write(0x64, reasons)
        return reasons


class PciModern:
    """Section 4.1: the structures of a function whose BARs are placed."""

    known = ~0
    legacy = False

    def __init__(self, function: Function) -> None:
        self.bus = function.config.bus
        self.function = function
        self.structures: dict[int, tuple[int, int]] = {}  # kind: address, length
        self.multiplier = 0
        for at in function.capabilities()[0x09]:
            kind, bar = function.read(at + 3, 1), function.read(at + 4, 1)
            offset, length = function.read(at + 8), function.read(at + 12)
            if kind <= 4:
                self.structures.setdefault(kind, (function.bars[bar][0] + offset, length))
            if kind == 2:
                self.multiplier = function.read(at + 16)
            if kind == 5:
                self.window = at
        self.offsets: dict[int, int] = {}

    def read(self, offset: int, size: int) -> int:
        return self.bus.read(self.structures[1][0] + offset, size)

    def write(self, offset: int, value: int, size: int) -> None:
        self.bus.write(self.structures[1][0] + offset, value, size)

    def status(self) -> int:
        return self.read(0x14, 1)

    def set_status(self, value: int) -> None:
        self.write(0x14, value, 1)

    def features(self) -> int:
        words = 0
        for select in range(2):
            self.write(0, select, 4)
            words |= self.bus.read(self.structures[1][0] + 4, 4, self.known >> 32 * select) << 32 * select
        return words

    def accept(self, features: int) -> None:
        for select in range(2):
            self.write(8, select, 4)
            self.write(12, features >> 32 * select & 0xFFFF_FFFF, 4)

    def most(self, index: int) -> int:
        self.write(0x16, index, 2)
        return self.read(0x18, 2)

    def set_queue(self, index: int, size: int, places: tuple[int, int, int]) -> None:
        self.write(0x16, index, 2)
        assert self.read(0x1C, 2) == 0
        self.write(0x18, size, 2)
        for offset, address in zip((0x20, 0x28, 0x30), places, strict=True):
            self.write(offset, address & 0xFFFF_FFFF, 4)
            self.write(offset + 4, address >> 32, 4)
        self.offsets[index] = self.read(0x1E, 2)
        self.write(0x1C, 1, 2)

    def set_vector(self, index: int | None, vector: int) -> int:
        """Of a queue, or of the configuration; the result is what the device made of it."""
        if index is None:
            self.write(0x10, vector, 2)
            return self.read(0x10, 2)
        self.write(0x16, index, 2)
        self.write(0x1A, vector, 2)
        return self.read(0x1A, 2)

    def notify(self, index: int) -> None:
        self.bus.write(self.structures[2][0] + self.multiplier * self.offsets[index], index, 2)

    def config(self, offset: int, size: int) -> int:
        return wide(lambda at, count: self.bus.read(self.structures[4][0] + at, count), offset, size)

    def set_config(self, offset: int, value: int, size: int) -> None:
        self.bus.write(self.structures[4][0] + offset, value, size)

    def interrupt(self) -> int:
        reasons = self.bus.read(self.structures[3][0], 1)
        self.bus.log.pop()
        return reasons


class PciLegacy:
    """Section 4.1.4.10: ports, in BAR 0."""

    known = ~0
    legacy = True

    def __init__(self, function: Function) -> None:
        self.bus = function.config.bus
        self.base = function.bars[0][0]
        self.space = 20

    def status(self) -> int:
        return self.bus.inp(self.base + 18, 1)

    def set_status(self, value: int) -> None:
        self.bus.out(self.base + 18, value, 1)

    def features(self) -> int:
        return self.bus.inp(self.base, 4, self.known)

    def accept(self, features: int) -> None:
        self.bus.out(self.base + 4, features, 4)

    def most(self, index: int) -> int:
        self.bus.out(self.base + 14, index, 2)
        return self.bus.inp(self.base + 12, 2)

    def set_queue(self, index: int, size: int, places: tuple[int, int, int]) -> None:
        assert self.most(index) == size  # which legacy drivers cannot choose
        assert self.bus.inp(self.base + 8, 4) == 0
        self.bus.out(self.base + 8, places[0] >> 12, 4)

    def notify(self, index: int) -> None:
        self.bus.out(self.base + 16, index, 2)

    def config(self, offset: int, size: int) -> int:
        return wide(lambda at, count: self.bus.inp(self.base + self.space + at, count), offset, size)

    def set_config(self, offset: int, value: int, size: int) -> None:
        self.bus.out(self.base + self.space + offset, value, size)

    def interrupt(self) -> int:
        reasons = self.bus.inp(self.base + 19, 1)
        self.bus.log.pop()
        return reasons
