r"""Images of a Ceph cluster, through librbd: `rbd:pool/image@snapshot:id=user:conf=FILE`.

A colon, slash, at sign or backslash in a name has a backslash in front of it. What follows the name are Ceph's own
settings, but for `id` (the user) and `conf` (the configuration file).

Requests are librbd's asynchronous ones, and the worker that made one waits for it: as many are in flight as the disk
has workers. A flush is rbd_flush, which returns when everything is on the disks of the cluster. librbd's own exclusive
lock keeps two writers from harming the image's metadata; who shall write is for the users to agree on, as with qemu.
"""

from __future__ import annotations

import ctypes
import errno
import threading
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from dbt.machine.block.buffers import cut, fill, transfer
from dbt.machine.block.errors import BadOption, HostError, ImageUnsupported
from dbt.machine.block.library import Iovec, iovecs, load
from dbt.machine.block.node import Extent, Protocol
from dbt.machine.block.options import SIZE, Option
from dbt.machine.block.request import MAY_UNMAP, NO_FALLBACK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbt.machine.block.graph import Opening
    from dbt.machine.block.request import Vectors

FEATURES = {0: "layering", 1: "striping", 2: "exclusive-lock", 3: "object-map", 4: "fast-diff", 5: "deep-flatten",
            6: "journaling", 7: "data-pool", 8: "operations", 9: "migrating"}  # fmt: skip
FAST_DIFF = 1 << 4
FAST_DIFF_INVALID = 1 << 1  # of the flags
THICK_PROVISION = 1  # of write zeroes
LONGEST = 1 << 30  # bytes of one request without data; librbd's limit is 2 GiB
WINDOW = 16 << 30  # bytes that one block status looks through
STOP = -9000  # what our callback ends an iteration with: librbd hands it back
CONNECT_SECONDS = b"30"  # then a cluster is said not to answer; Ceph would wait for five minutes

_pointer, _int, _long, _u64, _size, _text = (
    ctypes.c_void_p, ctypes.c_int, ctypes.c_ssize_t, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_char_p,
)  # fmt: skip
_out = ctypes.POINTER(ctypes.c_void_p)
_numbers = ctypes.POINTER(_u64)
_array = ctypes.POINTER(Iovec)
_each = ctypes.CFUNCTYPE(_int, _u64, _size, _int, _pointer)

RADOS = {
    "rados_create": (_int, (_out, _text)), "rados_conf_read_file": (_int, (_pointer, _text)),
    "rados_conf_set": (_int, (_pointer, _text, _text)), "rados_connect": (_int, (_pointer,)),
    "rados_shutdown": (None, (_pointer,)), "rados_cluster_fsid": (_int, (_pointer, _text, _size)),
    "rados_ioctx_create": (_int, (_pointer, _text, _out)), "rados_ioctx_destroy": (None, (_pointer,)),
    "rados_ioctx_set_namespace": (None, (_pointer, _text)),
}  # fmt: skip
RBD = {
    "rbd_open": (_int, (_pointer, _text, _out, _text)), "rbd_open_read_only": (_int, (_pointer, _text, _out, _text)),
    "rbd_close": (_int, (_pointer,)), "rbd_create": (_int, (_pointer, _text, _u64, ctypes.POINTER(_int))),
    "rbd_get_size": (_int, (_pointer, _numbers)), "rbd_get_features": (_int, (_pointer, _numbers)),
    "rbd_get_flags": (_int, (_pointer, _numbers)), "rbd_stat": (_int, (_pointer, _pointer, _size)),
    "rbd_resize": (_int, (_pointer, _u64)), "rbd_flush": (_int, (_pointer,)),
    "rbd_discard": (_int, (_pointer, _u64, _u64)), "rbd_write_zeroes": (_long, (_pointer, _u64, _size, _int, _int)),
    "rbd_diff_iterate2": (_int, (_pointer, _text, _u64, _u64, ctypes.c_uint8, ctypes.c_uint8, _each, _pointer)),
    "rbd_aio_create_completion": (_int, (_pointer, _pointer, _out)), "rbd_aio_release": (None, (_pointer,)),
    "rbd_aio_wait_for_complete": (_int, (_pointer,)), "rbd_aio_get_return_value": (_long, (_pointer,)),
    "rbd_aio_readv": (_int, (_pointer, _array, _int, _u64, _pointer)),
    "rbd_aio_writev": (_int, (_pointer, _array, _int, _u64, _pointer)),
}  # fmt: skip


@cache
def _libraries() -> tuple[ctypes.CDLL, ctypes.CDLL]:
    return load("rbd", "librados.so.2", "librbd1", RADOS), load("rbd", "librbd.so.1", "librbd1", RBD)


class _ImageInfo(ctypes.Structure):
    """rbd_image_info_t."""

    _fields_ = (
        ("size", _u64), ("obj_size", _u64), ("num_objs", _u64), ("order", _int),
        ("block_name_prefix", ctypes.c_char * 24), ("parent_pool", ctypes.c_int64), ("parent_name", ctypes.c_char * 96),
    )  # fmt: skip


class _Pool:
    """A connection to the cluster, and the pool in it."""

    def __init__(self, options: dict[str, Any], name: str) -> None:
        self.rados, self.rbd = _libraries()
        self.name = name
        self.cluster, self.ioctx = ctypes.c_void_p(), ctypes.c_void_p()
        user = options["user"].encode() or None
        self.need(self.rados.rados_create(ctypes.byref(self.cluster), user), "no handle of the cluster")
        try:
            self._connect(options)
        except BaseException:
            self.close()
            raise

    def _connect(self, options: dict[str, Any]) -> None:
        rados, cluster = self.rados, self.cluster
        rados.rados_conf_set(cluster, b"client_mount_timeout", CONNECT_SECONDS)
        code = rados.rados_conf_read_file(cluster, options["conf"].encode() or None)
        if code != -errno.ENOENT or options["conf"]:  # there need not be one where the settings say it all
            self.need(code, f"the configuration file {options['conf'] or 'that Ceph finds'}")
        for name, value in _settings(options["settings"]):
            self.need(rados.rados_conf_set(cluster, name.encode(), value.encode()), f"the setting {name}={value!r}")
        self.need(rados.rados_connect(cluster), "the cluster cannot be connected to")
        found = rados.rados_ioctx_create(cluster, options["pool"].encode(), ctypes.byref(self.ioctx))
        self.need(found, f"the pool {options['pool']!r} cannot be opened")
        if options["namespace"]:
            rados.rados_ioctx_set_namespace(self.ioctx, options["namespace"].encode())

    def need(self, code: int, doing: str, offset: int | None = None) -> int:
        """`code` if it is no error, else it is raised."""
        if code < 0:
            raise HostError(self.name, OSError(-code, ""), doing=doing, offset=offset)
        return code

    def close(self) -> None:
        """Leave the cluster."""
        if self.ioctx.value:
            self.rados.rados_ioctx_destroy(self.ioctx)
        self.rados.rados_shutdown(self.cluster)


def _settings(text: str) -> list[tuple[str, str]]:
    pairs = []
    for word in _split(text, ":"):
        name, equals, value = word.partition("=")
        if word and not equals:
            raise BadOption(text, f"{word!r} is no name=value")
        if word:
            pairs.append((_plain(name), _plain(value)))
    return pairs


def _split(text: str, at: str, most: int = -1) -> list[str]:
    r"""Split at a character that has no backslash in front; what has one stays as it is."""
    parts, current, escaped = [], "", False
    for letter in text:
        if letter == at and not escaped and most:
            parts.append(current)
            current, most = "", most - 1
            continue
        current += letter
        escaped = letter == "\\" and not escaped
    return [*parts, current]


def _plain(text: str) -> str:
    r"""Without the backslashes."""
    found, escaped = "", False
    for letter in text:
        escaped = letter == "\\" and not escaped
        found += "" if escaped else letter
    return found


class Rbd(Protocol):
    """One image, or a snapshot of it."""

    driver = "rbd"
    remote = True
    OPTIONS = (
        Option("pool", str, help="the pool"),
        Option("namespace", str, "", help="namespace in the pool"),
        Option("image", str, help="the image's name"),
        Option("snapshot", str, "", help="a snapshot of it, for reading"),
        Option("user", str, "", help="Ceph's user, without `client.`; else admin"),
        Option("conf", str, "", help="Ceph's configuration file, if not where Ceph looks for it"),
        Option("settings", str, "", help="more of Ceph's settings, name=value:name=value"),
    )
    CREATE_OPTIONS = (Option("object_size", SIZE, 4 << 20, help="bytes of one object of the cluster: 4K to 32M"),)
    NEW_IS_ZERO = True

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        options = self.options
        if options["snapshot"] and self.writable:
            raise BadOption(self.name, "is a snapshot: it can only be read")
        self._growing = threading.Lock()
        self._pool = _Pool(options, self.name)
        self._rbd = self._pool.rbd
        self._image = ctypes.c_void_p()
        try:
            call = self._rbd.rbd_open if self.writable else self._rbd.rbd_open_read_only
            arguments = options["image"].encode(), ctypes.byref(self._image), options["snapshot"].encode() or None
            self._need(call(self._pool.ioctx, *arguments), "cannot be opened")
            self._settle()
        except BaseException:
            self._leave()
            raise

    def _settle(self) -> None:
        self.size = self._number(self._rbd.rbd_get_size, "size")
        self._features = self._number(self._rbd.rbd_get_features, "features")
        flags = self._number(self._rbd.rbd_get_flags, "flags")
        self._fast_diff = bool(self._features & FAST_DIFF) and not flags & FAST_DIFF_INVALID
        info = _ImageInfo()
        self._need(self._rbd.rbd_stat(self._image, ctypes.byref(info), ctypes.sizeof(info)), "stat")
        self._object = info.obj_size
        fsid = ctypes.create_string_buffer(64)
        self._need(self._pool.rados.rados_cluster_fsid(self._pool.cluster, fsid, 64), "fsid")
        parts = ("pool", "namespace", "image", "snapshot")
        self.identity = ("rbd", fsid.value, *(self.options[part] for part in parts))

    @classmethod
    def label(cls, options: dict[str, Any]) -> str:
        """Pool, namespace, image and snapshot: settings may hold a key."""
        where = "/".join(options[part] for part in ("pool", "namespace", "image") if options[part])
        return f"rbd:{where}@{options['snapshot']}" if options["snapshot"] else f"rbd:{where}"

    def _need(self, code: int, doing: str, offset: int | None = None) -> int:
        return self._pool.need(code, doing, offset)

    def _number(self, call: Callable[..., int], what: str) -> int:
        found = ctypes.c_uint64()
        self._need(call(self._image, ctypes.byref(found)), what)
        return found.value

    @contextmanager
    def _completion(self, doing: str, offset: int) -> Iterator[ctypes.c_void_p]:
        """A completion to start a request with."""
        found = ctypes.c_void_p()
        self._need(self._rbd.rbd_aio_create_completion(None, None, ctypes.byref(found)), doing, offset)
        try:
            yield found
        finally:
            self._rbd.rbd_aio_release(found)

    def _transfer(self, call: Callable[..., int], vectors: Vectors, offset: int, doing: str) -> int:
        with iovecs(vectors) as array, self._completion(doing, offset) as completion:
            self._need(call(self._image, array, len(array), offset, completion), doing, offset)
            self._rbd.rbd_aio_wait_for_complete(completion)
            return self._need(self._rbd.rbd_aio_get_return_value(completion), doing, offset)

    # Data.

    def read(self, offset: int, length: int, vectors: Vectors) -> None:
        inside = max(min(length, self.size - offset), 0)
        if inside < length:
            fill(vectors, inside, length - inside)
        if inside:
            part = vectors if inside == length else cut(vectors, 0, inside)
            done = transfer(lambda v, at: self._transfer(self._rbd.rbd_aio_readv, v, at, "read"), part, offset, inside)
            if done < inside:  # somebody else has made the image smaller
                fill(part, done, inside - done)

    def write(self, offset: int, length: int, vectors: Vectors, flags: int = 0) -> None:
        self._reach(offset + length)
        left = list(vectors)
        while left:  # a write is whole or an error; what it returns is 0
            group, left = left[:1024], left[1024:]
            self._transfer(self._rbd.rbd_aio_writev, group, offset, "write")
            offset += sum(map(len, group))

    def _reach(self, end: int) -> None:
        """Images do not grow by themselves."""
        if end > self.size:
            with self._growing:
                if end > self.size:
                    self._resize(end)

    def flush(self) -> None:
        self._need(self._rbd.rbd_flush(self._image), "flush")

    def discard(self, offset: int, length: int) -> None:
        end = min(offset + length, self.size)
        for at in range(offset, end, LONGEST):
            self._need(self._rbd.rbd_discard(self._image, at, min(LONGEST, end - at)), "discard", at)

    def write_zeroes(self, offset: int, length: int, flags: int = 0) -> None:
        unmap = bool(flags & MAY_UNMAP)
        if flags & NO_FALLBACK and not unmap:
            raise ImageUnsupported(self.name, "zeroes that keep their space are written", offset=offset)
        end, old = offset + length, self.size
        self._reach(end)
        end = min(end, old)  # what is new is zero
        for at in range(offset, end, LONGEST):
            how = 0 if unmap else THICK_PROVISION
            self._need(
                self._rbd.rbd_write_zeroes(self._image, at, min(LONGEST, end - at), how, 0), "write zeroes", at
            )  # fmt: skip

    def status(self, offset: int, length: int) -> Extent:
        """By whole objects, where the image keeps a map of them (the feature fast-diff)."""
        if offset >= self.size:
            return Extent(length, data=False, zero=True, offset=offset)
        length = min(length, self.size - offset, WINDOW)
        if not self._fast_diff:
            return Extent(length, data=True, zero=False, offset=offset)
        start = offset - offset % self._object  # librbd of Ceph 16 has wrong extents where it starts inside an object
        found: list[tuple[int, int]] = []

        def each(at: int, count: int, exists: int, _: object) -> int:
            if not exists or at + count <= offset:
                return 0
            if found and found[-1][1] >= at:
                found[-1] = found[-1][0], max(found[-1][1], at + count)
            elif found:
                return STOP
            else:
                found.append((at, at + count))
                if at > offset:
                    return STOP
            return 0

        callback = _each(each)
        code = self._rbd.rbd_diff_iterate2(self._image, None, start, offset + length - start, 1, 1, callback, None)
        if code != STOP:
            self._need(code, "block status", offset)
        if not found or found[0][0] > offset:
            end = found[0][0] if found else offset + length
            return Extent(min(end - offset, length), data=False, zero=True, offset=offset)
        return Extent(min(found[0][1] - offset, length), data=True, zero=False, offset=offset)

    def resize(self, size: int, *, preallocation: str = "off") -> None:
        if preallocation != "off":
            raise ImageUnsupported(self.name, f"preallocation={preallocation}: RBD images take space when it is used")
        with self._growing:
            self._resize(size)

    def _resize(self, size: int) -> None:
        self._need(self._rbd.rbd_resize(self._image, size), f"resize to {size}")
        self.size = size

    # The rest.

    def info(self) -> dict[str, Any]:
        names = [name for bit, name in FEATURES.items() if self._features >> bit & 1]
        return {"object-size": self._object, "features": names}

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._leave()

    def _leave(self) -> None:
        try:
            if self._image.value:
                self._need(self._rbd.rbd_close(self._image), "close")
        finally:
            self._image = ctypes.c_void_p()
            self._pool.close()

    @classmethod
    def parse_uri(cls, uri: str) -> dict[str, Any]:
        r"""`rbd:pool/[namespace/]image[@snapshot][:name=value…]`, with backslashes."""
        where, *settings = _split(uri.removeprefix("rbd:"), ":")
        path, *snapshot = _split(where, "@", 1)
        names = [_plain(part) for part in _split(path, "/")]
        if not 2 <= len(names) <= 3 or not all(names):
            raise BadOption(uri, "which image?", hint="rbd:pool/image, or rbd:pool/namespace/image@snapshot")
        options = {"pool": names[0], "image": names[-1], "namespace": names[1] if len(names) == 3 else ""}
        if snapshot:
            options["snapshot"] = _plain(snapshot[0])
        rest = []
        for setting in settings:
            name, _, value = setting.partition("=")
            if name in {"id", "conf"}:
                options["user" if name == "id" else "conf"] = _plain(value)
            else:
                rest.append(setting)
        return options | ({"settings": ":".join(rest)} if rest else {})

    @classmethod
    def create(cls, options: dict[str, Any], size: int, name: str) -> None:
        """Make the image; one that exists is an error."""
        wanted = options["object_size"]
        if wanted & wanted - 1 or not 4096 <= wanted <= 32 << 20:
            raise BadOption(name, f"object_size {wanted} is no power of two between 4K and 32M")
        pool = _Pool(options, name)
        try:
            order = ctypes.c_int(wanted.bit_length() - 1)
            code = pool.rbd.rbd_create(pool.ioctx, options["image"].encode(), size, ctypes.byref(order))
            pool.need(code, f"cannot be made {size} bytes large")
        finally:
            pool.close()


DRIVER = Rbd
