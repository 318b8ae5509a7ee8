"""The state of a guest, taken and put back: registers, mappings, memory, and what the Linux personality keeps.

Taking it maps the guest's pages from a memory file, privately, so that the kernel copies those that are written to from
then on; putting it back drops these copies. So a restore costs what the guest has changed, however large its memory is.
The kernel says which pages those are (PAGEMAP_SCAN, Linux 6.7); where it cannot, all pages that the guest has touched
are dropped.
"""

from __future__ import annotations

import ast
import ctypes
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dbt.engine import hostmem
from dbt.engine.hostmem import MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE
from dbt.engine.layout import PAGE_SIZE, Env
from dbt.engine.memory import Area, host_prot
from dbt.errors import UserError

from .pages import Pages, drop_pages, page_runs
from .snapshot_head import MONITOR

if TYPE_CHECKING:
    from dbt.engine.cpu import Cpu
    from dbt.linux.process import Process

CLEAN_EVERY: Final = 64  # restores
_HEAD: Final = Env.offset("poll")  # bytes of Env that are the guest's; then the control word
_CHUNK: Final = 1 << 20

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


@dataclass(slots=True)
class State:
    """A guest at one moment."""

    guest: str
    registers: dict[str, int]
    monitor: bytes
    ranges: list[Range]
    pages: Pages
    process: dict[str, Any] | None
    raw: tuple[bytes, int] | None = None  # the same registers as they lie in Env
    restored: int = 0  # how often


# ---- taking


def take(cpu: Cpu, process: Process | None = None) -> State:
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
    state = State(info.name, registers, monitor, ranges, pages, _process_state(process), _raw_registers(cpu))
    for entry, area in zip(ranges, cpu.memory.areas, strict=True):
        if entry.at >= 0:
            _back(base, area, pages, entry.at)
    if cpu.memory.traps is not None:
        cpu.memory.traps.protect(0, cpu.memory.limit)
    return state


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


def restore(cpu: Cpu, state: State, process: Process | None = None) -> None:
    """Make a CPU's state, and that of a process on it, what it was."""
    if state.guest != cpu.info.name:
        raise UserError(f"a snapshot of {state.guest} is not for {cpu.info.name}", "Restore it to such a CPU.")
    if (state.process is None) != (process is None):
        raise UserError("snapshots of programs and of bare CPUs do not mix", "Restore it to what it was taken from.")
    _restore_memory(cpu, state)
    if state.raw is None:
        for name, value in state.registers.items():
            cpu.set_reg(name, value)
        ctypes.memmove(cpu.env_address + cpu.info.exclusive, state.monitor, MONITOR)
        cpu.reg("fpsr")
        state.raw = _raw_registers(cpu)
    else:
        raw, control = state.raw
        ctypes.memmove(cpu.env_address, raw, _HEAD)
        cpu.env.mxcsr = control
    if process is not None:
        _restore_process(process, state.process or {})


def _restore_memory(cpu: Cpu, state: State) -> None:
    memory = cpu.memory
    ranges, pages = state.ranges, state.pages
    if ranges and ranges[-1].end > memory.limit:
        raise UserError(
            f"the snapshot has memory at {ranges[-1].start:#x}, behind this CPU's range",
            f"Its addresses end at {memory.limit:#x}: close other CPUs, which share the host's address space.",
        )
    same = [(a.start, a.end, a.prot, a.backing) for a in memory.areas]
    if same == [(r.start, r.end, r.prot, (pages, r.at) if r.at >= 0 else None) for r in ranges]:
        _drop(cpu, state)
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


def _drop(cpu: Cpu, state: State) -> None:
    """All mappings are the snapshot's: drop the pages that were written to."""
    memory = cpu.memory
    base = memory.base
    private = [(r.start, r.end) for r in state.ranges if r.at >= 0]
    code = [r for r in state.ranges if r.prot & PROT_EXEC]
    runs = page_runs(base, 0, memory.limit, anonymous=True)
    if runs is None:
        runs = private
        code = [r for r in code if r.prot & PROT_WRITE]
    for start, end in runs:
        for entry in code:
            if start < entry.end and entry.start < end:
                memory.on_code_change(max(start, entry.start), min(end, entry.end))
    # Pages that were merely read cost the kernel time to look at, each time: now and then they are dropped as well.
    state.restored += 1
    for start, end in private if state.restored % CLEAN_EVERY == 0 else runs:
        drop_pages(base + start, base + end)


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
