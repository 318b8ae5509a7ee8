"""The optimizer engine: baseline blocks count their entries, and what is entered often becomes a region.

A region (former.py) goes through LLVM in a process of its own (promoter.py). In the library the guest waits for it, so
that the same program does the same each time; under `dragoman run` it goes on, and the block is counted again until the
region is there. Its code is placed behind the arena and takes the place of the block in the table, and the
block's head becomes a jump to it. Links of a region go through the same stubs as those of blocks.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time

from dbt.errors import GuestFault

from .baseline import Baseline
from .context import MAX_BLOCKS
from .formats import SPECIAL_HOT, StencilHead
from .former import Profile
from .layout import EXIT_HOT, JUMP_CACHE_ENTRIES, MODE_EXACT_FLAGS, MODE_HOT, PAGE_SIZE, Block, JumpEntry, Landing
from .table import HASH_SHIFT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from .cache import Store
    from .cpu import Cpu
    from .promoter import Promoter, Promotion, RegionCode

    Key = tuple[tuple[int, ...], bool, int]  # what a region depends on beside its bytes: see Promoter.begin
    Known = tuple[RegionCode, list[tuple[int, bytes]], Key]

THRESHOLD = 20000  # entries of a block before it is promoted: a region costs tens of milliseconds
MAX_COUNT = 1 << 22  # and while one is being made
WARM = 16  # a block is warm after this part of them
REGION_BYTES = 128 << 20  # of the arena
MAX_LANDINGS = 1 << 22
STUB_ROOM = 1 << 16  # bytes of the arena that dropping regions may need
MISJUDGED = 8  # accesses that only host addresses made fault: more of them, and whole sums are masked
JUMP = 0xE9
JUMP_BYTES = 5
NOTE = struct.Struct("<IIQ")  # a Landing
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
        self._known: dict[int, Known] = {}
        self._has_made: Promoter | None = None
        self._find: Any = self.runtime.image.function("find_block", U64, (U64,) * 2)
        self._pending: tuple[int, int, Key, Promotion] | None = None  # process, address, key
        self._count: dict[int, int] = {}  # of blocks that are counted again
        self._hot: set[int] = set()  # blocks that have been
        self._awaited: set[int] = set()  # blocks on which a worker has ended
        self._misjudged = 0
        self.seconds = 0.0  # waited for regions, and for what else is done here about them
        self.compiled = 0

    def close(self) -> None:
        if self._pending is not None and self._pending[0] == os.getpid():
            self._pending[3].abandon()
        super().close()

    def run(self) -> int:
        while True:
            reason = super().run()
            if reason != EXIT_HOT:
                return reason
            started = time.monotonic()
            self._promote(int(self.cpu.env.pc))
            self.seconds += time.monotonic() - started

    def flush(self) -> None:
        super().flush()
        self._placed.clear()
        self._hot.clear()
        self.ctx.n_landings = 0
        self._room = int(self.ctx.regions)

    def misjudged(self) -> None:
        self._misjudged += 1
        super().misjudged()

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

    def foresee(self, blocks: Mapping[int, Iterable[int]]) -> None:
        """Have regions made of blocks that will be hot, all at once, which costs less. Raises Interrupted.

        `blocks`: their addresses, and where indirect jumps near them will go.
        """
        key, started = self._key(), time.monotonic()
        wanted = [(pc, Profile(None, tuple(reached))) for pc, reached in blocks.items() if pc not in self._known]
        for pc, code, ranges in self._promoter().several(wanted, key, self._page):
            self._known[pc] = code, ranges, key
            self.compiled += 1
        self.seconds += time.monotonic() - started

    def _promote(self, pc: int) -> None:
        """Put a region in the place of the block at `pc`, have one made, or let the block be."""
        from .build import Interrupted

        self._hot.add(pc)
        try:
            if self._collect() == pc:
                return
            entry = self._table_entry(pc)
            if entry is None:
                return
            key = self._key()
            found = self._known.get(pc)
            changed = found is not None and not self._unchanged(found[1])
            if changed and self._often(pc):
                found = None
            elif found is None or found[2] != key or changed:
                if self.background and pc not in self._awaited:
                    self._begin(pc, key)
                    self._count_again(pc, int(entry.code))
                    return
                found = self._wait(pc, key)
        except Interrupted:
            return  # the native loop sees the signal first, and the block leaves again
        self._finish(pc, found)

    def _key(self) -> Key:
        index_bits = 0 if self._misjudged > MISJUDGED else self.cpu.memory.index_bits
        return tuple(self.stops()), bool(int(self.ctx.mode) & MODE_EXACT_FLAGS), index_bits

    def _wait(self, pc: int, key: Key) -> Known | None:
        answer = self._promoter().region(pc, key, self._page, self._profile())
        if answer is None:
            return None
        self.compiled += 1
        return (*answer, key)

    def _begin(self, pc: int, key: Key) -> None:
        """Have a region made, if none is being made. Raises Interrupted."""
        from .build import WorkerEnded

        if self._pending is None:
            try:
                self._pending = os.getpid(), pc, key, self._promoter().begin(pc, key, self._page, self._profile())
            except WorkerEnded:
                self._awaited.add(pc)  # which tries again, and says what there is to say

    def _collect(self) -> int | None:
        """Place the region that is being made if it is ready: its address. Raises Interrupted."""
        if self._pending is None:
            return None
        from .build import WorkerEnded
        from .promoter import NoRegion

        process, pc, key, promotion = self._pending
        self._pending = None
        if process != os.getpid():  # the parent's
            return None
        found = None
        try:
            if not promotion.ready():
                self._pending = process, pc, key, promotion
                return None
            found = promotion.result(), promotion.ranges, key
        except NoRegion as error:
            self._promoter().refused(pc, error)
        except WorkerEnded:
            self._awaited.add(pc)
            return None
        self._count.pop(pc, None)
        if found is not None:
            self.compiled += 1
            if key != self._key() or not self._unchanged(found[1]):
                return None
        self._finish(pc, found)
        return pc

    def _count_again(self, pc: int, block: int) -> None:
        """Let the block run for a while, each time for twice as long: looking costs some ten microseconds."""
        count = self._count[pc] = min(2 * self._count.get(pc, int(self.ctx.threshold)), MAX_COUNT)
        number = int(self._find(self.ctx_address, block))
        if number < int(self.ctx.n_blocks):
            ctypes.c_uint32.from_address(int(self.ctx.counters) + 4 * number).value = count

    def _finish(self, pc: int, found: Known | None) -> None:
        """Put a region in the place of the block at `pc`; None: have the block count no more."""
        entry = self._table_entry(pc)
        if entry is None or int(self.ctx.regions) <= int(entry.code) < int(self.ctx.regions_end):
            return
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

    def _promoter(self) -> Promoter:
        if self._has_made is None:
            from .promoter import Promoter

            self._has_made = Promoter(self.store, self.cpu.info.name)
        return self._has_made

    def _profile(self) -> Profile:
        """What has been entered some times: all where that is always."""
        ctx = self.ctx
        threshold = int(ctx.threshold)
        blocks = int(ctx.blocks) + Block.offset("pc")
        left = (ctypes.c_int32 * int(ctx.n_blocks)).from_address(int(ctx.counters))
        entered = {U64.from_address(blocks + at * Block.size).value: threshold - rest for at, rest in enumerate(left)}
        entered.update(dict.fromkeys(self._hot, threshold))  # counted again, they look as if they had not run
        some = threshold // WARM
        words = (U64 * (2 * JUMP_CACHE_ENTRIES)).from_address(int(ctx.jump_cache))[:]
        jumped = [pc for pc, code in zip(words[::2], words[1::2], strict=True) if code and pc in entered]
        jumped.sort(key=lambda pc: -entered[pc])
        warm = frozenset(pc for pc, count in entered.items() if count >= some) if some else None
        return Profile(warm, tuple(jumped))

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
        notes = b"".join(NOTE.pack(offset + access, offset + landing, at) for access, landing, at in code.landings)
        ctypes.memmove(int(ctx.landings) + known * Landing.size, notes, len(notes))
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
