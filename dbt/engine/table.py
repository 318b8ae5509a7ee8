"""The table of translated blocks, native: guest PC to host code, in open addressing.

Neighbouring PCs share pages of the table, so a short program touches little of it.
"""

from __future__ import annotations

from dbt.native import Ptr, cast, native, rotl, u16, u32, u64, unlikely

from .decode import fetch_page
from .layout import JUMP_CACHE_ENTRIES, LOOK_AHEAD, LOOKS, NOWHERE, PAGE_CACHE, Block, Ctx, JumpEntry

HASH_FACTOR = 0x9E3779B97F4A7C15
HASH_SHIFT = 4  # blocks are that far apart, mostly: few slots stay empty, and few pages are touched


@native(inline=True)
def look_up(c: Ctx, pc: u64) -> u64:
    """The host code of the block at `pc`, 0 if there is none."""
    table = c.table
    mask = c.table_mask
    at = (pc >> HASH_SHIFT) & mask
    while True:
        entry = table[at]
        if entry.pc == pc and entry.code:
            return entry.code
        if entry.code == 0:
            return 0
        at = (at + 1) & mask


@native(inline=False)
def insert(c: Ctx, pc: u64, code: u64) -> None:
    """Add a block; the caller has seen to it that there is room and that it is not there yet."""
    at = (pc >> HASH_SHIFT) & c.table_mask
    while c.table[at].code:
        at = (at + 1) & c.table_mask
    c.table[at].pc = pc
    c.table[at].code = code
    c.table_used += 1


@native(export=True)
def clear_jump_cache(cache: Ptr[JumpEntry]) -> None:
    """Empty a jump cache. Entry 0 gets an address that belongs to entry 1, since 0 would match guest address 0."""
    for i in range(u64(JUMP_CACHE_ENTRIES)):
        cache[i].pc = 0
        cache[i].code = 0
    cache[0].pc = 4


@native(export=True)
def flush(c: Ctx) -> None:
    """Forget all translated blocks. Only outside of translated code."""
    table = c.table
    for b in range(c.n_blocks):
        # Emptying the slots of the blocks there were costs less than clearing the whole table.
        block = c.blocks[b]
        at = (block.pc >> HASH_SHIFT) & c.table_mask
        while table[at].code:
            table[at].code = 0
            table[at].pc = 0
            at = (at + 1) & c.table_mask
    clear_jump_cache(c.jump_cache)
    forget_pages(c)
    c.table_used = 0
    c.n_blocks = 0
    c.n_dead = 0
    c.n_offsets = 0
    c.hot = c.hot_start
    c.cold = c.arena_end
    c.n_flushes += 1


@native(export=True)
def forget_pages(c: Ctx) -> None:
    """Forget the guest pages that translation has copied: they may have changed."""
    for i in range(u64(PAGE_CACHE)):
        c.page_tags[i] = 0


@native(inline=True)
def hash_words(c: Ctx, hashed: u64, pc: u64, n: u32) -> u64:
    """A hash with the n instruction words from `pc` on, up to a page that may not be executed."""
    for _ in range(n):
        page = fetch_page(c, pc)
        if not page:
            return hashed + 1
        hashed = (rotl(hashed, 23) ^ cast(Ptr[u32], page + (pc & 4095))[0]) * HASH_FACTOR
        pc += 4
    return hashed


@native(inline=True)
def hash_block(c: Ctx, block: Block) -> u64:
    """A hash of all guest bytes that the translation of a block depends on."""
    hashed = hash_words(c, 0, block.pc, block.n)
    for i in range(u32(LOOKS)):
        if block.looks[i] != NOWHERE:
            hashed = hash_words(c, hashed, block.looks[i], LOOK_AHEAD)
    return hashed


@native(inline=False)
def note_block(c: Ctx, pc: u64, code: u64, size: u64, n: u32, guest_size: u32) -> None:
    """Enter a translated block into the table and the list that faults are looked up in."""
    note_code(c, pc, code, size, n, guest_size)
    insert(c, pc, code)


@native(inline=False)
def note_code(c: Ctx, pc: u64, code: u64, size: u64, n: u32, guest_size: u32) -> None:
    """Enter a translated block into the list that faults are looked up in."""
    block = c.blocks[c.n_blocks]
    block.pc = pc
    block.code = code
    block.size = u32(size)
    block.n = n
    block.guest_size = guest_size
    block.first = u32(c.n_offsets)
    for i in range(u64(LOOKS)):
        block.looks[i] = c.looks[i] if i < c.n_looks else u64(NOWHERE)
    block.hash = hash_block(c, block)
    c.n_blocks += 1
    c.n_offsets += n


@native(export=True)
def still_valid(c: Ctx) -> u32:
    """1 if the guest memory of all translated blocks holds what they were translated from, and may be executed."""
    for b in range(c.n_blocks):
        if hash_block(c, c.blocks[b]) != c.blocks[b].hash:
            return 0
    return 1


@native(export=True)
def touches_code(c: Ctx, start: u64, end: u64) -> u32:
    """1 if the translation of any block depends on guest bytes in [start, end)."""
    for b in range(c.n_blocks):
        block = c.blocks[b]
        if block.pc < end and start < block.pc + block.guest_size:
            return 1
        for i in range(u32(LOOKS)):
            if block.looks[i] < end and start < block.looks[i] + 4 * LOOK_AHEAD:
                return 1
    return 0


@native(export=True)
def find_block(c: Ctx, host: u64) -> u64:
    """The number of the block whose code holds the host address; all ones if there is none.

    Blocks lie in the order in which they were made, so the list is sorted by code.
    """
    low: u64 = 0
    high = c.n_blocks
    while low < high:
        middle = (low + high) >> 1
        if c.blocks[middle].code <= host:
            low = middle + 1
        else:
            high = middle
    if unlikely(low == 0):
        return u64(-1)
    block = c.blocks[low - 1]
    if host >= block.code + block.size:
        return u64(-1)
    return low - 1


@native(export=True)
def find_instruction(c: Ctx, host: u64) -> u64:
    """The guest PC of the instruction whose code holds the host address; all ones if there is none."""
    found = find_block(c, host)
    if unlikely(found == u64(-1)):
        return found
    block = c.blocks[found]
    offset = u16(host - block.code)
    i: u64 = 0
    while i + 1 < block.n and c.offsets[block.first + i + 1] <= offset:
        i += 1
    return block.pc + 4 * i
