"""The pages of snapshots: a memory file, and what the kernel knows of the pages that are mapped from it."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbt.linux.process import Process

_MADV_DONTNEED: Final = 4
_madvise = ctypes.CDLL(None, use_errno=True).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

# linux/include/uapi/linux/fs.h
_PAGEMAP_SCAN: Final = 0xC0606610
_FILE, _PRESENT, _SWAPPED = 4, 8, 16
_RUNS: Final = 512


class Pages:
    """The memory file of a snapshot. It lives as long as a snapshot or a mapping needs it."""

    def __init__(self, size: int, process: Process | None = None) -> None:
        self.fd = os.memfd_create("dragoman-snapshot", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        if process is not None:
            self.fd = process.hide(self.fd)
        os.ftruncate(self.fd, size)
        self.size = size

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.close(self.fd)

    def seal(self) -> None:
        """Nobody writes to it any more."""
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)

    def extents(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
        """Where there are bytes other than zero: (offset, end)."""
        last = self.size if end is None else end
        at = start
        while at < last:
            try:
                at = os.lseek(self.fd, at, os.SEEK_DATA)
            except OSError:  # only zeros are left
                return
            stop = min(os.lseek(self.fd, at, os.SEEK_HOLE), last)
            if at < stop:
                yield at, stop
            at = stop


def page_runs(base: int, start: int, end: int, *, anonymous: bool) -> list[tuple[int, int]] | None:
    """Guest addresses of pages that there are, `anonymous`: only those that are no file's; None if nobody can tell."""
    found: list[tuple[int, int]] = []
    vector = (ctypes.c_uint64 * (3 * _RUNS))()
    kept = _FILE if anonymous else 0
    at = base + start
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            while at < base + end:
                words = (
                    96,
                    0,
                    at,
                    base + end,
                    0,
                    ctypes.addressof(vector),
                    _RUNS,
                    0,
                    kept,
                    kept,
                    _PRESENT | _SWAPPED,
                    kept | _PRESENT | _SWAPPED,
                )
                argument = bytearray(b"".join(word.to_bytes(8, "little") for word in words))
                count = fcntl.ioctl(pagemap, _PAGEMAP_SCAN, argument, True)
                found += [(vector[3 * i] - base, vector[3 * i + 1] - base) for i in range(count)]
                at = int.from_bytes(argument[32:40], "little")
    except OSError:
        return None
    return found


def drop_pages(start: int, end: int) -> None:
    """Forget private copies of a file's pages, and that pages are mapped, at host addresses. Raises OSError."""
    if _madvise(start, end - start, _MADV_DONTNEED):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
