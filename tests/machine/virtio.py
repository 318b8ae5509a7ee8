"""A guest's side of virtio (version 1.2), written from the specification: transports and both kinds of rings.

    guest = Guest(Mmio(bus, base), Pool(memory, size))
    guest.begin(features)                       # section 3.1.1, up to FEATURES_OK
    queue = guest.queue(0, 64)                  # split, or packed if that was accepted
    guest.go()                                  # DRIVER_OK
    written, data = guest.request(queue, [header], [512, 1])

Everything goes through a Bus (qtest.py), so the same driver runs on QEMU's devices. Reads whose number depends on time
(polling) are `load`s, which are not noted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from dbt.machine.virtio.mmio import VirtioMmio
from dbt.machine.virtio.pci import VirtioPci
from dbt.machine.virtio.spec import (
    ACKNOWLEDGE,
    DRIVER,
    DRIVER_OK,
    EVENT_IDX,
    FEATURES_OK,
    INDIRECT_DESC,
    RING_PACKED,
    VERSION_1,
)

from tests.machine import pci
from tests.machine.qtest import Ours

if TYPE_CHECKING:
    from dbt.machine.machine import Machine
    from dbt.machine.virtio import VirtioDevice

    from tests.machine.pci import Function
    from tests.machine.qtest import Bus

Buffer = tuple[int, int, bool]  # address, length, whether the device writes it
PATIENCE = 10  # seconds
UNUSED = 1 << 30  # section 6.3: QEMU finds out with it who accepts everything
TABLE = 16 * 16  # bytes of an indirect table


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


KINDS = ("mmio", "mmio-legacy", "pci", "pci-legacy")
MMIO_AT = 0x0A00_0000


def connect(kind: str, make: Callable[[Machine], VirtioDevice], memory: int = 8 << 20) -> tuple[Guest, VirtioDevice]:
    """A machine with one device behind a transport, and its driver before `begin`."""
    made, bus = pci.machine()
    ours = Ours(made)
    device = make(made)
    transport: Transport
    if kind.startswith("mmio"):
        made.place(VirtioMmio("mmio", made, device=device, legacy=kind != "mmio"), MMIO_AT)
        made.reset()
        transport = Mmio(ours, MMIO_AT, legacy=kind != "mmio")
        if transport.legacy:
            transport.write(0x28, 4096)
    else:
        VirtioPci("pci-function", made, device, bus=bus, slot=3)
        made.reset()
        function = pci.Function(pci.Config(ours, pci.ECAM), (0, 3, 0))
        function.place()
        transport = PciModern(function) if kind == "pci" else PciLegacy(function)
    return Guest(transport, Pool(pci.RAM_AT, memory), lambda: made.advance(0)), device


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
        length, at = 16 * len(buffers), self.tables + TABLE * slot
        assert length <= TABLE
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


class Guest:
    """A driver. `step` lets the device go on (timers, other threads) while it waits."""

    def __init__(self, transport: Transport, pool: Pool, step: Callable[[], None] = lambda: None) -> None:
        self.transport = transport
        self.bus = transport.bus
        self.pool = pool
        self.step = step
        self.accepted = 0

    def reset(self) -> None:
        self.transport.set_status(0)
        self.until(lambda: self.transport.status() == 0)

    def begin(self, wanted: int = ~0) -> int:
        """Reset, find the driver, negotiate; the result is what was accepted. `wanted`: of what is offered."""
        transport = self.transport
        transport.set_status(0)
        assert transport.status() == 0
        transport.set_status(ACKNOWLEDGE)
        transport.set_status(ACKNOWLEDGE | DRIVER)
        offered = transport.features()
        self.accepted = offered & (wanted | (0 if transport.legacy else VERSION_1)) & ~UNUSED
        transport.accept(self.accepted)
        if not transport.legacy:
            transport.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK)
            assert transport.status() == ACKNOWLEDGE | DRIVER | FEATURES_OK
        return self.accepted

    def queue(self, index: int, size: int) -> Ring:
        most = self.transport.most(index)
        assert most
        kind = Packed if self.accepted & RING_PACKED else Split
        ring = kind(self, index, min(size, most))
        self.transport.set_queue(index, ring.size, ring.places)
        return ring

    def go(self) -> None:
        self.transport.set_status(self.transport.status() | DRIVER_OK)

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            self.step()
            assert time.monotonic() < end
            time.sleep(0.0005)

    def wait(self, ring: Ring, count: int) -> list[tuple[int, int]]:
        """Until `count` chains have come back."""
        found: list[tuple[int, int]] = []

        def enough() -> bool:
            found.extend(ring.used())
            return len(found) >= count

        self.until(enough)
        return found

    def buffers(self, out: Sequence[bytes], into: Sequence[int]) -> list[Buffer]:
        """Memory with data for the device, and memory for its answers."""
        buffers = []
        for data in out:
            at = self.pool.take(len(data))
            self.bus.store(at, data)
            buffers.append((at, len(data), False))
        for length in into:
            at = self.pool.take(length)
            self.bus.store(at, b"\xee" * length)
            buffers.append((at, length, True))
        return buffers

    def request(
        self, ring: Ring, out: Sequence[bytes], into: Sequence[int] = (), *, indirect: bool | None = None
    ) -> tuple[int, bytes]:
        """One request, and waiting for it: how many bytes the device says it wrote, and all that it may have."""
        kept = self.pool.next
        buffers = self.buffers(out, into)
        if indirect is None:
            indirect = bool(self.accepted & INDIRECT_DESC) and len(buffers) > 1
        chain = ring.add(buffers, indirect=indirect)
        ring.kick()
        ((found, written),) = self.wait(ring, 1)
        assert found == chain
        data = b"".join(self.bus.load(at, length) for at, length, writable in buffers if writable)
        self.pool.next = kept
        return written, data
