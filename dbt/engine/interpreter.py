"""The interpreter engine: handlers over steps (layout.Step). Python's side of it.

What translation makes of a block is data, and the handlers are mapped from a file of the cache: nothing that is both
writable and executable, nor anonymous and executable, is needed. Decoding, the block table, the native loop and all
else are the baseline engine's. Blocks that are hot get superinstructions (joiner.py).
"""

from __future__ import annotations

import ctypes
import mmap

from .baseline import Baseline
from .formats import SPECIAL_ENTRY, SPECIAL_LEAVE, StencilHead
from .layout import EXIT_BUS, EXIT_FAULT, EXIT_HOT, MODE_COUNT, MODE_HOT, MODE_STEPS
from .runtime import PACK_RESERVE, SNIPPET_ROOM, Loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cache import Store
    from .cpu import Cpu
    from .joiner import Joiner

THRESHOLD = 1 << 13  # entries of a block before it is worth while to look for superinstructions


class Interpreter(Baseline):
    """Steps of one address space."""

    job = "handlers"
    arena_protection = mmap.PROT_READ | mmap.PROT_WRITE
    short_budget = 1 << 8
    exact_tail = 64  # more than liveness looks ahead: all flags are written again by then

    def __init__(self, cpu: Cpu, store: Store) -> None:
        self._kept = False
        self.joiner: Joiner | None = None
        super().__init__(cpu, store)
        self.ctx.mode = self.ctx.mode | MODE_STEPS | MODE_HOT
        self.ctx.threshold = THRESHOLD

    def close(self) -> None:
        if self.joiner is not None:
            self.joiner.close()
        super().close()

    def run(self) -> int:
        while (reason := super().run()) == EXIT_HOT:
            if self.joiner is None:
                from .joiner import Joiner

                self.joiner = Joiner(self)
            self.joiner.hot(int(self.cpu.env.pc))
        return reason

    def run_exactly(self, count: int) -> int:
        """Run `count` instructions and leave with every flag exact, natively."""
        cpu, env, ctx = self.cpu, self.cpu.env, self.ctx
        if cpu.instrumentation is not None and cpu.instrumentation.plugins:
            return super().run_exactly(count)  # blocks that are cut are not shown to plugins
        mode = int(ctx.mode)
        ctx.mode = mode | MODE_COUNT  # what cannot be compiled counts as well
        env.budget = count
        try:
            reason = self.drive(self.runtime.run_exactly)
        finally:
            ctx.mode = mode
            cpu.executed += count - int(env.budget)
        return cpu.faults.find() if reason in (EXIT_FAULT, EXIT_BUS) else reason

    def invalidate(self, start: int, end: int) -> None:
        """Steps are no code that a jump could be written to: all are forgotten."""
        if self.runtime.touches_code(self.ctx_address, start, end):
            self.flush()
        else:
            self.runtime.forget_pages(self.ctx_address)

    def step(self) -> int:
        """Run one instruction, also one at a stop address."""
        stops = int(self.ctx.n_stops)
        self.ctx.n_stops = 0
        try:
            return self.run_exactly(1)
        finally:
            self.ctx.n_stops = stops

    def statistics(self) -> dict[str, int]:
        return {**super().statistics(), "superinstructions": self.joiner.count if self.joiner is not None else 0}

    def keep_flags(self, *, on: bool) -> None:
        self._kept = on
        super().keep_flags(on=on or bool(self.ctx.n_stops))

    def set_stops(self, addresses: frozenset[int]) -> None:
        super().set_stops(addresses)
        self.keep_flags(on=self._kept)

    def place_snippet(self, name: str, data: bytes, used: int) -> int:
        """Map what a tool inserts, since nothing that can be written is executed: the pages of the room it takes."""
        pages = -(-len(data) // mmap.PAGESIZE) * mmap.PAGESIZE
        if used + pages <= SNIPPET_ROOM:
            at = int(self.ctx.pack) + PACK_RESERVE - SNIPPET_ROOM + used
            Loaded(self.store, name, at, pages, code=True)
        return pages

    def _load_pack(self) -> None:
        """Steps hold addresses in the file that was mapped before."""
        self.ctx.leave = 0
        super()._load_pack()
        self.flush()

    def _place_specials(self, pack: int, index: int) -> None:
        """All handlers stay where they are mapped."""
        ctx = self.ctx
        for name, number in (("leave", SPECIAL_LEAVE), ("entry", SPECIAL_ENTRY)):
            at = pack + ctypes.c_uint32.from_address(index + 4 * number).value
            setattr(ctx, name, at + int(StencilHead.at(at).code))
        ctx.code, ctx.code_end = pack, pack + PACK_RESERVE
        self.cpu.env.leave_code = ctx.leave
