"""Forgetting translations of some guest bytes, native: the blocks that depend on them, and no others.

A block that is dropped leaves the table and the jump cache, and its first bytes become a jump to a link stub: whatever
jumps to it comes to the dispatcher once, which translates what is there now and patches the jump. So nobody need know
who jumps where. The room of dropped code comes back with the next flush, which a full arena or list of blocks brings.

Never while translated code of this address space runs: native code is outside of it then, and goes on by its PC.
"""

from __future__ import annotations

from dbt.native import Ptr, cast, native, u8, u32, u64

from .emit import branch_target
from .layout import JUMP_CACHE_ENTRIES, LOOK_AHEAD, LOOKS, NOWHERE, Block, Ctx
from .table import HASH_SHIFT

NOTHING, DROPPED, ALL = 0, 1, 2  # what drop_blocks says: no block, those blocks; that everything has to be flushed
MOST = 256  # blocks that are dropped one by one
DEAD = 256  # blocks that may always be dead
STUB_ROOM = 1 << 16  # bytes for their stubs
JUMP, JUMP_BYTES = 0xE9, 5


@native(inline=True)
def depends(block: Block, start: u64, end: u64) -> u32:
    """1 if the translation of the block depends on guest bytes in [start, end)."""
    if block.pc < end and start < block.pc + block.guest_size:
        return 1
    for i in range(u32(LOOKS)):
        if block.looks[i] < end and start < block.looks[i] + 4 * LOOK_AHEAD:
            return 1
    return 0


@native(inline=False)
def remove(c: Ctx, pc: u64, code: u64) -> None:
    """Take an entry out of the table; those behind it move up, so that all are found still."""
    table = c.table
    mask = c.table_mask
    gap = (pc >> HASH_SHIFT) & mask
    while table[gap].pc != pc or table[gap].code == 0:
        if table[gap].code == 0:
            return
        gap = (gap + 1) & mask
    if table[gap].code != code:
        return
    at = gap
    while True:
        at = (at + 1) & mask
        if table[at].code == 0:
            break
        wanted = (table[at].pc >> HASH_SHIFT) & mask
        # It may move to the gap unless the place it wants lies behind the gap (round the end of the table).
        if ((at - wanted) & mask) >= ((at - gap) & mask):
            table[gap].pc = table[at].pc
            table[gap].code = table[at].code
            gap = at
    table[gap].pc = 0
    table[gap].code = 0
    c.table_used -= 1


@native(export=True)
def drop_code(c: Ctx, pc: u64, code: u64) -> None:
    """Have nothing run the code of the block, or region, at `pc` any more: see above."""
    remove(c, pc, code)
    index = (pc >> 2) & (JUMP_CACHE_ENTRIES - 1)
    cached = c.jump_cache[index]
    if cached.code == code:
        cached.pc = u64(4) if index == 0 else u64(0)
        cached.code = 0
    stub = branch_target(c, pc, code + 1)
    cast(Ptr[u8], code)[0] = u8(JUMP)
    cast(Ptr[u32], code + 1)[0] = u32(stub - (code + JUMP_BYTES))
    c.n_dropped += 1
    c.n_dead += 1


@native(export=True)
def drop_blocks(c: Ctx, start: u64, end: u64) -> u32:
    """Drop the blocks that depend on guest bytes in [start, end): NOTHING, DROPPED, or ALL, if that cannot be done."""
    count: u32 = 0
    for b in range(c.n_blocks):
        block = c.blocks[b]
        if depends(block, start, end):
            count += 1
            if count > MOST or block.size < JUMP_BYTES:
                return ALL
    if count == 0:
        return NOTHING
    # Dead blocks take room, and time of whoever looks through the list: not more of them than there are others.
    if c.cold - c.hot < STUB_ROOM or 2 * c.n_dead > c.n_blocks + DEAD:
        return ALL
    for b in range(c.n_blocks):
        block = c.blocks[b]
        if depends(block, start, end):
            pc = block.pc
            code = block.code
            block.pc = NOWHERE
            block.n = 0
            block.guest_size = 0
            for i in range(u32(LOOKS)):
                block.looks[i] = NOWHERE
            block.hash = 0
            drop_code(c, pc, code)
    return DROPPED
