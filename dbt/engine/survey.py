"""What stencils a piece of guest code would need, native: found out before they are missing one by one."""

from __future__ import annotations

from dbt.native import Ptr, cast, i64, native, u8, u32, u64

from .decode import decode, fetch_page
from .formats import ENDS_DIRECT, ENDS_NO, SPECIAL_HOT
from .layout import CONDITIONS, Ctx, Env, Record, Step
from .steps import handler_at
from .superinstructions import plan
from .table import look_up
from .translate import fused_stencil, read_block
from .variants import ALL_FLAGS, ENDS, choose_variants, flags_behind, wide_bit

VISITED_FACTOR = 0x9E3779B97F4A7C15


@native(inline=True)
def note_form(c: Ctx, r: Record, before: u32, seen: Ptr[u8], pairs: Ptr[u8]) -> u32:
    """Note what an instruction needs. `before`: 0, or 1 + twice the number of the fusable form before it (+ 1: wide).

    seen[form] and pairs[first * CONDITIONS + condition] get bit 0 for narrow values, 1 for wide ones, and 2 and 3 for
    the same where a backward branch has to poll. Returns `before` for the next instruction.
    """
    info = c.forms[r.form]
    poll: u32 = 0
    if info.ends & ENDS_DIRECT and u64(r.target) <= r.pc:
        poll = 1
    wide = u32(wide_bit(c, r, poll) != 0)
    seen[r.form] |= u8(u32(1) << (wide + 2 * poll))
    if before and info.fuse_second:
        place = ((before - 1) >> 1) * CONDITIONS + info.fuse_second - 1
        pairs[place] |= u8(u32(1) << ((wide | ((before - 1) & 1)) + 2 * poll))
    if info.fuse_first == 0:
        return 0
    return 1 + 2 * (u32(info.fuse_first) - 1) + wide


@native(export=True)
def scan_forms(c: Ctx, address: u64, size: u64, seen: Ptr[u8], pairs: Ptr[u8]) -> u64:
    """Note what all words of a range need that decode; returns their number. Data between code does no harm."""
    count: u64 = 0
    before: u32 = 0
    r = c.records[0]
    for i in range(size >> 2):
        pc = address + 4 * i
        page = fetch_page(c, pc)
        if page and decode(c, cast(Ptr[u32], page + (pc & 4095))[0], pc, r):
            before = note_form(c, r, before, seen, pairs)
            count += 1
        else:
            before = 0
    return count


@native(inline=True)
def first_visit(visited: Ptr[u64], mask: u64, pc: u64) -> u32:
    """1 if `pc` was not in the set of visited places yet; it is now."""
    at = ((pc * VISITED_FACTOR) >> 32) & mask
    while visited[at]:
        if visited[at] == pc + 1:
            return 0
        at = (at + 1) & mask
    visited[at] = pc + 1
    return 1


@native(export=True)
def walk_forms(c: Ctx, start: u64, limit: u64, seen: Ptr[u8], pairs: Ptr[u8], scratch: Ptr[u64]) -> u64:
    """Note what the code needs that can be reached from `start` by direct branches, the nearest `limit` instructions.

    A branch that never falls through may be a call, so the code behind it counts as reached as well. `scratch` has
    room for 5 * limit words, zeroed; `limit` is a power of two. Returns the number of instructions.
    """
    work = scratch
    visited = scratch + limit
    mask = 4 * limit - 1
    head: u64 = 0
    tail: u64 = 1
    count: u64 = 0
    work[0] = start
    r = c.records[0]
    while head < tail and count < limit:
        pc = work[head]
        head += 1
        before: u32 = 0
        while count < limit and first_visit(visited, mask, pc):
            page = fetch_page(c, pc)
            if not page or pc & 3:
                break
            if decode(c, cast(Ptr[u32], page + (pc & 4095))[0], pc, r) == 0:
                break
            before = note_form(c, r, before, seen, pairs)
            count += 1
            ends = c.forms[r.form].ends
            pc += r.length
            if ends & ENDS != ENDS_NO:
                if ends & ENDS_DIRECT and tail < limit:
                    work[tail] = u64(r.target)
                    tail += 1
                if tail < limit:
                    work[tail] = pc
                    tail += 1
                break
    return count


@native(export=True)
def plan_block(env: Env, pc: u64, again: u64) -> u64:
    """Plan the superinstructions of the interpreter's block at `pc` anew, which has left because it is hot.

    What it is made of is in Ctx.parts then. It leaves `again` entries later the next time. Returns the number of parts,
    0 if there is no such block.
    """
    c = cast(Ctx, env.ctx)
    code = look_up(c, pc)
    if code == 0:
        return 0
    step = cast(Step, code)
    if step.handler != handler_at(c, c.special[SPECIAL_HOT]):
        return 0
    step.record.imm = i64(again)
    n = read_block(c, pc)
    if n == 0:
        return 0
    behind: u32 = ALL_FLAGS
    if c.block_flags:
        behind = flags_behind(c, c.records[n - 1])
    choose_variants(c, n, behind)
    plan(c, n, fused_stencil(c, n, behind))
    return n
