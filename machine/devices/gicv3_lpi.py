"""LPIs of one redistributor: which are pending, and how urgent they are (IHI 0069, section 5.1 and 5.2).

Configuration is in a table in memory, a byte for each: priority and enable. It is read when an LPI becomes pending and
when software says that it has changed; nothing is kept of LPIs that are not pending. The pending table in memory is
read when LPIs are enabled and written when they are disabled; between, it is the redistributor's, and kept here.

Sets are integers, bit n for LPI 8192 + n. What has to be read of many at once is read in steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.devices.gic_core import NOTHING, bits
from dbt.machine.errors import DmaError

if TYPE_CHECKING:
    from dbt.machine.devices.gic_core import Offer
    from dbt.machine.memory import DmaPort

LPIS = 8192
ID_BITS = 16
MOST = (1 << ID_BITS) - LPIS  # LPIs that there can be
STEP = 16  # configurations that are read at once
ENABLED, UNREAD = 1, 2  # bits of a saved configuration; the priority is in bits 7 to 2
PENDING, UNREAD_ONES = -1, -2  # besides priorities
SAVED = 3  # bytes of a saved LPI: its number above 8192, and its configuration


class Lpis:
    """The pending LPIs of a redistributor, while they are enabled."""

    def __init__(self, dma: DmaPort) -> None:
        self.dma = dma
        self.best: Offer = NOTHING
        self.forget()

    def forget(self) -> None:
        """There are none, and they are disabled."""
        self.count = 0  # LPIs that the tables have room for: 0 while they are disabled
        self.configuration = 0  # the address of the table
        self.pending = 0
        self.unread = 0  # pending, with a configuration that has to be read
        self._ready: dict[int, int] = {}  # priority: those that are pending and enabled
        self._choose()

    # Enable and disable

    def enable(self, configuration: int, id_bits: int) -> None:
        """Take LPIs from now on."""
        self.forget()
        self.configuration = configuration
        self.count = max((1 << min(id_bits, ID_BITS)) - LPIS, 0)

    def load(self, table: int) -> None:
        """Take over a pending table."""
        try:
            self.pending = int.from_bytes(self.dma.dma_read(table + LPIS // 8, self.count // 8), "little")
        except DmaError:
            self.pending = 0  # it is logged already
        self.unread = self.pending
        self.step()

    def store(self, table: int) -> None:
        """Give a pending table back."""
        try:
            self.dma.dma_write(table + LPIS // 8, self.pending.to_bytes(self.count // 8, "little"))
        except DmaError:
            return  # it is logged already

    # Pending or not

    def set(self, number: int) -> None:
        """An LPI is pending."""
        index = number - LPIS
        if 0 <= index < self.count and not self.pending >> index & 1:
            self._add(index, self._read(index, 1)[0])
            self._choose()

    def clear(self, number: int) -> None:
        """An LPI is not pending any more."""
        index = number - LPIS
        if 0 <= index < self.count and self.pending >> index & 1:
            self._remove(1 << index)
            self._choose()

    def move(self, number: int, other: Lpis) -> None:
        """If an LPI is pending, it goes to another redistributor."""
        if number >= LPIS and self.pending >> number - LPIS & 1:
            self.clear(number)
            other.set(number)

    def move_all(self, other: Lpis) -> None:
        """All that are pending go to another redistributor, which reads what it needs of them."""
        if other is self:
            return
        new = self.pending & (1 << other.count) - 1 & ~other.pending
        other.pending |= new
        other.unread |= new
        other.step()
        self._remove(self.pending)
        self._choose()

    # Configuration

    def invalidate(self, number: int) -> None:
        """The configuration of an LPI has changed."""
        index = number - LPIS
        if index >= 0 and self.pending >> index & 1:
            self._remove(1 << index)
            self._add(index, self._read(index, 1)[0])
            self._choose()

    def invalidate_all(self) -> None:
        """The configuration of all has changed."""
        self.unread = self.pending
        self.step()

    def step(self) -> None:
        """Read some configurations; it is to be called again, not at once, while there are `unread` ones."""
        indexes: list[int] = []
        left = self.unread
        while left and len(indexes) < STEP:
            low = left & -left
            indexes.append(low.bit_length() - 1)
            left ^= low
        if indexes:
            self._remove(self.unread ^ left)
            data = self._read(indexes[0], indexes[-1] + 1 - indexes[0])
            for index in indexes:
                self._add(index, data[index - indexes[0]])
        self._choose()

    def _read(self, index: int, count: int) -> bytes:
        try:
            return self.dma.dma_read(self.configuration + index, count)
        except DmaError:
            return bytes(count)  # it is logged already: disabled

    def _add(self, index: int, configuration: int) -> None:
        self.pending |= 1 << index
        if configuration & ENABLED:
            priority = configuration & 0xFC
            self._ready[priority] = self._ready.get(priority, 0) | 1 << index

    def _remove(self, which: int) -> None:
        self.pending &= ~which
        self.unread &= ~which
        for priority, ready in list(self._ready.items()):
            if not ready & ~which:
                del self._ready[priority]
            elif ready & which:
                self._ready[priority] = ready & ~which

    def _choose(self) -> None:
        if not self._ready:
            self.best = NOTHING
            return
        priority = min(self._ready)
        ready = self._ready[priority]
        self.best = priority, LPIS + (ready & -ready).bit_length() - 1

    # Saving

    def save(self) -> bytearray:
        """What is pending, as bytes."""
        saved = bytearray()
        of = {index: priority | ENABLED for priority, ready in self._ready.items() for index in bits(ready)}
        for index in bits(self.pending):
            configuration = of.get(index, 0) | (UNREAD if self.unread >> index & 1 else 0)
            saved += bytes((index & 0xFF, index >> 8, configuration))
        return saved

    def restore(self, saved: bytes | bytearray) -> None:
        """Be as `save` was called, after `enable`."""
        sets: dict[int, bytearray] = {}  # by priority, or these two; integers would be copied for each bit
        for at in range(0, len(saved) - SAVED + 1, SAVED):
            index, configuration = saved[at] | saved[at + 1] << 8, saved[at + 2]
            byte, bit = index >> 3, 1 << (index & 7)
            pending = sets.setdefault(PENDING, bytearray(MOST // 8))
            if index < self.count and not pending[byte] & bit:
                pending[byte] |= bit
                if configuration & ENABLED:
                    sets.setdefault(configuration & 0xFC, bytearray(MOST // 8))[byte] |= bit
                if configuration & UNREAD:
                    sets.setdefault(UNREAD_ONES, bytearray(MOST // 8))[byte] |= bit
        numbers = {which: int.from_bytes(ones, "little") for which, ones in sets.items()}
        self.pending = numbers.pop(PENDING, 0)
        self.unread = numbers.pop(UNREAD_ONES, 0)
        self._ready = numbers
        self._choose()
