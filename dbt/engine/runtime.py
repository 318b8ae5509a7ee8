"""The native runtime in this process: its image, the tables and stencils of a guest, loaded from the cache.

Loading is the warm path: a few files are read, a few words are stored. What is missing is built by the worker.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from zlib import crc32

from dbt.errors import InternalError

from . import hostmem
from .cache import PACKS
from .formats import HANDLERS_MAGIC, PACK_MAGIC, TABLES_MAGIC, PackHead, TablesHead
from .layout import SignalArea

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .cache import Job, Store
    from .image import Image

U64 = ctypes.c_uint64
PACK_RESERVE = 64 << 20  # host bytes kept free in front of an arena for the stencil pack
SNIPPET_ROOM = 4 << 20  # the last of them, for the stencils of tools: engine/inserted.py
SUPER_ROOM = 16 << 20  # in front of those, for superinstructions: engine/joiner.py


class Runtime:
    """The native functions, loaded once for a process."""

    __slots__ = (
        "area", "area_address", "drop_blocks", "drop_code", "flush", "foreign_actions", "forget_pages", "image",
        "instruction_at", "plan_block", "raw", "ring", "run", "run_exactly", "scan", "signal_handler", "signal_return",
        "still_valid", "touches_code", "translate_at", "wait", "walk",
    )  # fmt: skip

    def __init__(self, image: Image) -> None:
        self.image = image
        get = image.function
        self.run: Any = get("run", U64, (U64,))
        self.run_exactly: Any = get("run_exactly", U64, (U64,))
        self.translate_at: Any = get("translate_at", U64, (U64, U64))
        self.flush: Any = get("flush", None, (U64,))
        self.drop_blocks: Any = get("drop_blocks", ctypes.c_uint32, (U64, U64, U64))
        self.drop_code: Any = get("drop_code", None, (U64, U64, U64))
        self.forget_pages: Any = get("forget_pages", None, (U64,))
        self.still_valid: Any = get("still_valid", ctypes.c_uint32, (U64,))
        self.touches_code: Any = get("touches_code", ctypes.c_uint32, (U64, U64, U64))
        self.instruction_at: Any = get("find_instruction", U64, (U64, U64))
        self.foreign_actions: Any = get("foreign_actions", U64, (U64,))
        self.walk: Any = get("walk_forms", U64, (U64,) * 6)
        self.scan: Any = get("scan_forms", U64, (U64,) * 5)
        self.plan_block: Any = get("plan_block", U64, (U64,) * 3)
        self.raw: Any = get("raw_call", ctypes.c_int64, (U64,) * 7)
        self.wait: Any = get("wait_call", ctypes.c_int64, (U64,) * 8)
        self.signal_handler = image.address("on_signal")
        self.signal_return = image.address("dragoman_signal_return")
        address = hostmem.map_anonymous(SignalArea.size)
        self.area: Any = SignalArea.at(address)
        self.area_address = address
        self.area.handler = self.signal_handler
        self.ring = address + SignalArea.offset("ring")
        self.area.window_start = image.address("dragoman_system_call_begin")
        self.area.window_end = image.address("dragoman_system_call_end")
        self.area.window_abort = image.address("dragoman_system_call_abort")
        U64.from_address(image.address("dragoman_area")).value = address


class DamagedFile(Exception):
    """A file of the cache that cannot be what it should be."""


class Loaded:
    """A file of the cache in our memory: a copy, so that the guest does not depend on what happens to the file."""

    __slots__ = ("address", "size")

    def __init__(self, store: Store, name: str, at: int = 0, limit: int = 0, *, code: bool = False) -> None:
        """`at`: memory of ours that it is put in, if any; `code`: it is to be run where it is."""
        kept = store.kept.get(name)
        if kept is not None and not code:
            self.size = len(kept)
            self.address = at or hostmem.map_anonymous(self.size)
            ctypes.memmove(self.address, kept, self.size)
            return
        try:
            fd = store.open(name)
        except OSError:  # there may be no file as large as that, not even in memory
            if kept is None:
                raise
            self.size = len(kept)
            self.address = hostmem.place_code(kept, at)
            return
        try:
            if code:
                fd = hostmem.open_to_run(fd)
            self.size = os.fstat(fd).st_size
            if not self.size or (limit and self.size > limit):
                raise DamagedFile(f"damaged: {self.size} bytes")
            if code:
                flags = hostmem.MAP_PRIVATE | (hostmem.MAP_FIXED if at else 0)
                self.address = hostmem.map_memory(self.size, mmap.PROT_READ | mmap.PROT_EXEC, flags, at, fd)
            else:
                self.address = at or hostmem.map_anonymous(self.size)
                self._read(fd)
        finally:
            os.close(fd)

    def _read(self, fd: int) -> None:
        done = 0
        while done < self.size:
            room = (ctypes.c_char * (self.size - done)).from_address(self.address + done)
            part = os.preadv(fd, [room], done)
            if not part:
                raise DamagedFile(f"damaged: it became shorter than {self.size} bytes")
            done += part


_loaded: dict[str, Any] = {}


def load_runtime(store: Store) -> Runtime:
    """The runtime of this process; built by the worker first if the cache has none."""
    found = _loaded.get("runtime")
    if found is None:
        found = _loaded["runtime"] = Runtime(store.image())
    runtime: Runtime = found
    return runtime


def load_tables(store: Store, guest: str) -> Any:
    """The decoder tables of a guest: (TablesHead view, host address)."""
    key = "tables:" + guest
    found = _loaded.get(key)
    if found is None:
        name = guest + ".tables"
        address = load_checked(store, name, ("tables", guest), TablesHead, TABLES_MAGIC)
        found = _loaded[key] = (TablesHead.at(address), address)
    return found


def load_pack(store: Store, guest: str, job: str, at: int) -> Any:
    """Load what a job makes (cache.PACKS) to the room in front of an arena; returns its PackHead view."""
    code = job == "handlers"
    name, magic = f"{guest}.{PACKS[job]}", HANDLERS_MAGIC if code else PACK_MAGIC
    limit = PACK_RESERVE - SNIPPET_ROOM - SUPER_ROOM
    return PackHead.at(load_checked(store, name, (job, guest, ()), PackHead, magic, at, limit, code=code))


def load_checked(
    store: Store, name: str, job: Job, head: Any, magic: int, at: int = 0, limit: int = 0, *, code: bool = False
) -> int:
    """Load a file of the cache, if it is whole and of this build; else it is built again first, once."""
    for attempt in range(2):
        address, trouble, there = 0, "", True
        try:
            loaded = Loaded(store, name, at, limit, code=code)
            address, trouble = loaded.address, trouble_with(store, loaded, head, magic)
        except DamagedFile as error:
            trouble = str(error)
        except OSError as error:  # it was there when its job was done, or asked for
            trouble, there = error.strerror or "it cannot be read", False
        if not trouble:
            return address
        if attempt:
            raise InternalError(f"{store.path(name)}: {trouble}, although it was built again")
        (store.rebuild if there else store.fetch)(name, job, f"{store.path(name)}: {trouble}")
    raise AssertionError


def trouble_with(store: Store, loaded: Loaded, kind: Any, magic: int) -> str:
    """What is wrong with a file's copy, '' if nothing is."""
    if loaded.size < kind.size:
        return f"damaged: {loaded.size} bytes"
    head = kind.at(loaded.address)
    data = (ctypes.c_char * loaded.size).from_address(loaded.address)
    view = memoryview(data).cast("B")
    if head.magic != magic or head.size != loaded.size:
        return f"damaged: not a file of {loaded.size} bytes of this kind"
    if crc32(view[kind.size :]) != head.checksum:
        return "damaged: the checksum differs"
    if bytes(view[head.stamp : head.stamp + head.stamp_size]) != store.stamp.encode():
        return "built from something else"
    return ""
