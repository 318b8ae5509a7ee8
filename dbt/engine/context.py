"""The memory of one address space's translations: Ctx (layout.py), its buffers and the arena, set up for a guest.

All of it is mapped here and given back here; nothing of it is in buffers that Python owns.
"""

from __future__ import annotations

import ctypes
import struct

from dbt.errors import UserError

from . import hostmem
from .layout import (
    JUMP_CACHE_ENTRIES,
    LOOK_AHEAD,
    MAX_BLOCK,
    MAX_INSERTIONS,
    MAX_STOPS,
    N_PASS,
    PAGE_CACHE,
    PAGE_SIZE,
    Block,
    Ctx,
    Insertion,
    JumpEntry,
    Mapping,
    Part,
    Pass,
    Record,
)
from .runtime import PACK_RESERVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .guests import GuestInfo
    from .memory import AddressSpace

ARENA_BYTES = 512 << 20  # of address space; pages are committed as they are written
TABLE_ENTRIES = 1 << 19
MAX_BLOCKS = TABLE_ENTRIES // 2
MAX_OFFSETS = MAX_BLOCKS * 16
MAX_MAPPINGS = 1 << 16  # of a process the host's kernel has fewer (vm.max_map_count)
NOTHING = (1 << 32) - 1
NO_BLOCK = (1 << 64) - 1


class Context:
    """A Ctx and what it points to. `protection` is the arena's."""

    def __init__(self, protection: int) -> None:
        self._mapped: list[tuple[int, int]] = []
        self.address = self.anonymous(Ctx.size)
        ctx: Any = Ctx.at(self.address)
        self.ctx = ctx
        arena = hostmem.map_memory(
            PACK_RESERVE + ARENA_BYTES,
            protection,
            hostmem.MAP_PRIVATE | hostmem.MAP_ANONYMOUS | hostmem.MAP_NORESERVE,
        )
        self._mapped.append((arena, PACK_RESERVE + ARENA_BYTES))
        self.arena = arena  # the room for the pack, then the code
        ctx.arena = ctx.hot = ctx.hot_start = arena + PACK_RESERVE
        ctx.arena_end = ctx.cold = arena + PACK_RESERVE + ARENA_BYTES - 4096
        ctx.code, ctx.code_end = ctx.arena, ctx.arena_end
        sizes = {
            "table": TABLE_ENTRIES * JumpEntry.size,
            "blocks": MAX_BLOCKS * Block.size,
            "offsets": MAX_OFFSETS * 2,
            "records": (MAX_BLOCK + LOOK_AHEAD + 1) * Record.size,
            "parts": MAX_BLOCK * Part.size,
            "page_tags": PAGE_CACHE * 8,
            "page_data": PAGE_CACHE * PAGE_SIZE,
            "mappings": MAX_MAPPINGS * Mapping.size,
            "stops": MAX_STOPS * 8,
            "jump_cache": JUMP_CACHE_ENTRIES * JumpEntry.size,
            "empty_cache": JUMP_CACHE_ENTRIES * JumpEntry.size,
            "passes": N_PASS * Pass.size,
            "insertions": MAX_INSERTIONS * Insertion.size,
        }
        at = self.anonymous(sum((size + 63) & -64 for size in sizes.values()))
        for name, size in sizes.items():
            setattr(ctx, name, at)
            at += (size + 63) & -64
        self._stops: Any = (ctypes.c_uint64 * MAX_STOPS).from_address(int(ctx.stops))
        ctx.table_mask = TABLE_ENTRIES - 1
        ctx.max_blocks = MAX_BLOCKS
        ctx.max_offsets = MAX_OFFSETS
        ctx.instrumented = NO_BLOCK
        ctx.max_block = MAX_BLOCK
        for cache in (ctx.jump_cache, ctx.empty_cache):
            JumpEntry.at(int(cache)).pc = 4  # see table.clear_jump_cache

    def close(self) -> None:
        """Give back the memory."""
        for address, size in self._mapped:
            hostmem.unmap_memory(address, size)
        self._mapped.clear()

    def anonymous(self, size: int) -> int:
        """Zeroed memory that goes with the rest; its host address."""
        address = hostmem.map_anonymous(size)
        self._mapped.append((address, size))
        return address

    def release(self) -> None:
        """Give back what `anonymous` gave last."""
        hostmem.unmap_memory(*self._mapped.pop())

    # ---- the guest

    def set_tables(self, head: Any, at: int) -> None:
        """The decoder: TablesHead of a file that is mapped at `at`."""
        for name in ("nodes", "children", "forms", "operands", "tokens", "constants"):
            setattr(self.ctx, name, at + getattr(head, name))

    def set_guest(self, memory: AddressSpace, info: GuestInfo) -> None:
        """Guest memory, and where its system calls have what; Python makes all, until `pass_calls` says otherwise."""
        ctx = self.ctx
        ctx.base, ctx.mask, ctx.limit = memory.base, memory.mask, memory.limit
        ctypes.memset(int(ctx.passes), 0xFF, N_PASS * Pass.size)
        ctx.syscall_number = info.syscall_number
        ctx.syscall_result = info.syscall_result
        ctx.syscall_args[:] = info.syscall_args
        ctx.fd_limit = NOTHING

    def set_mappings(self, ranges: list[tuple[int, int, int]]) -> None:
        """What may be executed: (start, end, PROT_ bits), in order."""
        if len(ranges) > MAX_MAPPINGS:
            raise UserError(f"{len(ranges)} executable mappings are too many", f"At most {MAX_MAPPINGS}.")
        raw = struct.pack(f"<{3 * len(ranges)}Q", *(number for entry in ranges for number in entry))
        ctypes.memmove(int(self.ctx.mappings), raw, len(raw))
        self.ctx.n_mappings = len(ranges)

    def set_stops(self, addresses: list[int]) -> None:
        """Where to stop: addresses in order, at most MAX_STOPS."""
        self._stops[: len(addresses)] = addresses
        self.ctx.n_stops = len(addresses)

    def stops(self) -> list[int]:
        """Where to stop."""
        return list(self._stops[: int(self.ctx.n_stops)])

    def pass_calls(self, rows: Any, fd_limit: int) -> None:
        """Let native code make system calls: rows as in dbt/linux/passthrough.py, descriptors below `fd_limit`."""
        base = int(self.ctx.passes)
        self.ctx.fd_limit = fd_limit
        for number, _name, host, fds, kind, pointers in rows:
            sizes, counts, mask = [0] * 6, [0] * 8, 0
            for argument, unit, count, _null in pointers:
                mask |= 1 << argument
                sizes[argument] = unit
                counts[argument] = count + 1
            raw = (
                host.to_bytes(4, "little")
                + bytes((mask, fds, kind, 0))
                + b"".join(size.to_bytes(4, "little") for size in sizes)
                + bytes(counts)
            )
            ctypes.memmove(base + number * Pass.size, raw, Pass.size)

    def forbid_calls(self, numbers: Any) -> None:
        """Have Python make these calls (for --strace, and for hooks)."""
        for number in numbers:
            ctypes.memset(int(self.ctx.passes) + number * Pass.size, 0xFF, Pass.size)
