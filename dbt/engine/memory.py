"""The address space of a guest: one reserved range of the host's, in which guest pages are mapped directly.

A guest address becomes a host address as (address & mask) + base (DESIGN, section 6). The range is reserved without
access, with guard zones at both ends, so whatever a guest computes, an access lands in its own pages or faults. The
bits of the mask above the range stay set where they lead to addresses that no host has in user space (bits 47 to 55):
a pointer with such bits faults, and only Arm's top byte and the bits from the size of the range up to 46 are ignored.
That is a limit: to have these fault as well would take a range of 2**47 bytes, which is all that the host has.
"""

from __future__ import annotations

import bisect
import ctypes
import errno

from dbt.errors import GuestFault, UserError

from . import hostmem
from .hostmem import MAP_ANONYMOUS, MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, PROT_EXEC, PROT_NONE, PROT_READ, PROT_WRITE
from .layout import PAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

GUARD: Final = 1 << 20  # bytes at both ends at least: more than the largest immediate offset of an addressing mode
GUARD_PART: Final = 8  # where the range has 2**n bytes they have 2**(n - 8): regions let them absorb indices as well
LARGEST: Final = 1 << 46  # bytes of the range of an address space, if the host grants it
RANGE_BITS: Final = (46, 44, 42, 40, 38)  # the largest that the host grants (RLIMIT_AS may forbid the first ones)
CANONICAL_BITS: Final = 47  # host user addresses are below 2**47
TAG_SHIFT: Final = 56  # Arm's top-byte-ignore


class Area:
    """One mapping: [start, end), protection as the guest sees it, and where its bytes come from."""

    __slots__ = ("backing", "end", "name", "offset", "prot", "shared", "start")

    def __init__(self, start: int, end: int, prot: int, name: str, offset: int, *, shared: bool) -> None:
        self.start = start
        self.end = end
        self.prot = prot
        self.name = name  # of the file; '' for anonymous memory, '[heap]', '[stack]'
        self.offset = offset  # in the file, of `start`
        self.shared = shared
        self.backing: tuple[Any, int] | None = None  # a snapshot's pages (dbt/control/pages.py), offset of `start`

    def part(self, start: int, end: int) -> Area:
        """The part of this mapping between two addresses inside of it."""
        part = Area(start, end, self.prot, self.name, self.offset + start - self.start, shared=self.shared)
        if self.backing is not None:
            part.backing = (self.backing[0], self.backing[1] + start - self.start)
        return part

    @property
    def solid(self) -> bool:
        """Whether its pages are there for certain: a file may be truncated under a mapping."""
        return not self.name or self.name[0] == "["


class AddressSpace:
    """Guest memory. Addresses are guest addresses below `limit`; sizes are in bytes.

    `wanted`: bits of addresses; None: as many as the host grants. Raises UserError where it does not grant so many.
    """

    def __init__(self, wanted: int | None = None) -> None:
        for bits in RANGE_BITS if wanted is None else (wanted,):
            guard = max(GUARD, 1 << bits >> GUARD_PART)
            size = (1 << bits) + 2 * guard
            try:
                start = hostmem.map_memory(size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)
                break
            except OSError:
                continue
        else:
            raise UserError(
                f"the host grants no address range of 2**{bits} bytes for the guest",
                "Raise the limit on virtual memory (ulimit -v unlimited)."
                if bits <= RANGE_BITS[-1]
                else "Other CPUs of this process may have it: ask for fewer bits.",
            )
        self._reserved = (start, size)
        self.base = start + guard
        self.limit = 1 << bits
        self.index_bits = (guard - (GUARD >> 1)).bit_length() - 1  # of what may be added to an address that is masked
        aliasing = ((1 << CANONICAL_BITS) - 1) & ~(self.limit - 1)
        self.mask = ((1 << TAG_SHIFT) - 1) & ~aliasing
        self.areas: list[Area] = []
        self._starts: list[int] = []
        # Called with (start, end) before anything that could have been translated changes or goes away.
        self.on_code_change: Callable[[int, int], None] = lambda _start, _end: None
        self.code_changed = True  # whether executable_ranges() differs from what the runtime was told
        # Watched and I/O pages (dbt/control/traps.py): their host protection is less than the guest's.
        self.traps: Any = None
        self.generation = 0  # how often mappings have changed

    def close(self) -> None:
        """Give everything back to the host."""
        reserved, self._reserved = self._reserved, (0, 0)
        if reserved[1]:
            self.limit = 0  # what the host puts there next is nobody's to read and write here
            self.areas.clear()
            self._starts.clear()
            hostmem.unmap_memory(*reserved)

    def clear(self) -> None:
        """Unmap everything (exec). Whoever keeps translations checks them against what is mapped next."""
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED
        hostmem.map_memory(self.limit, PROT_NONE, flags, self.base)
        self.areas.clear()
        self._starts.clear()
        self.code_changed = True
        self._changed(0, self.limit)

    # ---- mappings

    def map(
        self,
        address: int,
        length: int,
        prot: int,
        flags: int = MAP_PRIVATE | MAP_ANONYMOUS,
        fd: int = -1,
        offset: int = 0,
        name: str = "",
    ) -> None:
        """Map `length` bytes at `address` (a multiple of the page size), replacing what is there.

        `flags` and `fd` as mmap has them (MAP_FIXED is implied), `prot` as the guest sees it: the host never gets
        PROT_EXEC. Raises OSError as mmap does.
        """
        length = round_up(length)
        self._check(address, length)
        old = self._executable(address, address + length)
        if old:
            self.on_code_change(address, address + length)
        host_flags = (flags & ~0x10) | MAP_FIXED | (MAP_NORESERVE if flags & MAP_ANONYMOUS else 0)
        hostmem.map_memory(length, host_prot(prot), host_flags, self.base + address, fd, offset)
        self._remove(address, address + length)
        area = Area(address, address + length, prot, name, offset, shared=bool(flags & hostmem.MAP_SHARED))
        at = bisect.bisect_left(self._starts, address)
        self.areas.insert(at, area)
        self._starts.insert(at, address)
        if old or prot & PROT_EXEC:
            self.code_changed = True
        self._changed(address, address + length)

    def unmap(self, address: int, length: int) -> None:
        """Take pages away; what is not mapped stays so."""
        length = round_up(length)
        self._check(address, length)
        if self._executable(address, address + length):
            self.on_code_change(address, address + length)
            self.code_changed = True
        hostmem.map_memory(
            length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, self.base + address
        )
        self._remove(address, address + length)
        self._changed(address, address + length)

    def protect(self, address: int, length: int, prot: int) -> None:
        """Change the protection of whole pages; raises OSError(ENOMEM) where not all of them are mapped."""
        length = round_up(length)
        self._check(address, length)
        end = address + length
        at = address
        for area in self.overlapping(address, end):
            if area.start > at:
                break
            at = area.end
        if at < end:
            raise OSError(errno.ENOMEM, "not mapped")
        executable = self._executable(address, end)
        if executable:
            self.on_code_change(address, end)
        hostmem.protect_memory(self.base + address, length, host_prot(prot))
        for area in self._split(address, end):
            area.prot = prot
        if executable or prot & PROT_EXEC:
            self.code_changed = True
        self._changed(address, end)

    def move(self, old: int, old_length: int, new: int, new_length: int) -> None:
        """Move a mapping as mremap does with MREMAP_FIXED; raises OSError. All pages must be of one mapping."""
        old_length, new_length = round_up(old_length), round_up(new_length)
        self._check(old, old_length)
        self._check(new, new_length)
        areas = self.overlapping(old, old + old_length)
        if len(areas) != 1 or areas[0].start > old or areas[0].end < old + old_length:
            raise OSError(errno.EFAULT, "not one mapping")
        source = areas[0].part(old, old + old_length)
        for start, end in ((old, old + old_length), (new, new + new_length)):
            if self._executable(start, end):
                self.on_code_change(start, end)
                self.code_changed = True
        hostmem.remap_memory(self.base + old, old_length, self.base + new, new_length)
        if new != old:
            # The hole that is left must belong to the reservation again.
            hostmem.map_memory(
                old_length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, self.base + old
            )
        elif new_length < old_length:
            self.unmap(old + new_length, old_length - new_length)
        self._remove(old, old + old_length)
        self._remove(new, new + new_length)
        moved = Area(new, new + new_length, source.prot, source.name, source.offset, shared=source.shared)
        at = bisect.bisect_left(self._starts, new)
        self.areas.insert(at, moved)
        self._starts.insert(at, new)
        self._changed(old, old + old_length)
        self._changed(new, new + new_length)

    def find_free(self, length: int, hint: int = 0, top: int = 0, bottom: int = 0x10000) -> int:
        """An address where `length` bytes are free: at `hint` if it is, else the highest one below `top`; 0: none."""
        length = round_up(length)
        hint &= -PAGE_SIZE
        if hint >= bottom and hint + length <= self.limit and not self.overlapping(hint, hint + length):
            return hint
        end = top or self.limit
        for area in reversed(self.areas):
            if area.start >= end:
                continue
            if area.end + length <= end:
                break
            end = min(end, area.start)
        start = end - length
        return start if start >= bottom else 0

    def overlapping(self, start: int, end: int) -> list[Area]:
        """The mappings that have bytes in [start, end), in order."""
        first = bisect.bisect_right(self._starts, start) - 1
        if first < 0 or self.areas[first].end <= start:
            first += 1
        last = bisect.bisect_left(self._starts, end)
        return self.areas[first:last]

    def area_at(self, address: int) -> Area | None:
        """The mapping that holds `address`."""
        found = self.overlapping(address, address + 1)
        return found[0] if found else None

    def mappings(self) -> list[tuple[int, int, int, str, int]]:
        """All mappings in order: (start, end, prot, name, offset)."""
        return [(a.start, a.end, a.prot, a.name, a.offset) for a in self.areas]

    def executable(self, address: int) -> bool:
        """Whether the guest may execute at `address`."""
        area = self.area_at(address)
        return area is not None and bool(area.prot & PROT_EXEC)

    def executable_ranges(self) -> list[tuple[int, int, int]]:
        """(start, end, prot) of the mappings that may be executed, in order."""
        return [(a.start, a.end, a.prot) for a in self.areas if a.prot & PROT_EXEC]

    # ---- bytes

    def host(self, address: int) -> int:
        """The host address of a guest address (as translated code computes it)."""
        return self.base + (address & self.mask)

    def untagged(self, address: int) -> int:
        """A guest address without Arm's top byte, as the kernel takes it apart in system calls."""
        return address & ((1 << TAG_SHIFT) - 1)

    def read(self, address: int, size: int, *, alone: bool = True) -> bytes:
        """Read `size` bytes; raises GuestFault at the first byte that cannot be read.

        `alone`: no other thread changes mappings meanwhile. Else the host's kernel is asked, which does not fault.
        """
        address = self.untagged(address)
        if size <= 0:
            return b""
        if address + size > self.limit:
            raise GuestFault(address, "read")
        if self.traps is not None and self.traps.covers(address, size):
            with self.traps.lifted():
                return self.read(address, size, alone=alone)
        area = self.area_at(address) if alone else None
        if area is not None and address + size <= area.end and area.prot & PROT_READ and area.solid:
            return ctypes.string_at(self.base + address, size)
        data = hostmem.read_own(self.base + address, size)
        if len(data) != size:
            raise GuestFault(address + len(data), "read")
        return data

    def write(self, address: int, data: bytes, *, alone: bool = True) -> None:
        """Write bytes; raises GuestFault at the first byte that cannot be written (those before it are written)."""
        address = self.untagged(address)
        size = len(data)
        if not size:
            return
        if address + size > self.limit:
            raise GuestFault(address, "write")
        if self.traps is not None and self.traps.covers(address, size):
            with self.traps.lifted():
                self.write(address, data, alone=alone)
            return
        area = self.area_at(address) if alone else None
        if area is not None and address + size <= area.end and area.prot & PROT_WRITE and area.solid:
            ctypes.memmove(self.base + address, data, size)
            return
        done = hostmem.write_own(self.base + address, data)
        if done != size:
            raise GuestFault(address + done, "write")

    def read_cstring(self, address: int, limit: int = 4096) -> bytes:
        """The bytes before the first NUL; raises GuestFault, or OSError(ENAMETOOLONG) if there is none in `limit`."""
        parts = []
        while limit > 0:
            size = min(limit, PAGE_SIZE - address % PAGE_SIZE)
            part = self.read(address, size)
            end = part.find(b"\0")
            if end >= 0:
                parts.append(part[:end])
                return b"".join(parts)
            parts.append(part)
            address += size
            limit -= size
        raise OSError(errno.ENAMETOOLONG, "string too long")

    def read_u32(self, address: int) -> int:
        return int.from_bytes(self.read(address, 4), "little")

    def read_u64(self, address: int) -> int:
        return int.from_bytes(self.read(address, 8), "little")

    def write_u32(self, address: int, value: int) -> None:
        self.write(address, (value & 0xFFFFFFFF).to_bytes(4, "little"))

    def write_u64(self, address: int, value: int) -> None:
        self.write(address, (value & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little"))

    # ---- inside

    def _changed(self, start: int, end: int) -> None:
        self.generation += 1
        if self.traps is not None:
            self.traps.protect(start, end)

    def _check(self, address: int, length: int) -> None:
        if address % PAGE_SIZE or length <= 0:
            raise OSError(errno.EINVAL, "not whole pages")
        if address < 0 or address + length > self.limit:
            raise OSError(errno.ENOMEM, "beyond the guest's address range")

    def _executable(self, start: int, end: int) -> bool:
        return any(area.prot & PROT_EXEC for area in self.overlapping(start, end))

    def _split(self, start: int, end: int) -> list[Area]:
        """Cut the mappings at both addresses; returns those in between."""
        for cut in (start, end):
            at = bisect.bisect_left(self._starts, cut) - 1
            if at >= 0 and self.areas[at].start < cut < self.areas[at].end:
                area = self.areas[at]
                self.areas.insert(at + 1, area.part(cut, area.end))
                self._starts.insert(at + 1, cut)
                area.end = cut
        return self.overlapping(start, end)

    def _remove(self, start: int, end: int) -> None:
        inside = self._split(start, end)
        if inside:
            at = bisect.bisect_left(self._starts, inside[0].start)
            del self.areas[at : at + len(inside)]
            del self._starts[at : at + len(inside)]


def branch_address(address: int) -> int:
    """Where execution goes on when it is sent to an address (Arm ARM, AArch64.BranchAddr()).

    Linux sets TCR_EL1.TBI0 and not TBID0 for programs: the top byte is dropped, but in the kernel's half (bit 55).
    """
    return address if address >> TAG_SHIFT - 1 & 1 else address & (1 << TAG_SHIFT) - 1


def round_up(size: int) -> int:
    """`size` rounded up to whole pages."""
    return (size + PAGE_SIZE - 1) & -PAGE_SIZE


def host_prot(prot: int) -> int:
    """What the host's pages get: guest code is data to the host, and must be readable to be translated."""
    return (prot & (PROT_READ | PROT_WRITE)) | (PROT_READ if prot & PROT_EXEC else 0)
