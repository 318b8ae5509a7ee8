"""Files of the host.

Reading is preadv into the request's own memory; `try_read` is the same with RWF_NOWAIT, which answers at once from the
page cache or not at all. Zeroes and discards are fallocate (punch a hole, zero a range), status is SEEK_DATA and
SEEK_HOLE. With `direct=on` (O_DIRECT) requests that are not aligned go through a buffer that is; writes of parts of
blocks read the rest first, one at a time for each block.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, ClassVar

from dbt.machine.block import host
from dbt.machine.block.buffers import IOV_MAX, aligned, fill, scatter, transfer
from dbt.machine.block.errors import BadOption, HostError, ImageLocked, ImageUnsupported
from dbt.machine.block.node import Extent, Protocol
from dbt.machine.block.options import Option
from dbt.machine.block.ranges import Ranges
from dbt.machine.block.request import MAY_UNMAP, NO_FALLBACK

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.block.graph import Opening
    from dbt.machine.block.request import Vectors

DIRECT_ALIGNMENT = 4096  # what every file system takes
PREALLOCATION = ("off", "falloc", "full")


class File(Protocol):
    """One open file."""

    driver = "file"
    OPTIONS = (
        Option("filename", str, help="path of the file"),
        Option(
            "locking", ("auto", "on", "off"), "auto", help="lock out other writers; auto: where the file can be locked"
        ),
        Option("direct", bool, False, help="O_DIRECT: past the host's page cache"),
        Option(
            "no-flush", bool, False, help="let flushes do nothing: fast, and nothing is safe before the host says so"
        ),
    )
    CREATE_OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("preallocation", PREALLOCATION, "off", help="take the space now: falloc, or full (zeroes)"),
    )

    NEW_IS_ZERO = True

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self._lost: OSError | None = None
        self._flush = not self.options["no-flush"]
        self._direct = bool(self.options["direct"])
        self._ranges = Ranges()
        self._nowait = 0 if self._direct else os.RWF_NOWAIT
        self._fails: set[int] = set()  # modes of fallocate that this file system has refused
        flags = (os.O_RDWR if self.writable else os.O_RDONLY) | os.O_CLOEXEC | (os.O_DIRECT if self._direct else 0)
        try:
            self.fd = os.open(self.name, flags)
        except OSError as error:
            raise HostError(self.name, error, doing="cannot be opened") from None
        try:
            self._settle()
            if self.options["locking"] != "off":
                self._lock()
        except OSError as error:
            os.close(self.fd)
            raise HostError(self.name, error) from None
        except BaseException:
            os.close(self.fd)
            raise

    def _settle(self) -> None:
        """Learn the size and what identifies the storage."""
        found = os.fstat(self.fd)
        if host.is_block_device(self.fd):
            raise BadOption(self.name, "is a block device", hint="driver=host-device,filename=…")
        if os.path.isdir(self.name):
            raise HostError(self.name, OSError(errno.EISDIR, ""))
        self.size = found.st_size
        self.identity = ("file", found.st_dev, found.st_ino)
        self._block = DIRECT_ALIGNMENT if self._direct else 1
        self.alignment = self._block

    def _lock(self) -> None:
        try:
            trouble = host.take_locks(self.fd, writable=self.writable)
        except OSError as error:
            if self.options["locking"] == "auto" and error.errno in host.UNSUPPORTED | {errno.ENOLCK}:
                return
            raise
        if trouble:
            users = host.users_of(self.fd)
            by = f": {', '.join(users)}" if users else ""
            raise ImageLocked(self.name, trouble + by, hint="locking=off opens it nevertheless; do not write then")

    # Data.

    def read(self, offset: int, length: int, vectors: Vectors) -> None:
        if self._block > 1 and not self._fits(offset, length, vectors):
            scatter(self._read_blocks(offset, length), vectors)
            return
        try:
            done = transfer(self._preadv, vectors, offset, length)
        except OSError as error:
            raise HostError(self.name, error, doing="read", offset=offset) from None
        if done < length:
            fill(vectors, done, length - done)

    def try_read(self, offset: int, length: int, vectors: Vectors) -> bool:
        if not self._nowait:
            return False
        try:
            return os.preadv(self.fd, vectors, offset, self._nowait) == length
        except OSError as error:
            if error.errno in host.UNSUPPORTED and len(vectors) <= IOV_MAX:
                self._nowait = 0
            return False

    def _preadv(self, vectors: Vectors, offset: int) -> int:
        return os.preadv(self.fd, vectors, offset)

    def _pwritev(self, vectors: Vectors, offset: int) -> int:
        return os.pwritev(self.fd, vectors, offset)

    def write(self, offset: int, length: int, vectors: Vectors, flags: int = 0) -> None:
        try:
            if self._block > 1 and not self._fits(offset, length, vectors):
                self._write_blocks(offset, length, vectors)
            elif transfer(self._pwritev, vectors, offset, length) < length:
                raise OSError(errno.ENOSPC, "")  # noqa: TRY301 - reported as those of the system call are
        except OSError as error:
            raise HostError(self.name, error, doing="write", offset=offset) from None
        if offset + length > self.size:
            self._grown(offset + length)

    def _grown(self, end: int) -> None:
        with self._ranges.alone():
            self.size = max(self.size, end)

    # O_DIRECT: blocks for what is not aligned.

    def _fits(self, offset: int, length: int, vectors: Vectors) -> bool:
        mask = self._block - 1
        return not (offset | length) & mask and all(host_aligned(v, mask) for v in vectors)

    def _read_blocks(self, offset: int, length: int) -> memoryview:
        start = offset & -self._block
        span = -(start - offset - length) + self._block - 1 & -self._block
        buffer = aligned(span)
        try:
            done = 0
            while done < span:
                count = os.preadv(self.fd, [buffer[done:]], start + done)
                done += count
                if not count or count % self._block:
                    break  # the end of the file; what follows is zero in a fresh buffer
        except OSError as error:
            raise HostError(self.name, error, doing="read", offset=offset) from None
        return buffer[offset - start : offset - start + length]

    def _write_blocks(self, offset: int, length: int, vectors: Vectors) -> None:
        start, end = offset & -self._block, offset + length + self._block - 1 & -self._block
        with self._ranges.alone(start, end):
            buffer = aligned(end - start)
            if offset - start:
                buffer[: self._block] = self._read_blocks(start, self._block)
            if end - offset - length:
                buffer[-self._block :] = self._read_blocks(end - self._block, self._block)
            old = self.size
            at = offset - start
            for view in vectors:
                buffer[at : at + len(view)] = view
                at += len(view)
            if transfer(self._pwritev, [buffer], start, end - start) < end - start:
                raise OSError(errno.ENOSPC, "")
            if end > max(old, offset + length):
                os.ftruncate(self.fd, max(old, offset + length))

    # The rest.

    def flush(self) -> None:
        if not self._flush:
            return
        if self._lost is not None:
            raise HostError(self.name, self._lost, doing="an earlier flush failed, and what it lost is lost")
        try:
            os.fdatasync(self.fd)
        except OSError as error:
            self._lost = error  # the kernel forgets after saying it once: the next flush would succeed for nothing
            raise HostError(self.name, error, doing="flush") from None

    def _fallocate(self, mode: int, offset: int, length: int) -> bool:
        """Whether it worked; False if this file system cannot do it."""
        if mode in self._fails:
            return False
        try:
            host.fallocate(self.fd, mode, offset, length)
        except OSError as error:
            if error.errno not in host.UNSUPPORTED:
                raise HostError(self.name, error, doing="fallocate", offset=offset) from None
            self._fails.add(mode)
            return False
        return True

    def discard(self, offset: int, length: int) -> None:
        if length > 0:
            self._fallocate(host.PUNCH_HOLE | host.KEEP_SIZE, offset, length)

    def write_zeroes(self, offset: int, length: int, flags: int = 0) -> None:
        if length <= 0:
            return
        end = offset + length
        if offset >= self.size:
            self._extend(end)
            return
        mode = host.PUNCH_HOLE if flags & MAY_UNMAP else host.ZERO_RANGE
        if not self._fallocate(mode | host.KEEP_SIZE, offset, min(length, self.size - offset)):
            if flags & NO_FALLBACK:
                raise ImageUnsupported(self.name, "the file system cannot zero a range", offset=offset)
            super().write_zeroes(offset, min(length, self.size - offset), flags)
        if end > self.size:
            self._extend(end)

    def _extend(self, end: int) -> None:
        with self._ranges.alone():
            if end > self.size:
                self._truncate(end)

    def _truncate(self, size: int) -> None:
        try:
            os.ftruncate(self.fd, size)
        except OSError as error:
            raise HostError(self.name, error, doing=f"resize to {size}") from None
        self.size = size

    def status(self, offset: int, length: int) -> Extent:
        return extent_by_seeking(lambda at, whence: os.lseek(self.fd, at, whence), self.size, offset, length)

    def resize(self, size: int, *, preallocation: str = "off") -> None:
        with self._ranges.alone():
            old = self.size
            self._truncate(size)
            if size > old:
                self._allocate(old, size, preallocation)

    def _allocate(self, start: int, end: int, preallocation: str) -> None:
        try:
            allocate(self.fd, start, end, preallocation)
        except OSError as error:
            os.ftruncate(self.fd, start)
            self.size = start
            raise HostError(self.name, error, doing=f"preallocation={preallocation}", offset=start) from None

    def allocated_size(self) -> int | None:
        return os.fstat(self.fd).st_blocks * 512

    def close(self) -> None:
        try:
            super().close()
        finally:
            os.close(self.fd)  # the locks go with it

    @classmethod
    def parse_uri(cls, uri: str) -> dict[str, Any]:
        """`file:path`, or `file:///path` with %XX."""
        path = uri.partition(":")[2]
        if not path.startswith("//"):
            return {"filename": path}
        from urllib.parse import unquote

        where, slash, rest = path[2:].partition("/")
        if where not in {"", "localhost"} or not slash:
            raise BadOption(uri, f"files of the host {where!r} are not reached by file:", hint="file:///path")
        return {"filename": unquote("/" + rest)}

    @classmethod
    def create(cls, options: dict[str, Any], size: int, name: str) -> None:
        """Make the file, or empty the one that is there, unless somebody uses it."""
        try:
            fd = os.open(options["filename"], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise HostError(name, error, doing="cannot be made") from None
        try:
            if options["locking"] != "off":
                try:
                    trouble = host.take_locks(fd, writable=True)
                except OSError as error:
                    if options["locking"] == "on" or error.errno not in host.UNSUPPORTED | {errno.ENOLCK}:
                        raise
                    trouble = ""
                if trouble:
                    raise ImageLocked(name, ": ".join([trouble, *host.users_of(fd)]))
            os.ftruncate(fd, 0)
            os.ftruncate(fd, size)
            allocate(fd, 0, size, options["preallocation"])
        except OSError as error:
            raise HostError(name, error, doing=f"cannot be made {size} bytes large") from None
        finally:
            os.close(fd)


def extent_by_seeking(seek: Callable[[int, int], int], size: int, offset: int, length: int) -> Extent:
    """What a file of `size` bytes has at `offset`, by lseek(2)'s SEEK_DATA and SEEK_HOLE."""
    if offset >= size:
        return Extent(length, data=False, zero=True, offset=offset)
    length = min(length, size - offset)
    try:
        data = seek(offset, os.SEEK_DATA)
        if data > offset:
            return Extent(min(data - offset, length), data=False, zero=True, offset=offset)
        hole = seek(offset, os.SEEK_HOLE)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a hole up to the end
            return Extent(length, data=False, zero=True, offset=offset)
        return Extent(length, data=True, zero=False, offset=offset)
    return Extent(min(max(hole - offset, 1), length), data=True, zero=False, offset=offset)


def host_aligned(view: memoryview, mask: int) -> bool:
    """Whether O_DIRECT takes this memory as it is. Memory of unknown address goes through our own buffer."""
    import mmap

    return isinstance(view.obj, mmap.mmap) and view.nbytes & mask == 0 and _address(view) & mask == 0


def _address(view: memoryview) -> int:
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(view)) if not view.readonly else 1


def allocate(fd: int, start: int, end: int, preallocation: str) -> None:
    """Take the space of [start, end): falloc asks the file system, full writes zeroes."""
    if preallocation == "off" or end <= start:
        return
    if preallocation == "falloc":
        os.posix_fallocate(fd, start, end - start)
        return
    zeroes = memoryview(bytes(1 << 20))
    for at in range(start, end, len(zeroes)):
        piece = min(len(zeroes), end - at)
        done = 0
        while done < piece:
            done += os.pwrite(fd, zeroes[done:piece], at + done)


DRIVER = File
