"""How a device reaches memory by itself: through a port on a space, confined to what the map shows there as memory.

Descriptors and other things that a guest may change at any time are copied once by `dma_read` and checked then.
Transfers to other devices are refused and logged, so no device is entered from within one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.errors import BusError, DmaError
from dbt.machine.log import GUEST_ERROR

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dbt.machine.memory.flat import Section
    from dbt.machine.memory.ram import Memory
    from dbt.machine.memory.space import AddressSpace


class Mapping:
    """Guest memory that a device works in: `views` are its pieces in order. Give it back with `unmap`."""

    __slots__ = ("_parts", "views", "writable")

    def __init__(self, parts: list[tuple[Section, int, int]], *, writable: bool) -> None:
        self._parts = parts
        self.writable = writable
        self.views = [
            section.memory.view[at : at + count] if writable else section.memory.view[at : at + count].toreadonly()
            for section, at, count in parts
            if section.memory
        ]

    def release(self) -> None:
        """Let go of the memory, and tell its observers of what may have been written."""
        for view in self.views:
            view.release()
        self.views = []
        for section, at, count in self._parts if self.writable else ():
            assert section.memory is not None
            section.memory.written(at, count)
        self._parts = []


class DmaPort:
    """A device's way to memory. While it is not `enabled` (PCI: bus master) nothing is reached."""

    def __init__(self, device: str, space: AddressSpace, *, enabled: bool = True) -> None:
        self.device = device
        self.space = space
        self.enabled = enabled

    def _parts(self, address: int, length: int, *, writable: bool) -> list[tuple[Section, int, int]]:
        try:
            if not self.enabled:
                raise BusError(address, length, write=writable, reason="the device may not be a bus master")  # noqa: TRY301
            return self.space.spans(address, length, writable=writable)
        except BusError as error:
            way = "to" if writable else "from"
            self.space.log.say(GUEST_ERROR, self.device, f"DMA {way} what is no memory", f": {error}")
            raise DmaError(self.device, error.address, error.reason) from None

    def dma_read(self, address: int, length: int) -> bytes:
        """A copy of guest memory. DmaError, before anything is copied, if not all of it is memory."""
        parts = self._parts(address, length, writable=False)
        return b"".join(section.memory.view[at : at + count] for section, at, count in parts if section.memory)

    def dma_write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store bytes in guest memory. DmaError, before anything is stored, if not all of it is memory."""
        source = memoryview(data).cast("B")
        done = 0
        for section, at, count in self._parts(address, len(source), writable=True):
            memory = section.memory
            assert memory is not None
            memory.view[at : at + count] = source[done : done + count]
            memory.written(at, count)
            done += count

    def pieces(self, address: int, length: int, *, writable: bool) -> list[tuple[Memory, int, int]]:
        """(memory, offset, length) of what is there, for those who tell observers themselves. DmaError as above."""
        parts = self._parts(address, length, writable=writable)
        return [(section.memory, at, count) for section, at, count in parts if section.memory]

    def scattered(self, runs: Iterable[Sequence[int]], *, writable: bool) -> list[tuple[Memory, int, int]]:
        """The same of many (address, length): neighbours in one region cost no look-up each."""
        found: list[tuple[Memory, int, int]] = []
        start = end = delta = 0
        memory: Memory | None = None
        for address, length in runs:
            if memory is not None and start <= address and address + length <= end:
                found.append((memory, address + delta, length))
                continue
            parts = self._parts(address, length, writable=writable)
            for section, at, count in parts:
                memory, start, end, delta = section.memory, section.start, section.end, section.delta
                assert memory is not None
                found.append((memory, at, count))
        return found

    def map(self, address: int, length: int, *, writable: bool) -> Mapping:
        """The memory itself, without a copy: the guest may change it meanwhile. DmaError as above."""
        return Mapping(self._parts(address, length, writable=writable), writable=writable)

    @staticmethod
    def unmap(mapping: Mapping) -> None:
        """Give a mapping back: what was writable counts as written."""
        mapping.release()
