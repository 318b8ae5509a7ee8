"""Base address registers (PCI Local Bus 3.0, 6.2.5): what a function shows, and where the driver put it.

Where a BAR is decoded follows from the registers alone, also when BARs overlap: the lower slot, function and number
wins. So a restored machine has the map of the saved one, whatever the order of writes was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbt.machine.errors import MapError
from dbt.machine.memory import Container, Region
from dbt.machine.pci.config import IO, MEMORY, Header, Type0, Type1

if TYPE_CHECKING:
    from dbt.machine.pci.config import ConfigSpace
    from dbt.machine.pci.function import PciFunction

ROM = 6  # the number of the expansion ROM's BAR
RANKS = 256 * 8  # BARs on a bus


@dataclass(frozen=True, slots=True)
class Bar:
    """A BAR as a device declares it. `shows`: one of its windows, or a region; `size`: the next power of two.

    Number 6 is the expansion ROM. One of 64 bits takes two numbers.
    """

    index: int
    shows: str | Region
    io: bool = False
    bits: int = 32
    prefetchable: bool = False
    size: int = 0


def rank(devfn: int, index: int) -> int:
    """The priority on its bus of a BAR, or of a bridge's window."""
    return RANKS - (devfn << 3 | index)


class BaseAddress:
    """One BAR of one function. `contents` is what it shows; `at` is where, None while it is not decoded."""

    def __init__(self, function: PciFunction, bar: Bar, region: Region | None) -> None:
        least = 4 if bar.io else 0x800 if bar.index == ROM else 16
        size = bar.size or 1 << max(region.size if region else 4096, least).bit_length() - 1
        if region and size < region.size and not bar.size:
            size *= 2
        if size < least or size & (size - 1) or size > (1 << 8 if bar.io else 1 << 31 if bar.bits == 32 else 1 << 62):
            raise MapError(f"{function.name}: BAR {bar.index} cannot have {size:#x} bytes")
        self.bar = bar
        self.size = size
        self.at: int | None = None
        self.contents = Container(f"{function.name}.bar{bar.index}", size)
        if region:
            self.contents.place(region, 0)
        self._function = function
        self._low = ~(size - 1)  # the bits that are an address
        layout = Type1 if issubclass(function.HEADER, Type1) else Type0
        self.offset = layout.EXPANSION_ROM.offset if bar.index == ROM else layout.BAR.offset + 4 * bar.index
        self.bytes = bar.bits // 8
        self._declare(function.config)

    def _declare(self, config: ConfigSpace) -> None:
        bar, start, end = self.bar, self.offset, self.offset + self.bytes
        flags = 0 if bar.index == ROM else int(bar.io) | (4 if bar.bits == 64 else 0) | (8 if bar.prefetchable else 0)
        mask = self._low & (1 << bar.bits) - 1 | (bar.index == ROM)
        config.initial[start:end] = config.data[start:end] = flags.to_bytes(self.bytes, "little")
        config.mask[start:end] = mask.to_bytes(self.bytes, "little")

    def numbers(self) -> range:
        """The BAR's number, or its two."""
        return range(self.bar.index, self.bar.index + self.bytes // 4)

    @property
    def address(self) -> int:
        """What the register has, decoded or not."""
        return self._function.config.read(self.offset, self.bytes) & self._low

    def configure(self, address: int) -> None:
        """Write the register, as firmware does."""
        for offset in range(0, self.bytes, 4):
            self._function.config_write(self.offset + offset, 4, address >> 8 * offset & 0xFFFFFFFF)

    @property
    def wanted(self) -> int | None:
        """Where the registers say that it is decoded; None: nowhere.

        That is if the command register says so, at the last addresses of the BAR's kind, which is what sizing leaves
        there, and at zero, if the bus has no such address.
        """
        config, bar = self._function.config, self.bar
        command = config.get(Header.COMMAND)
        value = config.read(self.offset, self.bytes)
        if not command & (IO if bar.io else MEMORY) or (bar.index == ROM and not value & 1):
            return None
        address = value & self._low
        last = address + self.size - 1
        if last > 0xFFFF if bar.io else last >= (1 << bar.bits) - 1:
            return None
        return address if address or self._function.bus.zero else None

    def update(self) -> None:
        """Be where the registers say."""
        wanted = self.wanted
        if wanted == self.at:
            return
        bus = self._function.bus
        space = bus.io if self.bar.io else bus.memory
        if wanted is None:
            space.remove(self.contents)
        elif self.at is None:
            space.place(self.contents, wanted, rank(self._function.devfn, self.bar.index))
        else:
            space.move(self.contents, wanted)
        self.at = wanted
