"""Rings whose `pop`, `push` and `wants_interrupt` are native (machine/native/virtqueue.py), behind the same interface.

All indexes are in a struct that both share: what native code finds unusual is done again by the Python methods, which
these classes inherit.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from dbt.machine.native.virtqueue import (
    EVENTS,
    FOUND,
    INDIRECT_OFFERED,
    NONE,
    READABLE,
    WRITABLE,
    Item,
    Queue,
    Section,
    packed_pop,
    packed_push,
    packed_wants,
    split_pop,
    split_push,
    split_wants,
)  # fmt: skip
from dbt.machine.virtio.chain import Chain
from dbt.machine.virtio.packed import PackedRing
from dbt.machine.virtio.split import SplitRing

if TYPE_CHECKING:
    from dbt.machine.memory import DmaPort, Memory
    from dbt.machine.native.builtin import Builtins
    from dbt.machine.virtio.queue import Setup

U64 = ctypes.c_uint64
WORDS = Queue.size // 8
TOKEN, IDENTIFIER, DESCRIPTORS, COUNT, READABLE_BYTES, WRITABLE_BYTES = (
    Queue.offset(name) // 8 for name in ("token", "identifier", "descriptors", "count", "readable", "writable")
)


def _word(name: str) -> Any:  # noqa: ANN401 - a property
    """An index of the ring that is in the struct."""
    index = Queue.offset(name) // 8

    def get(self: _Shared) -> int:
        return self.words[index]

    def put(self: _Shared, value: int) -> None:
        self.words[index] = value

    return property(get, put)


class _Shared:
    """The struct, the items and the sections of one ring."""

    def share(self, setup: Setup) -> None:
        """Make them, with all indexes 0."""
        room = 2 * setup.most
        self._struct = (U64 * WORDS)()
        self._items = (U64 * (room * Item.size // 8))()
        self.address = ctypes.addressof(self._struct)
        self.words = memoryview(self._struct).cast("B").cast("Q")
        self.items = memoryview(self._items).cast("B").cast("Q")
        self.shown: list[tuple[Memory, int]] = []  # of each section: its memory, and what makes an address an offset
        queue = Queue.at(self.address)
        queue.size, queue.most, queue.room = setup.size, setup.most, room
        queue.items = ctypes.addressof(self._items)  # type: ignore[assignment]
        queue.features = (INDIRECT_OFFERED if setup.indirect else 0) | (EVENTS if setup.event_index else 0)

    def show(self, dma: DmaPort, table: int, driver: int, device: int) -> None:
        """Where the areas are, and which memory there is."""
        sections = [section for section in dma.space.view.sections if section.memory is not None]
        self._sections = (U64 * (max(len(sections), 1) * Section.size // 8))()
        words = []
        self.shown = []
        self._kept = []
        for section in sections:
            memory = section.memory
            assert memory is not None
            flags = (READABLE if section.reads_direct else 0) | (WRITABLE if section.writes_direct else 0)
            words += [section.start, section.end, memory.address() + section.offset, flags]
            self.shown.append((memory, section.delta))
            self._kept.append(memory.view[:0])  # so that it stays mapped
        for number, word in enumerate(words):
            self._sections[number] = word
        queue = Queue.at(self.address)
        queue.sections = ctypes.addressof(self._sections)  # type: ignore[assignment]
        queue.n_sections, queue.hint = len(sections), 0
        queue.table, queue.driver, queue.device = table, driver, device

    def chain(self) -> Chain:
        """What was popped."""
        words = self.words
        chain = Chain(self, words[TOKEN])
        chain.identifier, chain.descriptors = words[IDENTIFIER], words[DESCRIPTORS]
        chain.readable_length, chain.writable_length = words[READABLE_BYTES], words[WRITABLE_BYTES]
        items = iter(self.items[: 3 * words[COUNT]].tolist())
        shown = self.shown
        for where, address, length in zip(items, items, items, strict=True):
            memory, delta = shown[where >> 1]
            at = address + delta
            if where & 1:
                chain.writable.append(memory.view[at : at + length])
                chain.places.append((memory, at, length))
            else:
                chain.readable.append(memory.view[at : at + length].toreadonly())
        return chain


class NativeSplitRing(_Shared, SplitRing):
    """A split ring, native."""

    next_avail, next_used, signalled = _word("next_avail"), _word("next_used"), _word("signalled")
    _seen, _quiet = _word("seen"), _word("quiet")

    def __init__(self, builtins: Builtins, dma: DmaPort, setup: Setup) -> None:
        self.share(setup)
        self._pop, self._push, self._wants = (
            builtins.bind(function, self.address) for function in (split_pop, split_push, split_wants)
        )
        super().__init__(dma, setup)

    def _attach(self) -> None:
        super()._attach()
        self._view = None
        self.show(self.dma, self.table_area.host(), self.avail_area.host(), self.used_area.host())
        self._view = self.dma.space.view

    def pop(self) -> Chain | None:
        """As SplitRing has it."""
        self._ready()
        found = self._pop()
        self.used_area.wrote_all()
        if found == FOUND:
            return self.chain()
        return None if found == NONE else super().pop()

    def push(self, chain: Chain, written: int) -> None:
        """As SplitRing has it."""
        self._ready()
        self._push(chain.identifier, written)
        self.used_area.wrote_all()

    def wants_interrupt(self) -> bool:
        """As SplitRing has it."""
        self._ready()
        return bool(self._wants())


class NativePackedRing(_Shared, PackedRing):
    """A packed ring, native."""

    next_avail, next_used, signalled = _word("next_avail"), _word("next_used"), _word("signalled")
    avail_wrap, used_wrap, _quiet = _word("avail_wrap"), _word("used_wrap"), _word("quiet")

    def __init__(self, builtins: Builtins, dma: DmaPort, setup: Setup) -> None:
        self.share(setup)
        self._pop, self._push, self._wants = (
            builtins.bind(function, self.address) for function in (packed_pop, packed_push, packed_wants)
        )
        super().__init__(dma, setup)

    def _attach(self) -> None:
        super()._attach()
        self._view = None
        self.show(self.dma, self.ring_area.host(), self.driver_area.host(), self.device_area.host())
        self._view = self.dma.space.view

    def pop(self) -> Chain | None:
        """As PackedRing has it."""
        self._ready()
        found = self._pop()
        self.device_area.wrote_all()
        if found == FOUND:
            return self.chain()
        return None if found == NONE else super().pop()

    def push(self, chain: Chain, written: int) -> None:
        """As PackedRing has it."""
        self._ready()
        self._push(chain.identifier, chain.descriptors, written)
        self.ring_area.wrote_all()

    def wants_interrupt(self) -> bool:
        """As PackedRing has it."""
        self._ready()
        return bool(self._wants())
