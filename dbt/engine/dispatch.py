"""The runtime's main loop, native: enter translated code, and deal with why it came back.

What can be done here (linking, indirect branches, system calls that pass through) is; the rest goes to Python as the
exit reason that `run` returns.
"""

from __future__ import annotations

from dbt.native import Code, Ptr, addr, cast, i64, native, u8, u32, u64, unlikely, volatile_load

from .host_x86_64 import load_mxcsr, patch_displacement, store_mxcsr
from .layout import (
    EXIT_ALIGNMENT,
    EXIT_BREAKPOINT,
    EXIT_BUDGET,
    EXIT_BUS,
    EXIT_FAULT,
    EXIT_HELPER,
    EXIT_INDIRECT,
    EXIT_LINK,
    EXIT_NONE,
    EXIT_POLL,
    EXIT_SYSCALL,
    EXIT_UNDEFINED,
    EXIT_UNIMPLEMENTED,
    JUMP_CACHE_ENTRIES,
    MODE_COUNT,
    MODE_STEPS,
    Ctx,
    Env,
)
from .syscalls import pass_through
from .table import find_block, find_instruction, look_up
from .translate import translate
from .variants import branch_address, is_stop


@native(inline=True)
def enter(env: Env, c: Ctx, code: u64) -> None:
    """Run translated code until it leaves."""
    env.entry_code = code
    env.exit = EXIT_NONE
    store_mxcsr(addr(env.host_mxcsr))
    load_mxcsr(addr(env.mxcsr))
    env.in_code = 1
    flags = env.flags
    cast(Code, c.entry)(flags[0], flags[1], flags[2], flags[3], env, cast(Ptr[u8], env.base), env.mask, code)
    env.in_code = 0
    store_mxcsr(addr(env.mxcsr))
    load_mxcsr(addr(env.host_mxcsr))


@native(inline=True)
def refused(reason: u64) -> u32:
    """1 for exits at an instruction that has not been completed: Env.pc is its own address."""
    return u32(
        reason == EXIT_FAULT
        or reason == EXIT_BUS
        or reason == EXIT_ALIGNMENT
        or reason == EXIT_UNIMPLEMENTED
        or reason == EXIT_HELPER
        or reason == EXIT_BREAKPOINT
        or reason == EXIT_UNDEFINED
    )


@native(inline=False)
def give_back(env: Env, c: Ctx) -> None:
    """The head of a block has counted all of it: take back what has not run, from the instruction at env.pc on."""
    found = find_block(c, look_up(c, env.block))
    if found < c.n_blocks:
        block = c.blocks[found]
        ran = (env.pc - block.pc) >> 2
        if ran < block.n:
            env.budget += i64(block.n - ran)


@native(export=True)
def run(env: Env) -> u64:
    """Run guest code from env.pc until something needs Python; returns env.exit."""
    c = cast(Ctx, env.ctx)
    site: u64 = 0
    indirect: u32 = 0
    pc: u64 = 0
    code = c.resume  # behind an event
    c.resume = 0
    while True:
        if code == 0:
            pc = branch_address(env.pc)
            env.pc = pc
            # Whoever sets the poll word empties the jump cache as well; put it back before looking at the word.
            env.jump_cache = c.jump_cache
            if unlikely(volatile_load(addr(env.poll)) != 0):
                env.exit = EXIT_POLL
                return EXIT_POLL
            if unlikely(c.mode & MODE_COUNT and env.budget <= 0 and not is_stop(c, pc)):
                env.exit = EXIT_BUDGET  # before what is at pc can be found to be no instruction
                return EXIT_BUDGET
            code = look_up(c, pc)
            if code == 0:
                code = translate(env, c, pc)
                if unlikely(code == 0):
                    return env.exit
            if site:
                if c.mode & MODE_STEPS:
                    cast(Ptr[u64], site)[0] = code
                else:
                    patch_displacement(site, code)
                c.n_links += 1
                site = 0
            if indirect:
                entry = c.jump_cache[(pc >> 2) & (JUMP_CACHE_ENTRIES - 1)]
                entry.pc = pc
                entry.code = code
                c.n_indirect += 1
                indirect = 0
        enter(env, c, code)
        code = 0
        c.n_entries += 1
        reason = env.exit
        if reason == EXIT_LINK:
            site = env.site
        elif reason == EXIT_INDIRECT:
            indirect = 1
        elif reason == EXIT_SYSCALL:
            if not pass_through(env, c):
                return EXIT_SYSCALL
        elif reason == EXIT_FAULT or reason == EXIT_BUS:
            if env.fault_pc < c.regions or env.fault_pc >= c.regions_end:  # regions set it
                env.pc = find_instruction(c, env.fault_pc)
            break
        else:
            break
    if c.mode & MODE_COUNT and refused(reason):
        give_back(env, c)
    return reason


@native(export=True)
def translate_at(env: Env, pc: u64) -> u64:
    """Translate the block at `pc` without running it (for measurements); its host code or 0."""
    c = cast(Ctx, env.ctx)
    code = look_up(c, pc)
    if code:
        return code
    return translate(env, c, pc)
