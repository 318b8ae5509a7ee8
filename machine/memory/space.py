"""Address spaces: memory and I/O ports alike, as CPUs and devices see them.

`read` and `write` are one access of a CPU: look-up, byte order, sizes, dispatch. RAM is reached without a lock; a
device is entered under the machine's lock, one at a time, and never from within itself (DESIGN, section 13).
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from enum import Enum
from typing import TYPE_CHECKING

from dbt.machine.errors import BusError
from dbt.machine.log import GUEST_ERROR, UNASSIGNED, Log
from dbt.machine.memory.access import CPU0, DECODE_ERROR, DEVICE_ERROR, MASKS, OK, Attributes, Transaction
from dbt.machine.memory.extents import Extents, union
from dbt.machine.memory.flat import FlatView, Section, flatten, repaint
from dbt.machine.memory.regions import Alias, Container, Region

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    Listener = Callable[[tuple[Section, ...], tuple[Section, ...]], None]


class Unassigned(Enum):
    """What a bus does with accesses that nobody takes. Writes are dropped, unless it is an error."""

    ONES = "ones"  # lines that nobody drives, pulled up: ISA and PCI
    ZEROES = "zeroes"
    ERROR = "error"  # an external abort: AMBA


class AddressSpace:
    """What is at which address, from the graph below `root`; `bits` is the width of an address."""

    def __init__(
        self,
        name: str,
        root: Region,
        *,
        bits: int = 64,
        unassigned: Unassigned = Unassigned.ERROR,
        lock: AbstractContextManager[object] | None = None,
        log: Log | None = None,
    ) -> None:
        self.name = name
        self.root = root
        self.size = 1 << bits
        self.unassigned = unassigned
        self.lock = threading.RLock() if lock is None else lock
        self.log = log or Log()
        self._listeners: list[Listener] = []
        self._stale: Extents = ()  # what could not be shown
        self.view: FlatView = flatten(root, self.size)
        root.viewed(self, True)

    def close(self) -> None:
        """Follow the graph no more."""
        self.root.viewed(self, False)

    # Views and who wants to know of them

    def update(self, extents: Extents) -> None:
        """Show these addresses anew, and tell listeners what has changed. Regions call this.

        MapError if there are too many regions: the view stays, and what was to be shown is tried again the next time.
        """
        self._stale = union(self._stale, extents)
        self.view, removed, added = repaint(self.view, self.root, self._stale)
        self._stale = ()
        if removed or added:
            for listener in self._listeners:
                listener(removed, added)

    def listen(self, listener: Listener) -> None:
        """Call `listener(removed, added)` after each change, and now with all that is there."""
        self._listeners.append(listener)
        if sections := self.view.sections:
            listener((), sections)

    def unlisten(self, listener: Listener) -> None:
        """Call it no more."""
        self._listeners.remove(listener)

    # Accesses

    def read(self, address: int, size: int, attributes: Attributes = CPU0) -> int:
        """`size` (1, 2, 4, 8) bytes at `address` as a number. BusError where the bus answers so."""
        view = self.view
        section = view.targets[bisect_right(view.starts, address) - 1]
        if section is not None and address + size <= section.end and size in MASKS:
            offset = address + section.delta
            if section.reads_direct:
                assert section.memory is not None
                return int.from_bytes(section.memory.view[offset : offset + size], "little")
            assert section.device is not None
            try:
                with self.lock:
                    return section.device.read(offset, size, attributes)
            except BusError as error:
                return self._refused(BusError(address, size, write=False, reason=error.reason))
        return self._read_pieces(address, size, attributes)

    def write(self, address: int, size: int, value: int, attributes: Attributes = CPU0) -> None:
        """Store the low `size` (1, 2, 4, 8) bytes of `value` at `address`. BusError where the bus answers so."""
        view = self.view
        section = view.targets[bisect_right(view.starts, address) - 1]
        if section is not None and address + size <= section.end and size in MASKS:
            offset = address + section.delta
            if section.writes_direct:
                memory = section.memory
                assert memory is not None
                memory.view[offset : offset + size] = (value & MASKS[size]).to_bytes(size, "little")
                if memory.observers:
                    memory.written(offset, size)
            elif section.device is None or section.readonly:
                self.log.say(GUEST_ERROR, section.region.name, "is read-only", f": write at {address:#x}")
            else:
                try:
                    with self.lock:
                        section.device.write(offset, size, value, attributes)
                except BusError as error:
                    self._refused(BusError(address, size, write=True, reason=error.reason))
            return
        self._write_pieces(address, size, value, attributes)

    def perform(self, transaction: Transaction) -> None:
        """The access of a CPU's slow path: `data` and `result` are filled in, and nothing is raised."""
        try:
            if transaction.write:
                self.write(transaction.address, transaction.size, transaction.data, transaction.attributes)
            else:
                transaction.data = self.read(transaction.address, transaction.size, transaction.attributes)
            transaction.result = OK
        except BusError as error:
            transaction.data = 0
            transaction.result = DECODE_ERROR if self.view.find(error.address) is None else DEVICE_ERROR

    def _pieces(self, address: int, size: int) -> Iterator[tuple[int, int, Section | None]]:
        """An access that is not within one section, as aligned pieces that are: (address, size, section)."""
        if size not in MASKS:
            raise ValueError(f"an access of {size} bytes: 1, 2, 4 or 8 are possible")
        if address < 0:
            raise ValueError(f"an access at {address}: addresses are not negative")
        at, end = address, address + size
        while at < end:
            section = self.view.find(at)
            limit = min(end, self.view.hole_end(at) if section is None and at < self.size else end)
            if section is not None:
                limit = min(limit, section.end)
                step = min(at & -at or size, 1 << (limit - at).bit_length() - 1)
            else:
                step = limit - at
            yield at, step, section
            at += step

    def _read_pieces(self, address: int, size: int, attributes: Attributes) -> int:
        value = 0
        for at, step, section in self._pieces(address, size):
            if section is None:
                part = self._nobody(BusError(at, step, write=False, reason="nothing is there"))
            else:
                part = self.read(at, step, attributes)
            value |= part << 8 * (at - address)
        return value

    def _write_pieces(self, address: int, size: int, value: int, attributes: Attributes) -> None:
        for at, step, section in self._pieces(address, size):
            if section is None:
                self._nobody(BusError(at, step, write=True, reason="nothing is there"))
            else:
                self.write(at, step, value >> 8 * (at - address), attributes)

    def _nobody(self, error: BusError) -> int:
        page = error.address & ~0xFFF
        self.log.say(UNASSIGNED, self.name, f"{'write' if error.write else 'read'} in page {page:#x}", f": {error}")
        return self._answer(error)

    def _refused(self, error: BusError) -> int:
        self.log.say(GUEST_ERROR, self.name, error.reason, f": {error}")
        return self._answer(error)

    def _answer(self, error: BusError) -> int:
        if self.unassigned is Unassigned.ERROR:
            raise error
        return (1 << 8 * error.size) - 1 if self.unassigned is Unassigned.ONES else 0

    # Memory as bytes

    def spans(self, address: int, length: int, *, writable: bool) -> list[tuple[Section, int, int]]:
        """(section, offset in its memory, length) of direct memory that `length` bytes at `address` are made of.

        BusError at the first byte that is none, or is not to be written.
        """
        found: list[tuple[Section, int, int]] = []
        view, end = self.view, address + length
        if address < 0 or length < 0:
            raise BusError(address, length, write=writable, reason="there is no such address")
        while address < end:
            section = view.find(address)
            if section is None or not (section.writes_direct if writable else section.reads_direct):
                reason = "nothing is there" if section is None else f"{section.region.name} is not memory for that"
                raise BusError(address, end - address, write=writable, reason=reason)
            count = min(end, section.end) - address
            found.append((section, address + section.delta, count))
            address += count
        return found

    def peek(self, address: int, length: int) -> bytes:
        """The content of memory, for tools: devices are not touched. BusError where there is no memory."""
        parts = self.spans(address, length, writable=False)
        return b"".join(section.memory.view[at : at + count] for section, at, count in parts if section.memory)


def overlay(
    name: str, system: AddressSpace, local: Iterable[tuple[int, Region]], *, unassigned: Unassigned | None = None
) -> AddressSpace:
    """A CPU's own space: all of `system`, and over it the CPU's local (address, region) such as its register banks."""
    root = Container(name, min(system.size, 1 << 64))
    root.place(Alias(f"{name}-system", system.root), 0, priority=-1)
    for at, region in local:
        root.place(region, at)
    return AddressSpace(
        name,
        root,
        bits=system.size.bit_length() - 1,
        unassigned=unassigned or system.unassigned,
        lock=system.lock,
        log=system.log,
    )
