"""Translation of a block, native: decode into records, have variants chosen (variants.py), emit.

A block ends at a branch. Where the branch may fall through, translation goes on with the block behind it, so that
the fall-through costs no jump; each is a block of its own in the table.
"""

from __future__ import annotations

from dbt.native import Ptr, cast, i64, native, new, u8, u16, u32, u64, unlikely

from .decode import decode, fetch_page
from .emit import put, put_counter, put_insertions, put_jump, put_special, put_stop
from .formats import ENDS_ALWAYS, ENDS_DIRECT, SPECIAL_COUNT
from .layout import (
    CONDITIONS,
    EXIT_FETCH,
    EXIT_FULL,
    EXIT_INSTRUMENT,
    EXIT_STENCIL,
    EXIT_UNDEFINED,
    EXIT_UNTIL,
    FUSED_STENCIL,
    FUSED_VARIANTS,
    MAX_BLOCK,
    MODE_COUNT,
    MODE_HOT,
    MODE_INSTRUMENT,
    MODE_NO_FUSION,
    MODE_STEPS,
    NOWHERE,
    POLL,
    POLL_FUSED,
    VARIANTS,
    WIDE,
    Ctx,
    Env,
    Step,
    Values,
)
from .steps import put_step
from .superinstructions import plan
from .table import look_up, note_block
from .variants import ALL_FLAGS, ENDS, choose_variants, flags_behind, is_stop

ROOM = 1 << 16  # host bytes that one block with its link stubs may need at most
CHAIN = 4  # blocks translated behind each other in one go


@native(inline=True)
def fused_stencil(c: Ctx, n: u32, behind: u32) -> i64:
    """The index of the fused stencil for the last two records of a block, -1 if they do not fuse."""
    if n < 2 or behind or c.mode & MODE_NO_FUSION:
        return -1
    if c.n_insertions and c.insertions[c.n_insertions - 1].index == n - 1:
        return -1
    first = c.records[n - 2]
    second = c.records[n - 1]
    a = u32(c.forms[first.form].fuse_first)
    b = u32(c.forms[second.form].fuse_second)
    if a == 0 or b == 0:
        return -1
    variant = u32(first.variant & WIDE) | u32(second.variant & WIDE)
    if second.variant & POLL:
        variant |= POLL_FUSED
    return i64(((a - 1) * CONDITIONS + (b - 1)) * FUSED_VARIANTS + variant)


@native(inline=True)
def leave_with(env: Env, reason: u64, pc: u64, value: u64) -> u64:
    """Note why there is no code; returns 0."""
    env.exit = reason
    env.pc = pc
    env.value = value
    return 0


@native(inline=False)
def read_block(c: Ctx, pc0: u64) -> u32:
    """Decode the block at `pc0` into c.records; returns how many records, 0 if the first cannot be decoded.

    An undefined or unreadable instruction behind others ends the block before it.
    """
    pc = pc0
    n: u32 = 0
    c.n_looks = 0
    c.block_flags = 0
    while n < c.max_block:
        if n and c.n_stops and is_stop(c, pc):
            break
        page = fetch_page(c, pc)
        if unlikely(not page):
            break
        r = c.records[n]
        word = cast(Ptr[u32], page + (pc & 4095))[0]
        form = decode(c, word, pc, r)
        if unlikely(form == 0):
            break
        c.block_flags |= u64(c.forms[form].flags_written)
        n += 1
        pc += r.length
        if c.forms[form].ends & ENDS:
            break
    return n


@native(inline=False)
def missing(c: Ctx, env: Env, n: u32, fused: i64) -> u32:
    """1 if a stencil of the block is not compiled yet; then it is in env.value."""
    last = n
    if fused >= 0:
        last = n - 2
        if c.fused[fused] == 0:
            env.value = FUSED_STENCIL | u64(fused)
            return 1
    for i in range(last):
        r = c.records[i]
        index = u32(r.form) * VARIANTS + r.variant
        if c.stencils[index] == 0:
            env.value = index
            return 1
    return 0


@native(inline=False)
def emit_block(c: Ctx, n: u32, fused: i64, start: Ptr[u8]) -> Ptr[u8]:
    """Emit the records of a block; returns the place behind its code."""
    v = new(Values)
    p = start
    pc0 = c.records[0].pc
    v.count = n
    v.site = 0
    v.npc = i64(pc0)
    if c.mode & MODE_STEPS:
        plan(c, n, fused)
    if c.mode & MODE_HOT and c.mode & (MODE_STEPS | MODE_COUNT) != MODE_COUNT:
        p = put_counter(c, p, c.records[0], v)  # in front of the count: who leaves here has not run the block
    if c.mode & MODE_COUNT:
        p = put_special(c, p, SPECIAL_COUNT, c.records[0], v)
    offsets = c.offsets + c.n_offsets
    single = n
    if fused >= 0:
        single = n - 2
    c.insertion = 0
    for i in range(single):
        r = c.records[i]
        offsets[i] = u16(cast(u64, p) - cast(u64, start))
        if unlikely(c.insertion < c.n_insertions):
            p = put_insertions(c, p, i)
        v.npc = i64(r.pc + r.length)
        stencil = c.stencils[u32(r.form) * VARIANTS + r.variant]
        if c.mode & MODE_STEPS:
            step = cast(Step, p)
            p = put_step(c, p, stencil, r, u32(c.forms[r.form].ends) & ENDS_DIRECT)
            if c.parts[i].handler:
                step.handler = c.parts[i].handler
        else:
            p = put(c, p, stencil, r, v)
    if fused >= 0:
        r = c.records[n - 2]
        branch = c.records[n - 1]
        offsets[n - 2] = u16(cast(u64, p) - cast(u64, start))
        offsets[n - 1] = offsets[n - 2]
        if unlikely(c.insertion < c.n_insertions):
            p = put_insertions(c, p, n - 2)
        # The pair's stencil takes operands from the first record, target, pc and next pc from the second.
        r.target = branch.target
        r.pc = branch.pc
        v.npc = i64(branch.pc + branch.length)
        p = put_step(c, p, c.fused[fused], r, 1) if c.mode & MODE_STEPS else put(c, p, c.fused[fused], r, v)
    return p


@native(inline=False)
def translate_one(env: Env, c: Ctx, pc: u64, start: Ptr[u8]) -> Ptr[u8]:
    """Translate the block at `pc` to `start` and enter it; returns the place behind its code.

    Returns null where there is none, with the reason in env.exit, env.pc and env.value. c.next_pc is where it falls
    through to, all ones where it does not.
    """
    if unlikely(cast(u64, start) + ROOM > c.cold or c.n_blocks + 1 >= c.max_blocks or c.table_used * 2 > c.table_mask):
        return cast(Ptr[u8], leave_with(env, EXIT_FULL, pc, 0))
    if unlikely(c.n_offsets + MAX_BLOCK > c.max_offsets):
        return cast(Ptr[u8], leave_with(env, EXIT_FULL, pc, 0))
    if unlikely(pc & 3):
        return cast(Ptr[u8], leave_with(env, EXIT_FETCH, pc, 0))
    c.next_pc = NOWHERE
    if unlikely(c.n_stops):
        if is_stop(c, pc):
            stop = put_stop(c, start, pc, EXIT_UNTIL, 0)
            c.n_looks = 0
            note_block(c, pc, cast(u64, start), cast(u64, stop) - cast(u64, start), 0, 4)
            return stop
    n = read_block(c, pc)
    if unlikely(n == 0):
        if fetch_page(c, pc):
            return cast(Ptr[u8], leave_with(env, EXIT_UNDEFINED, pc, 0))
        return cast(Ptr[u8], leave_with(env, EXIT_FETCH, pc, 0))
    if unlikely(c.mode & MODE_INSTRUMENT and c.instrumented != pc):
        return cast(Ptr[u8], leave_with(env, EXIT_INSTRUMENT, pc, n))
    last = c.records[n - 1]
    npc = last.pc + last.length
    ends = u32(c.forms[last.form].ends) & ENDS
    behind: u32 = ALL_FLAGS
    if c.block_flags:
        behind = flags_behind(c, last)
    choose_variants(c, n, behind)
    fused = fused_stencil(c, n, behind)
    if unlikely(missing(c, env, n, fused)):
        return cast(Ptr[u8], leave_with(env, EXIT_STENCIL, pc, env.value))
    end = emit_block(c, n, fused, start)
    c.n_insertions = 0
    c.instrumented = NOWHERE
    note_block(c, pc, cast(u64, start), cast(u64, end) - cast(u64, start), n, u32(npc - pc))
    c.n_instructions += n
    if ends != ENDS_ALWAYS:
        c.next_pc = npc
    return end


@native(inline=False)
def translate(env: Env, c: Ctx, pc0: u64) -> u64:
    """Translate the block at `pc0` and, where it may fall through, those behind it.

    Returns its code; or 0 with env.exit, env.pc and env.value set.
    """
    start = cast(Ptr[u8], c.hot)
    p = translate_one(env, c, pc0, start)
    if unlikely(not p):
        return 0
    for _ in range(CHAIN):
        pc = c.next_pc
        if pc == NOWHERE or look_up(c, pc):
            break
        end = translate_one(env, c, pc, p)
        if not end:
            c.next_pc = pc
            break
        p = end
    if c.next_pc != NOWHERE:
        p = put_jump(c, p, c.next_pc)
    c.host_bytes += cast(u64, p) - cast(u64, start)
    c.hot = (cast(u64, p) + 15) & 0xFFFFFFFFFFFFFFF0
    return cast(u64, start)
