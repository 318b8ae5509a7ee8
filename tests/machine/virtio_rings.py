"""The driver's side of virtqueues (sections 2.7 and 2.8), and the memory that they are in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dbt.machine.virtio.spec import EVENT_IDX, INDIRECT_DESC

if TYPE_CHECKING:
    from tests.machine.virtio import Guest

Buffer = tuple[int, int, bool]  # address, length, whether the device writes it
TABLE = 16 * 16  # bytes of an ordinary indirect table


class Pool:
    """Guest memory that is given out, and all at once taken back."""

    def __init__(self, base: int, size: int) -> None:
        self.base = self.next = base
        self.end = base + size

    def take(self, length: int, align: int = 16) -> int:
        at = self.next + align - 1 & -align
        self.next = at + length
        assert self.next <= self.end
        return at


class Ring:
    """What both kinds have: memory, and who waits for what. `kicks` counts notifications."""

    def __init__(self, guest: Guest, index: int, size: int) -> None:
        self.guest = guest
        self.bus = guest.transport.bus
        self.index = index
        self.size = size
        self.event_index = bool(guest.accepted & EVENT_IDX)
        self.places: tuple[int, int, int] = self.allocate(guest.pool)
        self.tables = guest.pool.take(TABLE * size) if guest.accepted & INDIRECT_DESC else 0
        self.kicks = 0

    def allocate(self, pool: Pool) -> tuple[int, int, int]:
        raise NotImplementedError

    def add(self, buffers: Sequence[Buffer], *, indirect: bool = False) -> int:
        """Make a chain available; the result is what `used` will call it. The device is told by `kick`."""
        raise NotImplementedError

    def used(self) -> list[tuple[int, int]]:
        """(chain, written) of what the device has given back since the last call; asks to be told of the next."""
        raise NotImplementedError

    def wants_kick(self) -> bool:
        raise NotImplementedError

    def kick(self, *, always: bool = False) -> None:
        """Notify the device, if it wants that."""
        if self.wants_kick() or always:
            self.kicks += 1
            self.guest.transport.notify(self.index)

    def _table(self, slot: int, buffers: Sequence[Buffer], *, chained: bool) -> tuple[int, int]:
        """An indirect table: (address, length)."""
        length = 16 * len(buffers)
        at = self.tables + TABLE * slot if length <= TABLE else self.guest.pool.take(length)
        data = b""
        for number, (address, count, writable) in enumerate(buffers):
            more = chained and number + 1 < len(buffers)
            flags = (1 if more else 0) | (2 if writable else 0)
            tail = (flags, number + 1 if more else 0) if chained else (0, flags)  # flags, next; identifier, flags
            data += address.to_bytes(8, "little") + count.to_bytes(4, "little")
            data += b"".join(word.to_bytes(2, "little") for word in tail)
        self.bus.store(at, data)
        return at, length


class Split(Ring):
    """Section 2.7."""

    def __init__(self, guest: Guest, index: int, size: int) -> None:
        super().__init__(guest, index, size)
        self.free = list(range(size))
        self.taken: dict[int, list[int]] = {}
        self.available = self.seen = self.told = 0

    def allocate(self, pool: Pool) -> tuple[int, int, int]:
        size = self.size
        table = pool.take(16 * size, 4096)
        available = table + 16 * size
        pool.next = available + 6 + 2 * size
        used = pool.take(6 + 8 * size, 4096)  # one that fits legacy layouts as well
        self.bus.store(table, bytes(used + 6 + 8 * size - table))
        return table, available, used

    def add(self, buffers: Sequence[Buffer], *, indirect: bool = False) -> int:
        table, available, _ = self.places
        slots = [self.free.pop() for _ in range(1 if indirect else len(buffers))]
        head = slots[0]
        if indirect:
            address, length = self._table(head, buffers, chained=True)
            self._descriptor(table, head, address, length, 4, 0)
        else:
            for number, (address, length, writable) in enumerate(buffers):
                more = number + 1 < len(buffers)
                flags = (1 if more else 0) | (2 if writable else 0)
                self._descriptor(table, slots[number], address, length, flags, slots[number + 1] if more else 0)
        self.taken[head] = slots
        self.bus.write(available + 4 + 2 * (self.available % self.size), head, 2)
        self.available = (self.available + 1) & 0xFFFF
        return head

    def _descriptor(self, table: int, slot: int, address: int, length: int, flags: int, following: int) -> None:
        data = address.to_bytes(8, "little") + length.to_bytes(4, "little")
        self.bus.store(table + 16 * slot, data + flags.to_bytes(2, "little") + following.to_bytes(2, "little"))

    def wants_kick(self) -> bool:
        _, available, used = self.places
        self.bus.write(available + 2, self.available, 2)
        old, self.told = self.told, self.available
        if self.event_index:
            event = int.from_bytes(self.bus.load(used + 4 + 8 * self.size, 2), "little")
            return (self.available - event - 1) & 0xFFFF < (self.available - old) & 0xFFFF
        return not self.bus.load(used, 1)[0] & 1

    def used(self) -> list[tuple[int, int]]:
        _, available, used = self.places
        found = []
        end = int.from_bytes(self.bus.load(used + 2, 2), "little")
        assert (end - self.seen) & 0xFFFF <= len(self.taken)
        while self.seen != end:
            entry = self.bus.load(used + 4 + 8 * (self.seen % self.size), 8)
            head, written = int.from_bytes(entry[:4], "little"), int.from_bytes(entry[4:], "little")
            self.free += self.taken.pop(head)
            found.append((head, written))
            self.seen = (self.seen + 1) & 0xFFFF
        if self.event_index and found:
            self.bus.write(available + 4 + 2 * self.size, self.seen, 2)
        return found


class Packed(Ring):
    """Section 2.8."""

    def __init__(self, guest: Guest, index: int, size: int) -> None:
        super().__init__(guest, index, size)
        self.free = list(range(size))  # identifiers
        self.room = size
        self.taken: dict[int, int] = {}
        self.next, self.wrap = 0, 1
        self.seen, self.seen_wrap = 0, 1
        self.added = 0  # descriptors since the device was last told

    def allocate(self, pool: Pool) -> tuple[int, int, int]:
        ring, driver, device = pool.take(16 * self.size), pool.take(4, 4), pool.take(4, 4)
        self.bus.store(ring, bytes(device + 4 - ring))
        return ring, driver, device

    def add(self, buffers: Sequence[Buffer], *, indirect: bool = False) -> int:
        identifier = self.free.pop()
        if indirect:
            address, length = self._table(identifier, buffers, chained=False)
            parts = [(address, length, 4)]
        else:
            parts = [(address, length, 2 if writable else 0) for address, length, writable in buffers]
        assert len(parts) <= self.room
        first: tuple[int, bytes] | None = None
        for number, (address, length, kind) in enumerate(parts):
            flags = kind | (1 if number + 1 < len(parts) else 0) | (0x80 if self.wrap else 0x8000)
            at = self.places[0] + 16 * self.next
            body = address.to_bytes(8, "little") + length.to_bytes(4, "little") + identifier.to_bytes(2, "little")
            self.bus.store(at, body)
            if first is None:
                first = at + 14, flags.to_bytes(2, "little")
            else:
                self.bus.store(at + 14, flags.to_bytes(2, "little"))
            self.next += 1
            if self.next == self.size:
                self.next, self.wrap = 0, self.wrap ^ 1
        assert first is not None
        self.bus.store(*first)  # last: now it is available
        self.taken[identifier] = len(parts)
        self.room -= len(parts)
        self.added += len(parts)
        return identifier

    def wants_kick(self) -> bool:
        word = self.bus.load(self.places[2], 4)
        where, flags = int.from_bytes(word[:2], "little"), word[2] & 3
        added, self.added = self.added, 0
        if flags != 2:
            return flags == 0
        event = (where & 0x7FFF) - (self.size if where >> 15 != self.wrap else 0)
        return (self.next - event - 1) & 0xFFFF < added

    def used(self) -> list[tuple[int, int]]:
        found = []
        while True:
            entry = self.bus.load(self.places[0] + 16 * self.seen + 8, 8)
            flags = int.from_bytes(entry[6:], "little")
            if flags & 0x8080 != (0x8080 if self.seen_wrap else 0):
                break
            identifier, written = int.from_bytes(entry[4:6], "little"), int.from_bytes(entry[:4], "little")
            if identifier not in self.taken:
                break
            count = self.taken.pop(identifier)
            self.free.append(identifier)
            self.room += count
            found.append((identifier, written))
            self.seen += count
            if self.seen >= self.size:
                self.seen, self.seen_wrap = self.seen - self.size, self.seen_wrap ^ 1
        if self.event_index and found:
            self.bus.store(self.places[1], (self.seen | self.seen_wrap << 15 | 2 << 16).to_bytes(4, "little"))
        return found
