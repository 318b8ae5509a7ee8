"""The optimizer engine: baseline blocks count their entries, and what is entered often becomes a region.

A region (former.py) goes through LLVM in a process of its own (promoter.py) while the guest waits; its code is placed
behind the arena and takes the place of the block in the table, and the block's head becomes a jump to it. Links of a
region go through the same stubs as those of blocks.
"""

from __future__ import annotations

import ctypes
import time

from dbt.errors import GuestFault

from .baseline import Baseline
from .context import MAX_BLOCKS
from .layout import (
    EXIT_HOT,
    JUMP_CACHE_ENTRIES,
    MODE_EXACT_FLAGS,
    MODE_HOT,
    PAGE_SIZE,
    SPECIAL_HOT,
    JumpEntry,
    Landing,
    StencilHead,
)
from .table import HASH_SHIFT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .cache import Store
    from .cpu import Cpu

    Key = tuple[tuple[int, ...], bool]  # what a region depends on beside its bytes: see Promoter.region

THRESHOLD = 300  # entries of a block before it is promoted
REGION_BYTES = 128 << 20  # of the arena
MAX_LANDINGS = 1 << 22
STUB_ROOM = 1 << 16  # bytes of the arena that dropping regions may need
JUMP = 0xE9
JUMP_BYTES = 5
U64 = ctypes.c_uint64


class Placed:
    """A region that can be entered, at the host address `start`, made from ranges of guest bytes."""

    __slots__ = ("pc", "ranges", "start")

    def __init__(self, pc: int, start: int, ranges: list[tuple[int, int]]) -> None:
        self.pc = pc
        self.start = start
        self.ranges = ranges


class Optimizer(Baseline):
    """Translated code of one address space, hot parts of it as regions."""

    def __init__(self, cpu: Cpu, store: Store) -> None:
        super().__init__(cpu, store)
        ctx = self.ctx
        ctx.regions_end = ctx.arena_end
        ctx.arena_end = ctx.cold = ctx.regions = ctx.arena_end - REGION_BYTES
        ctx.counters = self.context.anonymous(4 * MAX_BLOCKS)
        ctx.landings = self.context.anonymous(Landing.size * MAX_LANDINGS)
        ctx.threshold = THRESHOLD
        ctx.mode = ctx.mode | MODE_HOT
        self._link: Any = self.runtime.image.function("branch_target", U64, (U64,) * 3)
        self._room = int(ctx.regions)
        self._placed: list[Placed] = []
        self._broken: dict[int, int] = {}  # how often the code of a region has changed, by its address
        self._known: dict[int, tuple[Any, list[tuple[int, bytes]], Key]] = {}
        self._promoter: Any = None
        self.seconds = 0.0  # waited for regions
        self.compiled = 0

    def run(self) -> int:
        while True:
            reason = super().run()
            if reason != EXIT_HOT:
                return reason
            self._promote(int(self.cpu.env.pc))

    def flush(self) -> None:
        super().flush()
        self._placed.clear()
        self.ctx.n_landings = 0
        self._room = int(self.ctx.regions)

    def invalidate(self, start: int, end: int) -> None:
        for placed in list(self._placed):
            if any(first < end and start < last for first, last in placed.ranges):
                if self.ctx.cold - self.ctx.hot < STUB_ROOM:
                    self.flush()
                    break
                self._placed.remove(placed)
                self.runtime.drop_code(self.ctx_address, placed.pc, placed.start)
        super().invalidate(start, end)

    def set_stops(self, addresses: frozenset[int]) -> None:
        gone = not addresses.issuperset(self.stops())
        super().set_stops(addresses)
        if gone and self._placed:
            self.flush()  # regions go round a stop: without it there are better ones

    def expect_exec(self) -> None:
        self.flush()  # regions, other than blocks, are not compared with what comes
        super().expect_exec()

    def statistics(self) -> dict[str, int]:
        return {
            **super().statistics(),
            "regions compiled": self.compiled,
            "region bytes": self._room - int(self.ctx.regions),
            "milliseconds waited for regions": round(self.seconds * 1000),
        }

    # ---- regions

    def _promote(self, pc: int) -> None:
        """Put a region in the place of the block at `pc`, or let the block be."""
        entry = self._table_entry(pc)
        if entry is None:
            return
        key = tuple(self.stops()), bool(int(self.ctx.mode) & MODE_EXACT_FLAGS)
        found = self._known.get(pc)
        changed = found is not None and not self._unchanged(found[1])
        if changed and self._often(pc):
            found = None
        elif found is None or found[2] != key or changed:
            started = time.monotonic()
            from .build import Interrupted

            try:
                found = self._request(pc, key)
            except Interrupted:
                return  # the native loop sees the signal first, and the block leaves again
            finally:
                self.seconds += time.monotonic() - started
        block = int(entry.code)
        if found is None:
            hot = StencilHead.at(int(self.ctx.pack) + ctypes.c_uint32.from_address(
                int(self.ctx.special) + 4 * SPECIAL_HOT).value)  # fmt: skip
            _jump(block, block + hot.code_size)
            return
        self._known[pc] = found
        code, ranges, _ = found
        start = self._place(pc, code, [(first, first + len(data)) for first, data in ranges])
        if not start:
            self.flush()
            return
        entry.code = start
        cached = JumpEntry.at(int(self.ctx.jump_cache) + (pc >> 2 & (JUMP_CACHE_ENTRIES - 1)) * JumpEntry.size)
        if cached.pc == pc:
            cached.code = start
        _jump(block, start)

    def _request(self, pc: int, key: Key) -> tuple[Any, list[tuple[int, bytes]], Key] | None:
        if self._promoter is None:
            from .promoter import Promoter

            self._promoter = Promoter(self.store, self.cpu.info.name)
        answer = self._promoter.region(pc, key, self._page)
        if answer is None:
            return None
        self.compiled += 1
        return (*answer, key)

    def _page(self, address: int) -> bytes:
        """The bytes of a guest page, none where it may not be executed."""
        memory = self.cpu.memory
        try:
            return bytes(memory.read(address, PAGE_SIZE)) if memory.executable(address) else b""
        except GuestFault:
            return b""

    def _unchanged(self, ranges: list[tuple[int, bytes]]) -> bool:
        memory = self.cpu.memory
        try:
            return all(memory.executable(at) and memory.read(at, len(data)) == data for at, data in ranges)
        except GuestFault:
            return False

    def _often(self, pc: int) -> bool:
        """Whether a region's code changes so often that it is not worth while: of the changes each power of two is."""
        count = self._broken[pc] = self._broken.get(pc, 0) + 1
        return count & (count - 1) != 0

    def _place(self, pc: int, code: Any, ranges: list[tuple[int, int]]) -> int:
        """Copy code behind the arena and link it; 0 if there is no room."""
        start = self._room
        end = start + len(code.code)
        ctx = self.ctx
        known = int(ctx.n_landings)
        full = end + PAGE_SIZE > ctx.regions_end or known + len(code.landings) > MAX_LANDINGS
        if full or ctx.cold - ctx.hot < (1 << 20):
            return 0
        self._room = (end + 63) & -64
        ctypes.memmove(start, code.code, len(code.code))
        for offset, target in code.links:
            _displace(start + offset, int(self._link(self.ctx_address, target, start + offset)))
        for offset in code.leaves:
            _displace(start + offset, int(ctx.leave))
        offset = start - int(ctx.regions)
        for number, (access, landing, _) in enumerate(code.landings, known):
            entry = Landing.at(int(ctx.landings) + number * Landing.size)
            entry.access, entry.landing = offset + access, offset + landing
        ctx.n_landings = known + len(code.landings)
        self._placed.append(Placed(pc, start, ranges))
        return start

    def _table_entry(self, pc: int) -> Any:
        """The entry of the block table for `pc`."""
        ctx = self.ctx
        mask, table = int(ctx.table_mask), int(ctx.table)
        at = pc >> HASH_SHIFT & mask
        while True:
            entry = JumpEntry.at(table + at * JumpEntry.size)
            if not entry.code:
                return None
            if entry.pc == pc:
                return entry
            at = at + 1 & mask


def _displace(site: int, to: int) -> None:
    """Make the 32-bit displacement at `site`, which counts from behind itself, lead to `to`."""
    ctypes.c_int32.from_address(site).value = to - (site + 4)


def _jump(at: int, to: int) -> None:
    """Write a jump."""
    ctypes.c_uint8.from_address(at).value = JUMP
    _displace(at + 1, to)
