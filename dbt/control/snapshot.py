"""Snapshots: registers, mappings and memory of a guest, kept apart from it, and put back as often as one likes.

The bytes of a snapshot lie in a memory file. Taking one maps the guest's pages from that file, privately, so that the
kernel copies those that are written to from then on; putting it back drops these copies. So a restore costs what the
guest has changed, however large its memory is. The kernel says which pages those are (PAGEMAP_SCAN, Linux 6.7); where
it cannot, all pages that the guest has touched are dropped.

A snapshot does not hold what is not the guest's: files and descriptors, shared mappings, other processes, the clock.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import fcntl
import os
import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from dbt.control import arguments
from dbt.engine import hostmem
from dbt.engine.hostmem import MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE
from dbt.engine.layout import PAGE_SIZE, Env
from dbt.engine.memory import Area, host_prot
from dbt.errors import UserError

from .snapshot_head import MONITOR, checked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbt.engine.cpu import Cpu
    from dbt.linux.process import Process

MAGIC: Final = b"DRAGSNAP"
VERSION: Final = 1
_HEAD: Final = Env.offset("poll")  # bytes of Env that are the guest's; then the control word
_CHUNK: Final = 1 << 20

_MADV_DONTNEED: Final = 4
_madvise = ctypes.CDLL(None, use_errno=True).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

# linux/include/uapi/linux/fs.h
_PAGEMAP_SCAN: Final = 0xC0606610
_FILE, _PRESENT, _SWAPPED = 4, 8, 16
_RUNS: Final = 512

_PROCESS: Final = (
    "brk_start", "brk", "mmap_top", "stack", "exe", "argv", "environment", "auxv", "sigreturn", "clear_tid",
    "personality", "limits", "status",
)  # fmt: skip
_SIGNALS: Final = ("actions", "mask", "altstack", "saved_mask", "restart")


class Range(NamedTuple):
    """One mapping. `at`: its bytes in the memory file, -1 if they are not in the snapshot."""

    start: int
    end: int
    prot: int
    name: str
    offset: int
    shared: bool
    at: int


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


class Snapshot:
    """The state of a guest at one moment. Opaque; `to_bytes` and `from_bytes` carry it to another process."""

    def __init__(
        self,
        guest: str,
        registers: dict[str, int],
        monitor: bytes,
        ranges: list[Range],
        pages: Pages,
        process: dict[str, Any] | None,
    ) -> None:
        self._guest = guest
        self._registers = registers
        self._monitor = monitor
        self._ranges = ranges
        self._pages = pages
        self._process = process
        self._raw: tuple[bytes, int] | None = None  # the same registers as they lie in Env

    def __repr__(self) -> str:
        size = sum(entry.end - entry.start for entry in self._ranges)
        return f"<Snapshot of {self._guest} at pc {self._registers['pc']:#x}, {size >> 10} KiB mapped>"

    def to_bytes(self) -> bytes:
        """All of it, to be kept in a file."""
        extents = list(self._pages.extents())
        head = {
            "guest": self._guest,
            "registers": self._registers,
            "monitor": self._monitor,
            "ranges": [tuple(entry) for entry in self._ranges],
            "size": self._pages.size,
            "extents": extents,
            "process": self._process,
        }
        text = repr(head).encode()
        pack = zlib.compressobj(1)
        parts = [MAGIC, VERSION.to_bytes(4, "little"), len(text).to_bytes(4, "little"), text]
        for start, end in extents:
            parts += [
                pack.compress(os.pread(self._pages.fd, min(_CHUNK, end - at), at)) for at in range(start, end, _CHUNK)
            ]
        parts.append(pack.flush())
        raw = b"".join(parts)
        return raw + zlib.crc32(raw).to_bytes(4, "little")

    @classmethod
    def from_bytes(cls, data: bytes) -> Snapshot:
        """What `to_bytes` made, also in another process; raises UserError if it is something else."""
        data = arguments.data(data, "a snapshot")
        if data[:8] != MAGIC or len(data) < 20:
            raise UserError("this is no snapshot", "Give the bytes that Snapshot.to_bytes() made.")
        version = int.from_bytes(data[8:12], "little")
        if version != VERSION:
            raise UserError(f"a snapshot of version {version} cannot be read", f"This Dragoman reads {VERSION}.")
        if zlib.crc32(data[:-4]).to_bytes(4, "little") != data[-4:]:
            raise UserError("the snapshot is damaged: its checksum differs", "Take it again.")
        try:
            size = int.from_bytes(data[12:16], "little")
            head = checked(ast.literal_eval(data[16 : 16 + size].decode()))
            pages = Pages(head["size"])
            unpack = zlib.decompressobj()
            rest = data[16 + size : -4]
            for start, end in head["extents"]:
                at = start
                while at < end:
                    part = unpack.decompress(rest, min(_CHUNK, end - at))
                    rest = unpack.unconsumed_tail
                    at += os.pwrite(pages.fd, part, at) or _too_short()
            pages.seal()
            ranges = [Range(*entry) for entry in head["ranges"]]
            return cls(head["guest"], head["registers"], head["monitor"], ranges, pages, head["process"])
        except (
            ValueError,
            KeyError,
            TypeError,
            SyntaxError,
            OSError,
            MemoryError,
            RecursionError,
            zlib.error,
        ) as error:
            raise UserError(f"the snapshot makes no sense: {error}", "Take it again.") from None


def _too_short() -> NoReturn:
    raise ValueError("too short")


# ---- taking


def take(cpu: Cpu, process: Process | None = None) -> Snapshot:
    """The state of a CPU, and of the process that runs on it, now."""
    info = cpu.info
    registers = {name: cpu.reg(name) for name in ("pc", "nzcv", *info.registers) if name[0] != "w"}
    monitor = ctypes.string_at(cpu.env_address + info.exclusive, MONITOR)
    ranges: list[Range] = []
    size = 0
    for area in cpu.memory.areas:
        at = -1 if area.shared else size
        size += 0 if area.shared else area.end - area.start
        ranges.append(Range(area.start, area.end, area.prot, area.name, area.offset, area.shared, at))
    pages = Pages(size, process)
    base = cpu.memory.base
    for entry, area in zip(ranges, cpu.memory.areas, strict=True):
        if entry.at >= 0:
            _copy(base, area, pages, entry.at)
    pages.seal()
    snapshot = Snapshot(info.name, registers, monitor, ranges, pages, _process_state(process))
    snapshot._raw = _raw_registers(cpu)  # noqa: SLF001 - one module
    for entry, area in zip(ranges, cpu.memory.areas, strict=True):
        if entry.at >= 0:
            _back(base, area, pages, entry.at)
    if cpu.memory.traps is not None:
        cpu.memory.traps.protect(0, cpu.memory.limit)
    return snapshot


def _raw_registers(cpu: Cpu) -> tuple[bytes, int]:
    return ctypes.string_at(cpu.env_address, _HEAD), int(cpu.env.mxcsr)


def _copy(base: int, area: Area, pages: Pages, at: int) -> None:
    """Copy a mapping's bytes to the file, but for pages that nobody has touched."""
    start = base + area.start
    readable = host_prot(area.prot) & PROT_READ
    hostmem.protect_memory(start, area.end - area.start, host_prot(area.prot) | PROT_READ)
    for first, last in _populated(base, area):
        for place in range(first, last, _CHUNK):
            _write_out(pages.fd, base + place, min(_CHUNK, last - place), at + place - area.start)
    if not readable:
        hostmem.protect_memory(start, area.end - area.start, host_prot(area.prot))


def _write_out(fd: int, host: int, size: int, at: int) -> None:
    """Write host memory to a file; pages that cannot be read (behind a file's end) stay holes."""
    done = 0
    while done < size:
        view = (ctypes.c_char * (size - done)).from_address(host + done)
        try:
            written = os.pwrite(fd, view, at + done)
        except OSError:
            written = 0
        done += written or PAGE_SIZE - (host + done) % PAGE_SIZE


def _populated(base: int, area: Area) -> list[tuple[int, int]]:
    """Guest addresses of a mapping's pages that may hold something: those of a file always do."""
    whole = [(area.start, area.end)]
    if area.backing is None and area.name and area.name[0] != "[":
        return whole
    found = page_runs(base, area.start, area.end, anonymous=area.backing is not None)
    if found is None:
        return whole
    if area.backing is not None:
        pages, at = area.backing
        size = area.end - area.start
        found += [(start - at + area.start, end - at + area.start) for start, end in pages.extents(at, at + size)]
    return found


def _back(base: int, area: Area, pages: Pages, at: int) -> None:
    """Map a guest mapping from the file."""
    size = area.end - area.start
    flags = MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED
    hostmem.map_memory(size, host_prot(area.prot), flags, base + area.start, pages.fd, at)
    area.backing = (pages, at)


def _process_state(process: Process | None) -> dict[str, Any] | None:
    if process is None:
        return None
    state = {name: getattr(process, name) for name in _PROCESS}
    state["signals"] = {name: getattr(process.signals, name) for name in _SIGNALS}
    copied: dict[str, Any] = ast.literal_eval(repr(state))
    return copied


# ---- putting back


def restore(cpu: Cpu, snapshot: Snapshot, process: Process | None = None) -> None:
    """Make a CPU's state, and that of a process on it, what it was."""
    if snapshot._guest != cpu.info.name:  # noqa: SLF001
        raise UserError(f"a snapshot of {snapshot._guest} is not for {cpu.info.name}", "Restore it to such a CPU.")  # noqa: SLF001
    if (snapshot._process is None) != (process is None):  # noqa: SLF001
        raise UserError("snapshots of programs and of bare CPUs do not mix", "Restore it to what it was taken from.")
    _restore_memory(cpu, snapshot)
    if snapshot._raw is None:  # noqa: SLF001
        for name, value in snapshot._registers.items():  # noqa: SLF001
            cpu.set_reg(name, value)
        ctypes.memmove(cpu.env_address + cpu.info.exclusive, snapshot._monitor, MONITOR)  # noqa: SLF001
        cpu.reg("fpsr")
        snapshot._raw = _raw_registers(cpu)  # noqa: SLF001
    else:
        raw, control = snapshot._raw  # noqa: SLF001
        ctypes.memmove(cpu.env_address, raw, _HEAD)
        cpu.env.mxcsr = control
    if process is not None:
        _restore_process(process, snapshot._process or {})  # noqa: SLF001


def _restore_memory(cpu: Cpu, snapshot: Snapshot) -> None:
    memory = cpu.memory
    ranges, pages = snapshot._ranges, snapshot._pages  # noqa: SLF001
    if ranges and ranges[-1].end > memory.limit:
        raise UserError(
            f"the snapshot has memory at {ranges[-1].start:#x}, behind this CPU's range",
            f"Its addresses end at {memory.limit:#x}: close other CPUs, which share the host's address space.",
        )
    same = [(a.start, a.end, a.prot, a.backing) for a in memory.areas]
    if same == [(r.start, r.end, r.prot, (pages, r.at) if r.at >= 0 else None) for r in ranges]:
        _drop(cpu, snapshot)
        return
    _check_shared(cpu, ranges)
    for start, end, _prot, _name, _offset in memory.mappings():
        if not any(r.at < 0 and r.start < end and start < r.end for r in ranges):
            memory.unmap(start, end - start)
    for entry in ranges:
        if entry.at >= 0:
            _map(cpu, entry, pages)
    cpu.memory.on_code_change(0, memory.limit)


def _check_shared(cpu: Cpu, ranges: list[Range]) -> None:
    """Shared mappings are not in a snapshot: they must be there still."""
    for entry in ranges:
        if entry.at < 0:
            areas = cpu.memory.overlapping(entry.start, entry.end)
            if not areas or any(not a.shared or a.name != entry.name for a in areas):
                raise UserError(
                    f"the shared mapping at {entry.start:#x} is gone, and shared memory is not in a snapshot",
                    "Restore it while the program still has the mapping.",
                )


def _map(cpu: Cpu, entry: Range, pages: Pages) -> None:
    memory = cpu.memory
    memory.map(
        entry.start, entry.end - entry.start, entry.prot, MAP_PRIVATE | MAP_NORESERVE, pages.fd, entry.at, entry.name
    )
    area = memory.area_at(entry.start)
    assert area is not None
    area.offset = entry.offset
    area.backing = (pages, entry.at)


def _drop(cpu: Cpu, snapshot: Snapshot) -> None:
    """All mappings are the snapshot's: drop the pages that were written to."""
    memory = cpu.memory
    base = memory.base
    runs = page_runs(base, 0, memory.limit, anonymous=True)
    code = [r for r in snapshot._ranges if r.prot & PROT_EXEC]  # noqa: SLF001
    if runs is None:
        runs = [(r.start, r.end) for r in snapshot._ranges if r.at >= 0]  # noqa: SLF001
        code = [r for r in code if r.prot & PROT_WRITE]
    for start, end in runs:
        for entry in code:
            if start < entry.end and entry.start < end:
                memory.on_code_change(max(start, entry.start), min(end, entry.end))
        if _madvise(base + start, end - start, _MADV_DONTNEED):
            code_ = ctypes.get_errno()
            raise OSError(code_, os.strerror(code_))


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


def _restore_process(process: Process, state: dict[str, Any]) -> None:
    fresh = ast.literal_eval(repr(state))  # of its own: the process changes what it has
    for name in _PROCESS:
        setattr(process, name, fresh[name])
    signals = process.signals
    wanted = fresh["signals"]
    for signo in signals.actions.keys() | wanted["actions"].keys():
        action = wanted["actions"].get(signo, (0, 0, 0, 0))
        if signals.action(signo) != action:
            signals.set_action(signo, action)
    for name in _SIGNALS:
        setattr(signals, name, wanted[name])
    signals.deferred = []
