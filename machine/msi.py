"""Message-signalled interrupts: writes of devices that interrupt controllers take instead of memory.

`machine.msi.send` is the way of a message, `add` how a controller (GICv2m, GICv3's ITS, local APICs) takes a range of
addresses. What no controller takes is a write of 32 bits to memory, as on any bus. A requester ID is a PCI function's
bus << 8 | slot << 3 | function; an ITS looks it up.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from typing import TYPE_CHECKING

from dbt.machine.errors import DmaError, MapError
from dbt.machine.memory import DmaPort

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.memory import AddressSpace

    Target = Callable[[int, int, int], object]  # offset, data, requester ID


class MsiRouter:
    """Which controller takes messages to which addresses."""

    def __init__(self, memory: AddressSpace) -> None:
        self._memory = DmaPort("msi", memory)
        self._ranges: list[tuple[int, int]] = []  # (base, end), sorted
        self._targets: dict[int, Target] = {}

    def add(self, base: int, size: int, target: Target) -> None:
        """Give messages to `base` and the `size` bytes there to `target(offset, data, requester_id)`."""
        if any(base < end and other < base + size for other, end in self._ranges):
            raise MapError(f"messages to {base:#x} have a target already")
        insort(self._ranges, (base, base + size))
        self._targets[base] = target

    def send(self, address: int, data: int, requester_id: int) -> bool:
        """Deliver a message of 32 bits; False, and a guest's error, if neither a controller nor memory takes it."""
        index = bisect_right(self._ranges, (address, 1 << 65)) - 1
        if index >= 0:
            base, end = self._ranges[index]
            if address < end:
                self._targets[base](address - base, data & 0xFFFFFFFF, requester_id)
                return True
        try:
            self._memory.dma_write(address, (data & 0xFFFFFFFF).to_bytes(4, "little"))
        except DmaError:  # it has been logged
            return False
        return True
