"""Translation of a block, native: decode into records, look at what flags are needed, choose variants, emit.

A block ends at a branch. Where the branch may fall through, translation goes on with the block behind it, so that
the fall-through costs no jump; each is a block of its own in the table.
"""

from __future__ import annotations

from dbt.native import Ptr, addr, cast, i64, native, new, u8, u16, u32, u64, unlikely

from .decode import WORD, decode, fetch_page, find_form, take_operands
from .emit import put, put_insertions, put_special
from .layout import (
    CONDITIONS,
    ENDS_ALWAYS,
    ENDS_CONDITIONAL,
    ENDS_DIRECT,
    ENDS_NO,
    EXIT_FETCH,
    EXIT_FULL,
    EXIT_INSTRUMENT,
    EXIT_STENCIL,
    EXIT_UNDEFINED,
    EXIT_UNTIL,
    FUSED_STENCIL,
    FUSED_VARIANTS,
    LOOK_AHEAD,
    LOOKS,
    MAX_BLOCK,
    MODE_ALL_FLAGS,
    MODE_COUNT,
    MODE_EXACT_FLAGS,
    MODE_HOT,
    MODE_INSTRUMENT,
    MODE_NO_FUSION,
    MODE_NO_LIVENESS,
    MODE_STEPS,
    NO_FLAGS,
    NOWHERE,
    POLL,
    POLL_FUSED,
    SPECIAL_COUNT,
    SPECIAL_HOT,
    SPECIAL_JUMP,
    SPECIAL_STOP,
    USES_IMM,
    USES_NPC,
    USES_PC,
    USES_TARGET,
    VARIANTS,
    WIDE,
    Ctx,
    Env,
    Record,
    Values,
)
from .steps import put_step
from .table import look_up, note_block

ALL_FLAGS = 15
ROOM = 1 << 16  # host bytes that one block with its link stubs may need at most
CHAIN = 4  # blocks translated behind each other in one go
ENDS = ENDS_CONDITIONAL | ENDS_ALWAYS


@native(inline=True)
def fits(value: i64) -> u32:
    """1 if a value fits a sign-extended 32-bit hole, with room for an addend."""
    return u32(u64(value + 0x7FFF0000) < 0xFFFE0000)


@native(inline=True)
def wide_bit(c: Ctx, r: Record, poll: u32) -> u32:
    """WIDE if a value that the form uses does not fit the narrow holes."""
    if c.mode & MODE_STEPS:
        return 0
    uses = u32(c.forms[r.form].wide)
    if poll:
        uses |= USES_TARGET
    wide: u32 = 0
    if uses & USES_IMM and not fits(r.imm):
        wide = WIDE
    if uses & USES_TARGET and not fits(r.target):
        wide = WIDE
    if uses & (USES_PC | USES_NPC) and not fits(i64(r.pc)):
        wide = WIDE
    return wide


@native(inline=True)
def is_stop(c: Ctx, pc: u64) -> u32:
    """1 if the user wants to stop at `pc`."""
    low: u64 = 0
    high = c.n_stops
    while low < high:
        middle = (low + high) >> 1
        if c.stops[middle] < pc:
            low = middle + 1
        else:
            high = middle
    return u32(low < c.n_stops and c.stops[low] == pc)


@native(inline=True)
def looks_at(c: Ctx, pc: u64) -> u32:
    """Note that the block depends on the LOOK_AHEAD instructions from `pc` on; 0 if there is no room to note it."""
    if c.n_looks == LOOKS:
        return 0
    c.looks[c.n_looks] = pc
    c.n_looks += 1
    return 1


@native(inline=False)
def live_flags(c: Ctx, start: u64) -> u32:
    """The flags that code at `start` may read before it writes them; all where it cannot be told."""
    pc = start
    read: u32 = 0
    killed: u32 = 0
    r = c.records[MAX_BLOCK]
    if not looks_at(c, pc):
        return ALL_FLAGS
    for _ in range(LOOK_AHEAD):
        if c.n_stops and is_stop(c, pc):
            break  # whoever stops there may look at all of them
        page = fetch_page(c, pc)
        if not page or pc & 3:
            break
        word = cast(Ptr[u32], page + (pc & 4095))[0]
        form = find_form(c, word)
        info = c.forms[form]
        if form == 0:
            break
        if c.mode & MODE_EXACT_FLAGS and info.accesses:
            break
        read |= u32(info.flags_read) & ~killed
        killed |= u32(info.flags_killed)
        if killed == ALL_FLAGS:
            return read
        ends = u32(info.ends)
        if ends & ENDS == ENDS_NO:
            pc += WORD
        elif ends & ENDS == ENDS_ALWAYS and ends & ENDS_DIRECT:
            take_operands(c, info, word, pc, r)
            pc = u64(r.target)
            if not looks_at(c, pc):
                break
        else:
            break
    return read | (ALL_FLAGS & ~killed)


@native(inline=True)
def flags_behind(c: Ctx, last: Record) -> u32:
    """The flags that are live behind the last record of a block."""
    ends = u32(c.forms[last.form].ends)
    if c.mode & (MODE_NO_LIVENESS | MODE_ALL_FLAGS):
        return ALL_FLAGS
    npc = last.pc + last.length
    if ends & ENDS == ENDS_NO:
        return live_flags(c, npc)
    if ends & ENDS_DIRECT == 0:
        return ALL_FLAGS
    live = live_flags(c, u64(last.target))
    if ends & ENDS == ENDS_CONDITIONAL and live != ALL_FLAGS:
        live |= live_flags(c, npc)
    return live


@native(inline=True)
def choose_variants(c: Ctx, n: u32, behind: u32) -> None:
    """Walk a block backwards: flag writes that nobody reads are left out, backward branches poll."""
    live = behind
    i = n
    while i > 0:
        i -= 1
        r = c.records[i]
        info = c.forms[r.form]
        variant: u32 = 0
        written = u32(info.flags_written)
        if written and written & live == 0:
            variant = NO_FLAGS
        else:
            live = live & ~u32(info.flags_killed)
        live |= info.flags_read  # also of a form whose flags nobody reads: adcs has its carry in the result
        if info.accesses and c.mode & MODE_EXACT_FLAGS:
            live = ALL_FLAGS
        if c.mode & MODE_ALL_FLAGS:
            live = ALL_FLAGS
        if info.ends & ENDS_DIRECT and u64(r.target) <= r.pc:
            variant |= POLL
        variant |= wide_bit(c, r, variant & POLL)
        r.variant = u8(variant)


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
def put_stop(c: Ctx, to: Ptr[u8], pc: u64, reason: u64, value: u64) -> Ptr[u8]:
    """Code that leaves with a reason."""
    r = new(Record)
    v = new(Values)
    r.pc = pc
    r.imm = i64(reason)
    r.target = i64(value)
    v.npc = i64(pc)
    return put_special(c, to, SPECIAL_STOP, r, v)


@native(inline=False)
def put_jump(c: Ctx, to: Ptr[u8], pc: u64) -> Ptr[u8]:
    """A jump to the block at `pc`."""
    r = new(Record)
    v = new(Values)
    r.target = i64(pc)
    r.pc = pc
    return put_special(c, to, SPECIAL_JUMP, r, v)


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
    if c.mode & MODE_COUNT:
        p = put_special(c, p, SPECIAL_COUNT, c.records[0], v)
    elif c.mode & MODE_HOT:
        v.site = i64(cast(u64, addr(c.counters[c.n_blocks])))
        c.counters[c.n_blocks] = u32(c.threshold)
        p = put_special(c, p, SPECIAL_HOT, c.records[0], v)
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
            p = put_step(c, p, stencil, r, u32(c.forms[r.form].ends) & ENDS_DIRECT)
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
