"""Bytes of a machine's memory: one mapping that devices, native code and other processes share without copies.

Who keeps something that depends on the content (dirty pages for a display or a migration, translated code) is an
observer and is told of each write that goes through the device layer. Native code that writes by itself marks pages
in the trackers' bytes, which lie in memory it can reach.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import weakref
from typing import TYPE_CHECKING

from dbt.machine.errors import MapError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE = 4096


class Memory:
    """`size` bytes, zero at first, in a memory file. `view` is the content; `fd` may be mapped again by others."""

    def __init__(self, name: str, size: int) -> None:
        if size <= 0:
            raise MapError(f"{name}: memory of {size} bytes")
        self.name = name
        self.size = size
        self.fd = os.memfd_create(name, os.MFD_CLOEXEC)
        try:
            os.ftruncate(self.fd, size)
            self._map = mmap.mmap(self.fd, size)
        except (OSError, OverflowError) as error:
            os.close(self.fd)
            raise MapError(f"{name}: the host gives no {size:,} bytes: {error}", "make the memory smaller") from error
        self.view = memoryview(self._map)
        self._close_fd = weakref.finalize(self, os.close, self.fd)
        self.observers: tuple[Callable[[int, int], None], ...] = ()

    def address(self) -> int:
        """Where the host has it, for native code; valid until `close`."""
        return ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def written(self, offset: int, length: int) -> None:
        """Tell the observers: `length` bytes at `offset` may be different now."""
        for observer in self.observers:
            observer(offset, length)

    def discard(self, offset: int, length: int) -> None:
        """Give the whole pages in a range back to the host: they read as zeroes then."""
        start, end = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE, (offset + length) // mmap.PAGESIZE * mmap.PAGESIZE
        if start < end:
            self._map.madvise(mmap.MADV_REMOVE, start, end - start)
            self.written(start, end - start)

    def observe(self, observer: Callable[[int, int], None]) -> None:
        """Call `observer(offset, length)` after each write."""
        self.observers = (*self.observers, observer)

    def forget(self, observer: Callable[[int, int], None]) -> None:
        """Call it no more."""
        self.observers = tuple(other for other in self.observers if other != observer)

    def extents(self) -> Iterator[tuple[int, int]]:
        """(start, end) of what was ever touched; the rest are zeroes that take no pages."""
        at = 0
        while at < self.size:
            try:
                at = os.lseek(self.fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                raise
            end = os.lseek(self.fd, at, os.SEEK_HOLE)
            yield at, min(end, self.size)
            at = end

    def clear(self, offset: int, length: int) -> None:
        """Make it zeroes, and give whole pages back."""
        start, end = -(-offset // PAGE) * PAGE, (offset + length) // PAGE * PAGE
        if start < end:
            self.view[offset:start] = bytes(start - offset)
            self._map.madvise(mmap.MADV_REMOVE, start, end - start)
            self.view[end : offset + length] = bytes(offset + length - end)
        else:
            self.view[offset : offset + length] = bytes(length)
        self.written(offset, length)

    def close(self) -> None:
        """Give the memory back; whoever still holds a view of it must have let go."""
        self.view.release()
        self._map.close()
        self._close_fd()


class DirtyTracker:
    """The pages of a memory that were written since the last `collect`, for one client.

    `pages` has a byte for each page, other than 0 if it is dirty: native code that writes stores there after its write.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.pages = bytearray(-(-memory.size // PAGE))
        memory.observe(self.mark)

    def mark(self, offset: int, length: int) -> None:
        """Pages of `length` bytes at `offset` are dirty."""
        if length > 0:
            first, last = offset // PAGE, (offset + length - 1) // PAGE
            if first == last:
                self.pages[first] = 1
            else:
                self.pages[first : last + 1] = b"\1" * (last - first + 1)

    def collect(self) -> list[tuple[int, int]]:
        """(offset, length) of what is dirty, in order, and clean from now on: look at the content after this call."""
        found: list[tuple[int, int]] = []
        page = self.pages.find(1)
        while page >= 0:
            end = self.pages.find(0, page)
            end = len(self.pages) if end < 0 else end
            self.pages[page:end] = bytes(end - page)
            found.append((page * PAGE, min(end * PAGE, self.memory.size) - page * PAGE))
            page = self.pages.find(1, end)
        return found

    def close(self) -> None:
        """Track no more."""
        self.memory.forget(self.mark)
