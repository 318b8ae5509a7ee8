"""Packed virtqueues (section 2.8): one ring of descriptors, which driver and device mark in turn, in Python.

An index goes with a wrap counter; a descriptor is available when its AVAIL bit is the counter and its USED bit is not.
Length, identifier and flags of a descriptor are one aligned word of 8 bytes, read and written as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.errors import RingError
from dbt.machine.virtio.chain import WRONG_ORDER, Chain
from dbt.machine.virtio.spec import (
    AVAIL,
    DESCRIPTOR_SIZE,
    EVENT_DESC,
    EVENT_DISABLE,
    EVENT_ENABLE,
    INDIRECT,
    NEXT,
    USED,
    WRITE,
    need_event,
)
from dbt.machine.virtio.split import Area, Fence, indirect_table

if TYPE_CHECKING:
    from dbt.machine.memory import DmaPort
    from dbt.machine.virtio.queue import Setup

LIMITS = (None, 1, None, 1, 0xFFFF)  # None: below the size


class PackedRing:
    """See the module. RingError and DmaError come out of `pop`, `push` and `wants_interrupt`."""

    STATE = ("next_avail", "avail_wrap", "next_used", "used_wrap", "signalled")

    def __init__(self, dma: DmaPort, setup: Setup) -> None:
        self.dma = dma
        self.setup = setup
        self.size = setup.size
        self.next_avail = 0
        self.avail_wrap = 1
        self.next_used = 0
        self.used_wrap = 1
        self.signalled = (
            0  # next_used when an interrupt was last thought about, less the size for each wrap since, in 16 bits
        )
        self._quiet = False
        self._view: object = None
        self._fence = Fence()

    def save(self) -> dict[str, int]:
        """The indexes and wrap counters."""
        return {name: getattr(self, name) for name in self.STATE}

    def load(self, saved: dict[str, int]) -> None:
        """Go on from saved indexes; RingError if they cannot be."""
        for name, limit in zip(self.STATE, LIMITS, strict=True):
            if not 0 <= saved[name] <= (self.size - 1 if limit is None else limit):
                raise RingError("saved indexes are beyond the ring")
        for name in self.STATE:
            setattr(self, name, saved[name])

    def _attach(self) -> None:
        setup, dma = self.setup, self.dma
        self._view = None
        length = DESCRIPTOR_SIZE * self.size
        self.ring_area = Area(dma, "the descriptor ring", setup.descriptors, length, 16, writable=True)
        self._ring = self.ring_area.view.cast("Q")
        self.driver_area = Area(dma, "the driver area", setup.driver, 4, 4, writable=False)
        self._driver = self.driver_area.view.cast("I")
        self.device_area = Area(dma, "the device area", setup.device, 4, 4, writable=True)
        self._device = self.device_area.view.cast("I")
        self._view = dma.space.view

    def _ready(self) -> None:
        if self._view is not self.dma.space.view or not self.dma.enabled:
            self._attach()

    def _available(self) -> bool:
        flags = self._ring[2 * self.next_avail + 1] >> 48
        return flags & (AVAIL | USED) == (AVAIL if self.avail_wrap else USED)

    def pop(self) -> Chain | None:
        """The next request; None if there is none, and then the driver will notify."""
        self._ready()
        if not self._available():
            self._ask()
            self._fence()
            if not self._available():
                return None
        if not self._quiet:
            self._quiet = True
            if not self.setup.event_index:
                self._suppress(EVENT_DISABLE, 0)
        chain = self._chain(self.next_avail)
        self.next_avail += chain.descriptors
        if self.next_avail >= self.size:
            self.next_avail -= self.size
            self.avail_wrap ^= 1
        return chain

    def _ask(self) -> None:
        self._quiet = False
        if self.setup.event_index:
            self._suppress(EVENT_DESC, self.next_avail | self.avail_wrap << 15)
        else:
            self._suppress(EVENT_ENABLE, 0)

    def _suppress(self, flags: int, where: int) -> None:
        self._device[0] = where | flags << 16
        self.device_area.wrote(0, 4)

    def again(self, token: int) -> Chain:
        """A chain that was popped before the state was saved."""
        self._ready()
        if token >= self.size:
            raise RingError("a saved chain is beyond the ring")
        return self._chain(token)

    def unpop(self, chain: Chain) -> None:
        """Put back what was popped last."""
        index = self.next_avail - chain.descriptors
        if index < 0:
            index += self.size
            self.avail_wrap ^= 1
        self.next_avail = index
        chain.release()

    def _chain(self, index: int) -> Chain:
        """The chain from `index` on: neighbours in the ring, or one indirect table in its order."""
        chain = Chain(self, index)
        ring, size, setup, dma = self._ring, self.size, self.setup, self.dma
        listed: list[tuple[int, int, int]] = []
        count = 0
        while True:
            word = ring[2 * index + 1]  # before the address: the flags say that it is there
            address = ring[2 * index]
            length, flags = word & 0xFFFF_FFFF, word >> 48
            count += 1
            if flags & INDIRECT:
                if not setup.indirect or flags & NEXT or count > 1:
                    raise RingError("an indirect descriptor where none may be")
                table, entries = indirect_table(dma, address, length, setup.most)
                listed += [
                    (table[entry], table[entry + 1] & 0xFFFF_FFFF, table[entry + 1] >> 48 & WRITE)
                    for entry in range(0, 2 * entries, 2)
                ]
            else:
                listed.append((address, length, flags & WRITE))
            if not flags & NEXT:
                break
            if count >= min(size, setup.most):
                raise RingError(f"a chain of over {count} descriptors")
            index = index + 1 if index + 1 < size else 0
        listed = [buffer for buffer in listed if buffer[1]]
        room = [(address, length) for address, length, write in listed if write]
        buffers = [(address, length) for address, length, _ in listed[: len(listed) - len(room)]]
        if any(write for _, _, write in listed[: len(buffers)]):
            raise RingError(WRONG_ORDER)
        chain.fill(dma, buffers, room)
        chain.identifier = word >> 32 & 0xFFFF
        chain.descriptors = count
        return chain

    def push(self, chain: Chain, written: int) -> None:
        """Give a chain back; `written` bytes of it are new."""
        self._ready()
        flags = (AVAIL | USED if self.used_wrap else 0) | (WRITE if written else 0)
        self._ring[2 * self.next_used + 1] = written | chain.identifier << 32 | flags << 48
        self.ring_area.wrote(DESCRIPTOR_SIZE * self.next_used + 8, 8)
        self.next_used += chain.descriptors
        if self.next_used >= self.size:
            self.next_used -= self.size
            self.used_wrap ^= 1
            self.signalled = (self.signalled - self.size) & 0xFFFF

    def wants_interrupt(self) -> bool:
        """Whether the driver wants to know of what was pushed since the last call."""
        self._ready()
        new, old = self.next_used, self.signalled
        if new == old:
            return False
        self.signalled = new
        self._fence()
        word = self._driver[0]
        flags = word >> 16 & 3
        if flags != EVENT_DESC or not self.setup.event_index:
            return flags != EVENT_DISABLE
        event = word & 0x7FFF
        if word >> 15 & 1 != self.used_wrap:
            event -= self.size
        return need_event(event, new, old)
