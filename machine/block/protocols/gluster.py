"""Files of a GlusterFS volume, through libgfapi: `gluster://host:port/volume/path`, `gluster+unix:///volume/path?socket=…`.

The same calls as for files of the host, made by the workers, which wait. A file is made, emptied, grown and punched as
a file of the host is; holes are found with lseek. Nobody is locked out: who shall write is for the users to agree on.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from functools import cache
from typing import TYPE_CHECKING, Any

from dbt.machine.block import host
from dbt.machine.block.buffers import fill, transfer
from dbt.machine.block.errors import BadOption, HostError, ImageUnsupported
from dbt.machine.block.library import Iovec, iovecs, load
from dbt.machine.block.node import Extent, Protocol
from dbt.machine.block.options import Option
from dbt.machine.block.protocols.file import PREALLOCATION, extent_by_seeking
from dbt.machine.block.request import MAY_UNMAP, NO_FALLBACK

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.block.graph import Opening
    from dbt.machine.block.request import Vectors

PORT = 24007
LONGEST = 1 << 30  # bytes of one request without data
QUIET, LOUD = 0, 7  # levels of the library's log: nothing, and what goes on

_pointer, _int, _long, _size, _text, _off = (
    ctypes.c_void_p, ctypes.c_int, ctypes.c_ssize_t, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_int64,
)  # fmt: skip
_array = ctypes.POINTER(Iovec)

# Since version 6 some of them hand out a file's state of before and after: pointers, which may be null.
FUNCTIONS = {
    "glfs_new": (_pointer, (_text,)), "glfs_set_volfile_server": (_int, (_pointer, _text, _text, _int)),
    "glfs_set_logging": (_int, (_pointer, _text, _int)), "glfs_init": (_int, (_pointer,)),
    "glfs_fini": (_int, (_pointer,)), "glfs_open": (_pointer, (_pointer, _text, _int)),
    "glfs_creat": (_pointer, (_pointer, _text, _int, _int)), "glfs_close": (_int, (_pointer,)),
    "glfs_preadv": (_long, (_pointer, _array, _int, _off, _int)),
    "glfs_pwritev": (_long, (_pointer, _array, _int, _off, _int)),
    "glfs_fdatasync": (_int, (_pointer, _pointer, _pointer)),
    "glfs_ftruncate": (_int, (_pointer, _off, _pointer, _pointer)),
    "glfs_discard": (_int, (_pointer, _off, _size)), "glfs_zerofill": (_int, (_pointer, _off, _off)),
    "glfs_fallocate": (_int, (_pointer, _int, _off, _size)), "glfs_lseek": (_off, (_pointer, _off, _int)),
}  # fmt: skip


@cache
def _library() -> ctypes.CDLL:
    return load("gluster", "libgfapi.so.0", "libgfapi0", FUNCTIONS)


def _error(name: str, doing: str, offset: int | None = None) -> HostError:
    return HostError(name, OSError(ctypes.get_errno() or errno.EIO, ""), doing=doing, offset=offset)


def _volume(options: dict[str, Any], name: str) -> tuple[ctypes.CDLL, int]:
    """The library, and a new handle of the volume: one that is shared would show what its caches have from before."""
    api = _library()
    kind, where, port = b"tcp", options["host"], options["port"]
    if options["socket"]:
        kind, where, port = b"unix", options["socket"], 0
    fs: int | None = api.glfs_new(options["volume"].encode())
    if not fs:
        raise _error(name, "no handle of the volume")
    log = options["log"]
    api.glfs_set_logging(fs, (log or os.devnull).encode(), LOUD if log else QUIET)
    if api.glfs_set_volfile_server(fs, kind, where.encode(), port) or api.glfs_init(fs):
        error = _error(name, f"the volume {options['volume']!r} of {where} cannot be reached")
        _leave(api, fs)
        raise error
    return api, fs


def _leave(api: ctypes.CDLL, fs: int) -> None:
    """Give a handle back, aside: glfs_fini waits ten seconds for nothing that we need.

    What was written is with the servers by then: glfs_close and flushes have waited for that. A process may end while
    this is on its way.
    """
    threading.Thread(target=api.glfs_fini, args=(fs,), name="glfs-fini", daemon=True).start()


class Gluster(Protocol):
    """One open file."""

    driver = "gluster"
    remote = True
    SCHEMES = ("gluster", "gluster+tcp", "gluster+unix")
    OPTIONS = (
        Option("volume", str, help="the volume"),
        Option("path", str, help="path of the file in it"),
        Option("host", str, "localhost", help="a server of the cluster"),
        Option("port", int, PORT, help="its port"),
        Option("socket", str, "", help="its Unix socket, in place of host and port"),
        Option("log", str, "", help="a file for the library's log"),
    )
    CREATE_OPTIONS = (Option("preallocation", PREALLOCATION, "off", help="take the space now: falloc or full"),)
    NEW_IS_ZERO = True

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        options = self.options
        self._lost: HostError | None = None
        self._fails: set[str] = set()  # what this volume has refused
        self._growing = threading.Lock()
        self._api, self._fs = _volume(options, self.name)
        flags = os.O_RDWR if self.writable else os.O_RDONLY
        self._fd = self._api.glfs_open(self._fs, options["path"].encode(), flags)
        if not self._fd:
            error = _error(self.name, "cannot be opened")
            _leave(self._api, self._fs)
            raise error
        self.size = self._api.glfs_lseek(self._fd, 0, os.SEEK_END)
        self.identity = ("gluster", options["host"], options["port"], options["socket"], options["volume"],
                         os.path.normpath("/" + options["path"]))  # fmt: skip

    @classmethod
    def label(cls, options: dict[str, Any]) -> str:
        """Volume and path."""
        return f"gluster:{options['volume']}/{options['path']}"

    def _need(self, code: int, doing: str, offset: int | None = None) -> int:
        if code < 0:
            raise _error(self.name, doing, offset)
        return code

    # Data.

    def _transfer(self, call: Callable[..., int], vectors: Vectors, offset: int, doing: str) -> int:
        with iovecs(vectors) as array:
            return self._need(call(self._fd, array, len(array), offset, 0), doing, offset)

    def read(self, offset: int, length: int, vectors: Vectors) -> None:
        done = transfer(lambda v, at: self._transfer(self._api.glfs_preadv, v, at, "read"), vectors, offset, length)
        if done < length:
            fill(vectors, done, length - done)

    def write(self, offset: int, length: int, vectors: Vectors, flags: int = 0) -> None:
        done = transfer(lambda v, at: self._transfer(self._api.glfs_pwritev, v, at, "write"), vectors, offset, length)
        if done < length:
            raise HostError(self.name, OSError(errno.ENOSPC, ""), doing="write", offset=offset)
        if offset + length > self.size:
            with self._growing:
                self.size = max(self.size, offset + length)

    def flush(self) -> None:
        if self._lost is not None:
            raise self._lost
        try:
            self._need(self._api.glfs_fdatasync(self._fd, None, None), "flush")
        except HostError as error:  # what it had cached it may have dropped: the next flush would succeed for nothing
            self._lost = error
            raise

    def _range(self, call: str, offset: int, end: int) -> bool:
        """Whether the volume can discard or zero, and did; False if it cannot."""
        for at in range(offset, end, LONGEST):
            if call in self._fails:
                return False
            if getattr(self._api, call)(self._fd, at, min(LONGEST, end - at)):
                error = _error(self.name, call, at)
                if error.errno not in host.UNSUPPORTED:
                    raise error
                self._fails.add(call)
        return True

    def discard(self, offset: int, length: int) -> None:
        self._range("glfs_discard", offset, min(offset + length, self.size))

    def write_zeroes(self, offset: int, length: int, flags: int = 0) -> None:
        end, inside = offset + length, min(offset + length, self.size)
        call = "glfs_discard" if flags & MAY_UNMAP else "glfs_zerofill"
        if offset < inside and not self._range(call, offset, inside):
            if flags & NO_FALLBACK:
                raise ImageUnsupported(self.name, "the volume cannot zero a range", offset=offset)
            super().write_zeroes(offset, inside - offset, flags)
        with self._growing:
            if end > self.size:
                self._truncate(end)

    def status(self, offset: int, length: int) -> Extent:
        def seek(at: int, whence: int) -> int:
            found: int = self._api.glfs_lseek(self._fd, at, whence)
            if found < 0:
                raise OSError(ctypes.get_errno(), "")
            return found

        return extent_by_seeking(seek, self.size, offset, length)

    def resize(self, size: int, *, preallocation: str = "off") -> None:
        with self._growing:
            old = self.size
            self._truncate(size)
            if size > old:
                _allocate(self._api, self._fd, self.name, old, size, preallocation)

    def _truncate(self, size: int) -> None:
        self._need(self._api.glfs_ftruncate(self._fd, size, None, None), f"resize to {size}")
        self.size = size

    # The rest.

    def close(self) -> None:
        try:
            super().close()
        finally:
            failed = self._api.glfs_close(self._fd) and self.writable
            error = _error(self.name, "close")
            _leave(self._api, self._fs)
            if failed:
                raise error

    @classmethod
    def parse_uri(cls, uri: str) -> dict[str, Any]:
        """`gluster[+tcp]://host[:port]/volume/path`, `gluster+unix:///volume/path?socket=PATH`."""
        from urllib.parse import parse_qsl, unquote, urlsplit

        try:
            parts = urlsplit(uri)
            host_, port = parts.hostname, parts.port
            query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        except ValueError as wrong:
            raise BadOption(uri, f"is no URI: {wrong}", hint="gluster://host:port/volume/path") from None
        volume, _, path = unquote(parts.path).removeprefix("/").partition("/")
        hint = "gluster://host:port/volume/path, or gluster+unix:///volume/path?socket=PATH"
        if not volume or not path:
            raise BadOption(uri, "which file of which volume?", hint=hint)
        unix = parts.scheme.endswith("+unix")
        if unix != ("socket" in query) or (unix and host_):
            raise BadOption(uri, "a socket is for gluster+unix, and a host for the others", hint=hint)
        options: dict[str, Any] = {"volume": volume, "path": path}
        return options | ({} if unix else {"host": host_ or "localhost", "port": port or PORT}) | query

    @classmethod
    def create(cls, options: dict[str, Any], size: int, name: str) -> None:
        """Make the file, or empty the one that is there."""
        api, fs = _volume(options, name)
        try:
            fd = api.glfs_creat(fs, options["path"].encode(), os.O_RDWR | os.O_CREAT, 0o644)
            if not fd:
                raise _error(name, "cannot be made")
            try:
                for length in (0, size):
                    if api.glfs_ftruncate(fd, length, None, None):
                        raise _error(name, f"cannot be made {size} bytes large")
                _allocate(api, fd, name, 0, size, options["preallocation"])
            finally:
                api.glfs_close(fd)
        finally:
            _leave(api, fs)


def _allocate(api: ctypes.CDLL, fd: int, name: str, start: int, end: int, preallocation: str) -> None:
    """Take the space of [start, end): falloc asks the servers for it, full has them write zeroes."""
    for at in range(start, end if preallocation != "off" else start, LONGEST):
        count = min(LONGEST, end - at)
        full = preallocation == "full"
        if api.glfs_zerofill(fd, at, count) if full else api.glfs_fallocate(fd, 0, at, count):
            raise _error(name, f"preallocation={preallocation}", at)


DRIVER = Gluster
