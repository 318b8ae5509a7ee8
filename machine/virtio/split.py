"""Split virtqueues (section 2.7): descriptor table, available ring and used ring, in Python.

The three areas are mapped when they are first needed, and again when the memory map changes. Indexes run freely, modulo
2**16. While there is something to do the driver need not say that there is more: notifications are wanted again, by
flag or event index, when `pop` finds nothing.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dbt.machine.errors import RingError
from dbt.machine.virtio.chain import WRONG_ORDER, Chain
from dbt.machine.virtio.spec import DESCRIPTOR_SIZE, INDIRECT, NEXT, NO_INTERRUPT, WRITE, need_event, split_sizes

if TYPE_CHECKING:
    from dbt.machine.memory import DmaPort, Memory
    from dbt.machine.virtio.chain import Runs
    from dbt.machine.virtio.queue import Setup

WRAP = 0xFFFF


class Area:
    """A part of a ring: one piece of memory, whose writes are told to its observers."""

    __slots__ = ("at", "memory", "view")

    def __init__(self, dma: DmaPort, what: str, address: int, length: int, align: int, *, writable: bool) -> None:
        if address & align - 1:
            raise RingError(f"{what} at {address:#x} is not aligned to {align} bytes")
        pieces = dma.pieces(address, length, writable=writable)
        self.memory: Memory = pieces[0][0]
        self.at = pieces[0][1]
        end = self.at
        for memory, at, count in pieces:
            if memory is not self.memory or at != end:
                raise RingError(f"{what} at {address:#x} is not in one piece of memory")
            end += count
        self.view = self.memory.view[self.at : end]

    def wrote(self, offset: int, length: int) -> None:
        """Tell observers."""
        if self.memory.observers:
            self.memory.written(self.at + offset, length)

    def wrote_all(self) -> None:
        """Tell observers, of the whole."""
        if self.memory.observers:
            self.memory.written(self.at, len(self.view))

    def host(self) -> int:
        """Where this process has it, for native code."""
        return self.memory.address() + self.at


class Fence:
    """What was stored before is seen by others before what is loaded after.

    CPython has no fence; taking a free lock is an atomic exchange, which is one on all hosts.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            pass


class SplitRing:
    """See the module. RingError and DmaError come out of `pop`, `push` and `wants_interrupt`."""

    STATE = ("next_avail", "next_used", "signalled")

    def __init__(self, dma: DmaPort, setup: Setup) -> None:
        self.dma = dma
        self.setup = setup
        self.size = setup.size
        self.next_avail = 0  # the next entry of the available ring to look at
        self.next_used = 0  # used.idx
        self.signalled = 0  # used.idx when an interrupt was last thought about
        self._seen = 0  # avail.idx as it was last read
        self._quiet = False  # the driver was told not to notify
        self._view: object = None
        self._fence = Fence()

    def save(self) -> dict[str, int]:
        """The indexes."""
        return {name: getattr(self, name) for name in self.STATE}

    def load(self, saved: dict[str, int]) -> None:
        """Go on from saved indexes; RingError if they cannot be."""
        if not all(0 <= saved[name] <= WRAP for name in self.STATE):
            raise RingError("saved indexes have over 16 bits")
        for name in self.STATE:
            setattr(self, name, saved[name])
        self._seen = self.next_avail

    def _attach(self) -> None:
        """Map the areas."""
        setup, size, dma = self.setup, self.size, self.dma
        table, available, used = split_sizes(size)
        if not setup.event_index:
            available, used = available - 2, used - 2
        self._view = None
        self.table_area = Area(dma, "the descriptor table", setup.descriptors, table, 16, writable=False)
        self._table = self.table_area.view.cast("Q")
        self.avail_area = Area(dma, "the available ring", setup.driver, available, 2, writable=False)
        self._avail = self.avail_area.view.cast("H")
        self.used_area = Area(dma, "the used ring", setup.device, used, 4, writable=True)
        self._used = self.used_area.view[: 4 + 8 * size].cast("I")
        self._used_words = self.used_area.view.cast("H")
        self._view = dma.space.view

    def _ready(self) -> None:
        if self._view is not self.dma.space.view or not self.dma.enabled:
            self._attach()

    def pop(self) -> Chain | None:
        """The next request; None if there is none, and then the driver will notify."""
        self._ready()
        last = self.next_avail
        if last == self._seen and not self._look(last):
            return None
        if not self._quiet:
            self._hush()
        self.next_avail = (last + 1) & WRAP
        return self._chain(self._avail[2 + last % self.size])

    def _look(self, last: int) -> bool:
        """Whether there are new entries; if not, ask to be told."""
        self._seen = self._avail[1]
        if self._seen == last:
            self._ask(last)
            self._fence()
            self._seen = self._avail[1]
        if (self._seen - last) & WRAP > self.size:
            raise RingError(f"avail.idx is {self._seen:#x}, {self.size} entries behind {last:#x} at most")
        return self._seen != last

    def _hush(self) -> None:
        self._quiet = True
        if not self.setup.event_index:
            self._used_words[0] = 1
            self.used_area.wrote(0, 2)

    def _ask(self, last: int) -> None:
        self._quiet = False
        if self.setup.event_index:
            self._used_words[2 + 4 * self.size] = last
            self.used_area.wrote(4 + 8 * self.size, 2)
        else:
            self._used_words[0] = 0
            self.used_area.wrote(0, 2)

    def again(self, token: int) -> Chain:
        """A chain that was popped before the state was saved."""
        self._ready()
        return self._chain(token)

    def unpop(self, chain: Chain) -> None:
        """Put back what was popped last."""
        self.next_avail = (self.next_avail - 1) & WRAP
        chain.release()

    def _chain(self, head: int) -> Chain:
        chain = Chain(self, head)
        dma, setup = self.dma, self.setup
        table: memoryview | list[int] = self._table
        entries, index = self.size, head
        left, indirect = setup.most, setup.indirect
        buffers: Runs = []
        room: Runs = []
        while True:
            if index >= entries:
                raise RingError(f"descriptor {index} of {entries}")
            address, word = table[2 * index], table[2 * index + 1]
            length, flags = word & 0xFFFF_FFFF, word >> 32
            if flags & INDIRECT:
                if not indirect or flags & NEXT:
                    raise RingError("an indirect descriptor where none may be")
                table, entries = indirect_table(dma, address, length, setup.most)
                index, indirect = 0, False
                continue
            left -= 1
            if left < 0:
                raise RingError(f"a chain of over {setup.most} descriptors")
            if not length:
                pass  # nothing, in whichever order
            elif flags & WRITE:
                room.append((address, length))
            elif room:
                raise RingError(WRONG_ORDER)
            else:
                buffers.append((address, length))
            if not flags & NEXT:
                chain.fill(dma, buffers, room)
                return chain
            index = word >> 48

    def push(self, chain: Chain, written: int) -> None:
        """Give a chain back; `written` bytes of it are new."""
        self._ready()
        slot = 1 + 2 * (self.next_used % self.size)
        self._used[slot] = chain.identifier
        self._used[slot + 1] = written
        self.used_area.wrote(4 * slot, 8)
        self.next_used = (self.next_used + 1) & WRAP
        self._used_words[1] = self.next_used  # x86 and CPython's stores keep the order
        self.used_area.wrote(2, 2)

    def wants_interrupt(self) -> bool:
        """Whether the driver wants to know of what was pushed since the last call."""
        self._ready()
        new, old = self.next_used, self.signalled
        if new == old:
            return False
        self.signalled = new
        self._fence()
        if self.setup.event_index:
            return need_event(self._avail[2 + self.size], new, old)
        return not self._avail[0] & NO_INTERRUPT


def indirect_table(dma: DmaPort, address: int, length: int, most: int) -> tuple[list[int], int]:
    """A copy of an indirect table, two words of 64 bits for each descriptor, and the number of its entries."""
    entries, rest = divmod(length, DESCRIPTOR_SIZE)
    if rest or not 0 < entries <= most:
        raise RingError(f"an indirect table of {length} bytes")
    return memoryview(dma.dma_read(address, length)).cast("Q").tolist(), entries
