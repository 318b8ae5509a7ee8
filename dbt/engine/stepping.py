"""Exact numbers of instructions on the interpreter, native: blocks that are cut to size, run once and forgotten."""

from __future__ import annotations

from dbt.native import Ptr, addr, cast, i64, native, u8, u32, u64, unlikely, volatile_load

from .decode import fetch_page
from .dispatch import enter
from .emit import put_stop
from .layout import (
    EXIT_BUDGET,
    EXIT_BUS,
    EXIT_FAULT,
    EXIT_FETCH,
    EXIT_FULL,
    EXIT_INDIRECT,
    EXIT_LINK,
    EXIT_POLL,
    EXIT_STENCIL,
    EXIT_SYSCALL,
    EXIT_UNDEFINED,
    EXIT_UNTIL,
    MAX_BLOCK,
    MODE_ALONE,
    MODE_COUNT,
    MODE_EXACT_FLAGS,
    MODE_HOT,
    MODE_NO_LIVENESS,
    Ctx,
    Env,
)
from .syscalls import pass_through
from .table import find_block, find_instruction, note_code
from .translate import ROOM, emit_block, leave_with, missing, read_block
from .variants import ALL_FLAGS, branch_address, choose_variants, is_stop


@native(inline=False)
def translate_alone(env: Env, c: Ctx, pc: u64) -> u64:
    """Translate the block at `pc`, with nothing linked and not in the table, so that it leaves behind its last step.

    Returns its first step, or 0 with the reason in env.
    """
    if c.hot + ROOM > c.cold or c.n_blocks + 1 >= c.max_blocks or c.n_offsets + MAX_BLOCK > c.max_offsets:
        return leave_with(env, EXIT_FULL, pc, 0)
    if pc & 3:
        return leave_with(env, EXIT_FETCH, pc, 0)
    n = read_block(c, pc)
    if n == 0:
        if fetch_page(c, pc):
            return leave_with(env, EXIT_UNDEFINED, pc, 0)
        return leave_with(env, EXIT_FETCH, pc, 0)
    choose_variants(c, n, ALL_FLAGS)
    if missing(c, env, n, -1):
        return leave_with(env, EXIT_STENCIL, pc, env.value)
    start = cast(Ptr[u8], c.hot)
    end = emit_block(c, n, -1, start)
    last = c.records[n - 1]
    npc = last.pc + last.length
    end = put_stop(c, end, npc, EXIT_BUDGET, 0)
    note_code(c, pc, cast(u64, start), cast(u64, end) - cast(u64, start), n, u32(npc - pc))
    return cast(u64, start)


@native(inline=False)
def enter_alone(env: Env, c: Ctx) -> u64:
    """Run at most env.budget instructions of the block at env.pc, subtract those that ran; the exit reason."""
    mode = c.mode
    most = c.max_block
    hot = c.hot
    blocks = c.n_blocks
    offsets = c.n_offsets
    c.mode = (mode & ~u64(MODE_COUNT | MODE_HOT)) | (MODE_ALONE | MODE_NO_LIVENESS | MODE_EXACT_FLAGS)
    if u64(env.budget) < most:
        c.max_block = u64(env.budget)
    start = translate_alone(env, c, env.pc)
    c.mode = mode
    c.max_block = most
    if start == 0:
        return env.exit
    env.jump_cache = c.empty_cache  # nothing is found there, so an indirect branch leaves
    enter(env, c, start)
    env.jump_cache = c.jump_cache
    reason = env.exit
    if reason == EXIT_FAULT or reason == EXIT_BUS:
        env.pc = find_instruction(c, env.fault_pc)
    env.budget -= i64(c.blocks[blocks].n)
    if ends_inside(reason):
        env.budget += i64(not_run(env, c))
    c.hot = hot
    c.n_blocks = blocks
    c.n_offsets = offsets
    return reason


@native(inline=True)
def ends_inside(reason: u64) -> u32:
    """1 for exits that may come before the end of a block."""
    return u32(reason != EXIT_LINK and reason != EXIT_INDIRECT and reason != EXIT_POLL and reason != EXIT_BUDGET)


@native(export=True, inline=False)
def not_run(env: Env, c: Ctx) -> u64:
    """How many instructions of the block that was left last did not run: those behind the exit, and one that failed."""
    found = find_block(c, env.fault_pc)
    if found >= c.n_blocks:
        return 0
    block = c.blocks[found]
    pc = find_instruction(c, env.fault_pc)
    behind = block.n - ((pc - block.pc) >> 2)
    if env.pc != pc:
        behind -= 1
    return behind


@native(export=True)
def run_exactly(env: Env) -> u64:
    """Run env.budget instructions from env.pc, natively one by one as far as anyone can see; the exit reason.

    Stops count, also for the first instruction. env.budget is what is left.
    """
    c = cast(Ctx, env.ctx)
    first: u32 = 1
    while True:
        env.pc = branch_address(env.pc)
        if is_stop(c, env.pc):
            env.exit = EXIT_UNTIL
            return EXIT_UNTIL
        if env.budget <= 0:
            env.exit = EXIT_BUDGET
            return EXIT_BUDGET
        if first == 0 and unlikely(volatile_load(addr(env.poll)) != 0):
            env.exit = EXIT_POLL
            return EXIT_POLL
        first = 0
        reason = enter_alone(env, c)
        if reason == EXIT_SYSCALL:
            if not pass_through(env, c):
                return EXIT_SYSCALL
        elif reason != EXIT_LINK and reason != EXIT_INDIRECT and reason != EXIT_BUDGET:
            return reason
