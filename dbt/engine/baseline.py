"""The baseline engine: copy-and-patch translation, run by the native runtime. Python's side of it."""

from __future__ import annotations

import ctypes
import mmap

from dbt.errors import InternalError, UserError

from .cache import say_once
from .context import Context
from .formats import N_SPECIAL, SPECIAL_ENTRY, SPECIAL_LEAVE, FormInfo, StencilHead
from .helpers import HELPERS
from .layout import (
    CONDITIONS,
    EXIT_BUDGET,
    EXIT_EVENT,
    EXIT_FULL,
    EXIT_ICACHE,
    EXIT_INSTRUMENT,
    EXIT_STENCIL,
    FUSED_STENCIL,
    FUSED_VARIANTS,
    MAX_BLOCK,
    MAX_STOPS,
    MODE_COUNT,
    MODE_EXACT_FLAGS,
    MODE_NO_LIVENESS,
    VARIANTS,
)
from .runtime import PACK_RESERVE, SNIPPET_ROOM, load_pack, load_runtime, load_tables
from .signals import Signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .cache import Store
    from .cpu import Cpu

FEW_STOPS = 16  # that may come and go without a flush
DROP_ALL = 2  # of invalidate.drop_blocks: it cannot be done one by one
_ALL_FLAGS = MODE_EXACT_FLAGS | MODE_NO_LIVENESS
WALK_LIMIT = 1 << 13  # instructions that are looked at ahead when a stencil is missing
SNIPPET_SLACK = 64  # behind a stencil: emit.copy_code reads whole words
COMPILE_TRIES = 2  # for a stencil: a pack that was damaged before it was loaded is built without any


class Kernel:
    """Raw system calls of the host: results are -errno, nothing is restarted."""

    __slots__ = ("_env", "_raw", "_wait")

    def __init__(self, raw: Any, wait: Any, env_address: int) -> None:
        self._raw = raw
        self._wait = wait
        self._env = env_address

    def call(self, number: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0, e: int = 0, f: int = 0) -> int:
        """Make a system call in any case."""
        return int(self._raw(number, a, b, c, d, e, f))

    def wait(self, number: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0, e: int = 0, f: int = 0) -> int:
        """The same for a call that may wait: -512 if a signal for the guest was noted before it began."""
        return int(self._wait(self._env, number, a, b, c, d, e, f))


class Baseline:
    """Translated code of one address space."""

    job = "stencils"  # of the worker, when something is missing
    short_budget = 0  # up to so many instructions run_exactly is better than counting, which flushes
    exact_tail = 0  # so many instructions run_exactly runs at the end of a budget
    arena_protection = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC

    def __init__(self, cpu: Cpu, store: Store) -> None:
        self.store = store
        self.cpu = cpu
        store.prepare(cpu.info.name, self.job)
        self.runtime = load_runtime(store)
        self._tables, at = load_tables(store, cpu.info.name)
        self.context = Context(self.arena_protection)
        self.ctx_address, self.ctx = self.context.address, self.context.ctx
        self.context.set_tables(self._tables, at)
        self.context.set_guest(cpu.memory, cpu.info)
        self._failed: set[int] = set()
        self._constants = b""  # those of the pack, which translated code refers to
        self._recheck = False
        self._load_pack()
        env = cpu.env
        env.ctx = self.ctx_address
        env.jump_cache = self.ctx.jump_cache
        for name, helper in HELPERS.items():
            env.helpers[helper.index] = self.runtime.image.address(f"helper_{name}")
        self.kernel = Kernel(self.runtime.raw, self.runtime.wait, cpu.env_address)
        self.signals = Signals(self.runtime, env)
        self.signals.start(cpu.env_address)

    def close(self) -> None:
        """Give back the memory."""
        self.signals.stop()
        self.context.close()

    # ---- running

    def run(self) -> int:
        """Run until a reason that the caller has to see."""
        return self.drive(self.runtime.run)

    def run_exactly(self, count: int) -> int:
        """Run `count` instructions; blocks are not cut here, so the reference engine does it."""
        return self.cpu.interpret(count)

    def run_budget(self, budget: int) -> int:
        """Run until the same, or EXIT_BUDGET behind exactly `budget` instructions; Cpu.executed goes up."""
        if budget <= self.short_budget:
            return self.run_exactly(budget)
        env = self.cpu.env
        self.count_instructions(on=True)
        env.budget = budget - self.exact_tail
        try:
            reason = self.run()
        finally:
            left = int(env.budget) + self.exact_tail
            self.cpu.executed += budget - left
        if reason == EXIT_BUDGET and left:
            return self.run_exactly(left)
        return reason

    def step(self) -> int:
        """Run one instruction."""
        return self.run_exactly(1)

    def drive(self, native: Callable[[int], int]) -> int:
        """Call one of the native loops until a reason that the caller has to see."""
        env = self.cpu.env
        while True:
            if self.cpu.memory.code_changed:
                self._tell_mappings()
            tools = self.cpu.instrumentation
            if tools is not None and tools.enter():
                return tools.enter_reason
            reason = native(self.cpu.env_address)
            if reason == EXIT_STENCIL:
                if not self._compile(int(env.value)):
                    if self.ctx.mode & MODE_COUNT and not env.budget:
                        return EXIT_BUDGET
                    reason = self._interpret()
                    if reason != EXIT_BUDGET:
                        return reason
            elif reason == EXIT_FULL:
                self.flush()
            elif tools is not None and reason == EXIT_INSTRUMENT:
                tools.insert()
            elif tools is not None and reason == EXIT_EVENT:
                tools.event()
            elif reason == EXIT_ICACHE:
                line = env.value & -64
                self.invalidate(line, line + 64)
            else:
                return int(reason)

    background = False  # the guest goes on while something better than what it runs is compiled

    def flush(self) -> None:
        """Forget all translations."""
        self.runtime.flush(self.ctx_address)

    def expect_exec(self) -> None:
        """All guest memory is about to be replaced: keep translations if what comes is the same code (see run)."""
        self._recheck = True

    def invalidate(self, start: int, end: int) -> None:
        """Forget what was translated from guest bytes in [start, end)."""
        self.runtime.forget_pages(self.ctx_address)
        if self.runtime.drop_blocks(self.ctx_address, start, end) == DROP_ALL:
            self.flush()

    def count_instructions(self, *, on: bool) -> bool:
        """Count instructions at block heads (Env.budget goes down); returns what it was before."""
        before = bool(self.ctx.mode & MODE_COUNT)
        if before != on:
            self.ctx.mode = self.ctx.mode ^ MODE_COUNT
            self.flush()
        return before

    def keep_flags(self, *, on: bool) -> None:
        """Whether every flag write is kept that anybody could see at a stop."""
        mode = int(self.ctx.mode)
        wanted = mode | _ALL_FLAGS if on else mode & ~_ALL_FLAGS
        if wanted != mode:
            self.ctx.mode = wanted
            self.flush()

    def misjudged(self) -> None:
        """An access has faulted on the host that does not on the guest: its code has changed, or its address wraps."""
        self.flush()

    def set_stops(self, addresses: frozenset[int]) -> None:
        """Stop before instructions at these addresses (EXIT_UNTIL)."""
        if len(addresses) > MAX_STOPS:
            raise UserError(f"{len(addresses)} stop addresses are too many", f"At most {MAX_STOPS}.")
        changed = addresses ^ frozenset(self.stops())
        self.context.set_stops(sorted(addresses))
        # With exact flags a stop is nothing to any code but that at its address.
        if self.ctx.mode & _ALL_FLAGS == _ALL_FLAGS and len(changed) <= FEW_STOPS:
            for address in changed:
                self.invalidate(address & -4, (address & -4) + 4)
        else:
            self.flush()

    def stops(self) -> list[int]:
        """The stop addresses, in order."""
        return self.context.stops()

    def pass_calls(self, rows: Any, fd_limit: int) -> None:
        """Let native code make system calls: see Context.pass_calls."""
        self.context.pass_calls(rows, fd_limit)

    def forbid_calls(self, numbers: Any) -> None:
        """Have Python make these calls."""
        self.context.forbid_calls(numbers)

    def hwcap(self) -> tuple[int, int]:
        """AT_HWCAP and AT_HWCAP2 of what the rows implement."""
        return int(self._tables.hwcap), int(self._tables.hwcap2)

    def hurry(self) -> None:
        """After the poll word was set: let indirect branches leave as well."""
        self.cpu.env.jump_cache = self.ctx.empty_cache

    # ---- stencils

    def _compile(self, wanted: int) -> bool:
        """A stencil is missing: have it compiled, with others that code from here on needs.

        False if it cannot be, and the block has to be interpreted. An answer that a signal does not wait for is none:
        the native loop sees the signal first, and asks again.
        """
        if wanted in self._failed:
            return False
        from .build import Interrupted
        from .children import last_words

        kind, why = "worker", "what is compiled gets lost"
        try:
            needed = self._needed(int(self.cpu.env.pc)) | {wanted}
            for _ in range(COMPILE_TRIES):
                failed = self.store.compile(self.cpu.info.name, needed, self.job)
                self._load_pack()
                if wanted in failed:
                    kind, why = f"form {self._name(wanted)}", failed[wanted]
                if wanted in failed or self._has(wanted):
                    break
        except Interrupted:
            return True
        except InternalError as error:
            why = last_words(str(error))
        if self._has(wanted):
            return True
        self._failed.add(wanted)
        say_once(kind, f"{self._name(wanted)} is interpreted: {why}", quiet=self.store.quiet)
        return False

    def _interpret(self) -> int:
        """Run the block at pc, which cannot be translated, on the reference engine; EXIT_BUDGET: go on."""
        cpu, env = self.cpu, self.cpu.env
        counted = bool(self.ctx.mode & MODE_COUNT)
        limit = min(MAX_BLOCK, int(env.budget)) if counted else MAX_BLOCK
        before = cpu.executed
        reason = cpu.interpret(limit)
        if counted:
            env.budget -= cpu.executed - before
            cpu.executed = before
        return reason

    def _needed(self, start: int) -> set[int]:
        """Stencils for the instructions that can be reached from `start`, as far as that can be told, up to a limit."""
        forms, pairs = self._tables.n_forms, self._tables.n_fusable * CONDITIONS
        notes = (forms + pairs + 7) & -8
        seen = self.context.anonymous(notes + 5 * 8 * WALK_LIMIT)
        self.runtime.walk(self.ctx_address, start, WALK_LIMIT, seen, seen + forms, seen + notes)
        noted = ctypes.string_at(seen, forms + pairs)
        self.context.release()
        from .needs import stencils_for

        return stencils_for(noted[:forms], noted[forms:], self.ctx, forms)

    def updates(self, pc: int) -> bool:
        """Whether the instruction at `pc` reads what it writes, in one access."""
        forms = self._tables.n_forms
        seen = self.context.anonymous(forms + self._tables.n_fusable * CONDITIONS)
        self.runtime.scan(self.ctx_address, pc, 4, seen, seen + forms)
        found = ctypes.string_at(seen, forms)
        self.context.release()
        form = next((number for number in range(1, forms) if found[number]), 0)
        return bool(FormInfo.at(int(self.ctx.forms) + form * FormInfo.size).updates)

    def _has(self, index: int) -> bool:
        table = self.ctx.fused if index & FUSED_STENCIL else self.ctx.stencils
        return bool(ctypes.c_uint32.from_address(int(table) + 4 * (index & (FUSED_STENCIL - 1))).value)

    def _name(self, index: int) -> str:
        from dbt.frontends.guest import load_guest

        if index & FUSED_STENCIL:
            return f"pair {(index & (FUSED_STENCIL - 1)) // FUSED_VARIANTS}"
        return load_guest(self.cpu.info.name).tables.forms[index // VARIANTS].name

    def place_snippet(self, _name: str, data: bytes, used: int) -> int:
        """Copy a file of what tools insert to behind the first `used` bytes of its room; how many bytes it takes.

        Nothing is copied where there is no room for it.
        """
        taken = (len(data) + SNIPPET_SLACK + 15) & -16
        if used + taken <= SNIPPET_ROOM:
            ctypes.memmove(int(self.ctx.pack) + PACK_RESERVE - SNIPPET_ROOM + used, data, len(data))
        return taken

    def _load_pack(self) -> None:
        """Load the stencil pack to in front of the arena, whose code refers to its constants.

        A pack grows, and then its constants stay where they are. Where the cache was removed it is another one.
        """
        ctx = self.ctx
        head = load_pack(self.store, self.cpu.info.name, self.job, self.context.arena)
        pack = self.context.arena
        ctx.pack = pack
        ctx.stencils = pack + head.index
        ctx.fused = pack + head.fused
        ctx.special = pack + head.special
        ctx.rodata = pack + head.rodata
        if head.n_forms != self._tables.n_forms or head.n_fusable != self._tables.n_fusable:
            raise InternalError("the stencil pack does not belong to the decoder tables; 'dragoman cache clear' helps")
        if not ctx.leave:
            self._place_specials(pack, pack + head.special)
        specials = (ctypes.c_uint32 * N_SPECIAL).from_address(pack + head.special)
        first = min((at for at in specials if at), default=head.rodata)  # they are behind the constants
        constants = ctypes.string_at(pack + head.rodata, first - head.rodata)
        if not constants.startswith(self._constants):
            self.flush()
        self._constants = constants

    def _place_specials(self, pack: int, index: int) -> None:
        """Copy the entry and leave stencils to the start of the arena. They refer to nothing but themselves."""
        ctx = self.ctx
        place = ctx.hot
        for name, number in (("leave", SPECIAL_LEAVE), ("entry", SPECIAL_ENTRY)):
            at = pack + ctypes.c_uint32.from_address(index + 4 * number).value
            head = StencilHead.at(at)
            if head.n_holes:
                raise InternalError(f"the {name} stencil has holes")
            ctypes.memmove(place, at + head.code, head.code_size)
            setattr(ctx, name, place)
            place += (head.code_size + 15) & -16
        ctx.hot = ctx.hot_start = place

    def _tell_mappings(self) -> None:
        """The executable mappings have changed."""
        self.context.set_mappings(self.cpu.memory.executable_ranges())
        self.runtime.forget_pages(self.ctx_address)
        self.cpu.memory.code_changed = False
        if self._recheck:
            # A shell executes itself again and again: its code need not be translated each time.
            self._recheck = False
            if not self.runtime.still_valid(self.ctx_address):
                self.flush()

    def statistics(self) -> dict[str, int]:
        """Figures for --stats."""
        ctx = self.ctx
        return {
            "blocks": ctx.n_blocks,
            "guest instructions translated": ctx.n_instructions,
            "host bytes": ctx.host_bytes,
            "links patched": ctx.n_links,
            "indirect misses": ctx.n_indirect,
            "entries": ctx.n_entries,
            "native system calls": ctx.n_syscalls,
            "flushes": ctx.n_flushes,
            "blocks dropped": ctx.n_dropped,
        }
