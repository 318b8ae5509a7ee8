"""virtio memory balloon (version 1.2, section 5.5): the guest lends its pages to the host and takes them back.

Pages that the driver puts into the balloon, or reports as free, are punched out of the memory's file: the host has them
back at once, and the guest reads zeroes if it touches them. Statistics of the guest are asked for by giving back the
one buffer that the driver has left for them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from dbt.machine.errors import DmaError
from dbt.machine.memory import PAGE
from dbt.machine.registers import RO, RW, Register, State, States, Window
from dbt.machine.virtio import CONFIG_SIZES, VirtioDevice
from dbt.machine.virtio.device import RINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.machine import Machine
    from dbt.machine.virtio import Chain, VirtQueue

STATS_VQ, DEFLATE_ON_OOM, PAGE_POISON, PAGE_REPORTING = 1 << 1, 1 << 2, 1 << 4, 1 << 5  # section 5.5.3
INFLATE, DEFLATE, STATISTICS, REPORTING = range(4)  # without free page hints, reporting is the fourth queue
NUMBERS = 64  # page numbers of one buffer in one go
STATISTIC = struct.Struct("<HQ")
NAMES = (
    "swap_in", "swap_out", "major_faults", "minor_faults", "free", "total", "available", "disk_caches",
    "hugetlb_allocations", "hugetlb_failures",
)  # fmt: skip
LARGEST = 1 << 32  # pages: what config registers can say


class VirtioBalloon(VirtioDevice):
    """virtio memory balloon (virtio 1.2, section 5.5). `on_statistics(numbers)`: the driver has answered."""

    DEVICE_ID = 5
    FEATURES = STATS_VQ | DEFLATE_ON_OOM | PAGE_POISON | PAGE_REPORTING
    KEPT = frozenset({"num_pages"})

    CONFIG = Window(16, CONFIG_SIZES, partial=True, placed=False)
    num_pages = Register(0, RO, "pages that the host wants to have in the balloon")
    actual = Register(4, RW, "pages that are in it")
    free_page_hint_cmd_id = Register(8, RO, "not offered")
    poison_val = Register(12, RW, "what the guest fills free pages with")

    done = States(2, bits=33)  # bytes of the first inflate and deflate buffer that are dealt with
    held = State(bits=17)  # the statistics buffer's place in its ring, and one

    def __init__(
        self,
        name: str,
        machine: Machine,
        on_statistics: Callable[[dict[str, int]], None] | None = None,
        *,
        rings: int = RINGS,
    ) -> None:
        super().__init__(name, machine, (128, 128, 2, 32), rings=rings)
        self.on_statistics = on_statistics
        self.statistics: dict[str, int] = {}
        self._buffer: Chain | None = None

    def on_reset(self) -> None:
        """The statistics buffer goes back."""
        self._let_go()
        super().on_reset()

    def _let_go(self) -> None:
        if self._buffer is not None:
            self.queues[STATISTICS].drop(self._buffer)
        self._buffer, self.held = None, 0

    def reset_queue(self, queue: VirtQueue) -> None:
        """One queue only."""
        if queue.index == STATISTICS:
            self._let_go()
        elif queue.index < STATISTICS:
            self.done[queue.index] = 0
        super().reset_queue(queue)

    def on_restore(self) -> None:
        """The statistics buffer is looked up when it is needed: memory may not be restored yet."""
        self._buffer = None

    # What the host does

    def set_target(self, size: int) -> None:
        """Ask the driver to have `size` bytes in the balloon."""
        self.num_pages = min(max(size // PAGE, 0), LARGEST - 1)
        self.config_changed()

    def ask_statistics(self) -> bool:
        """Ask the driver for statistics; False if it has left no buffer to ask with."""
        queue = self.queues[STATISTICS]
        if not (self.held and queue.ready and self.running):
            return False
        buffer = self._buffer or queue.again(self.held - 1)
        self._buffer, self.held = None, 0
        if buffer is None:
            return False
        queue.push(buffer)
        queue.notify()
        return True

    # Queues

    def on_notify(self, queue: VirtQueue) -> None:
        """Pages, or statistics."""
        if queue.index <= DEFLATE:
            self._pages(queue)
        elif queue.index == STATISTICS:
            self._statistics(queue)
        else:
            for chain in self.chains(queue, 1):
                if not (self.has(PAGE_POISON) and self.poison_val):  # they would not read as zeroes
                    for memory, at, count in chain.places:
                        memory.discard(at, count)
                queue.push(chain)
            queue.notify()

    def _pages(self, queue: VirtQueue) -> None:
        """Buffers of page numbers: pages that come out of the balloon need nothing, they are there when touched."""
        index = queue.index
        for chain in self.chains(queue, 1):
            start = self.done[index]
            data = chain.read(start, 4 * NUMBERS) if index == INFLATE else b""
            self._give_back(data)
            if index == INFLATE and start + len(data) < chain.readable_length:
                self.done[index] = start + len(data)
                queue.unpop(chain)
                self.later(queue)
                break
            self.done[index] = 0
            queue.push(chain)
        queue.notify()

    def _give_back(self, data: bytes) -> None:
        """Let the host have pages; neighbours go together."""
        numbers = sorted(set(memoryview(data[: len(data) & ~3]).cast("I")))
        start = 0
        for end in range(1, len(numbers) + 1):
            if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
                try:
                    pieces = self.dma.pieces(numbers[start] * PAGE, (end - start) * PAGE, writable=True)
                except DmaError:
                    pieces = []  # it is logged
                for memory, at, count in pieces:
                    memory.discard(at, count)
                start = end

    def _statistics(self, queue: VirtQueue) -> None:
        for chain in self.chains(queue, 4):
            if self.held:
                self.guest_error("there is more than one buffer for statistics")
                queue.push(chain)
                continue
            self._buffer, self.held = chain, chain.token + 1
            data = chain.read(0, STATISTIC.size * len(NAMES) * 2)
            data = data[: len(data) // STATISTIC.size * STATISTIC.size]
            self.statistics = {NAMES[tag]: value for tag, value in STATISTIC.iter_unpack(data) if tag < len(NAMES)}
            if self.statistics and self.on_statistics is not None:
                self.on_statistics(self.statistics)
        queue.notify()
