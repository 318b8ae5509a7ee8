"""The runtime's main loop, native: enter translated code, and deal with why it came back.

What can be done here (linking, indirect branches, system calls that pass through) is; the rest goes to Python as the
exit reason that `run` returns.
"""

from __future__ import annotations

from dbt.native import Code, Ptr, addr, cast, native, u8, u32, u64, unlikely, volatile_load

from .decode import decode, fetch_page
from .host_x86_64 import load_mxcsr, patch_displacement, store_mxcsr
from .layout import (
    CONDITIONS,
    ENDS_DIRECT,
    EXIT_BUS,
    EXIT_FAULT,
    EXIT_INDIRECT,
    EXIT_LINK,
    EXIT_NONE,
    EXIT_POLL,
    EXIT_SYSCALL,
    JUMP_CACHE_ENTRIES,
    Ctx,
    Env,
)
from .syscalls import pass_through
from .table import find_instruction, look_up
from .translate import translate, wide_bit


@native(inline=True)
def enter(env: Env, c: Ctx, code: u64) -> None:
    """Run translated code until it leaves."""
    env.entry_code = code
    env.exit = EXIT_NONE
    store_mxcsr(addr(env.host_mxcsr))
    load_mxcsr(addr(env.mxcsr))
    env.in_code = 1
    flags = env.flags
    cast(Code, c.entry)(flags[0], flags[1], flags[2], flags[3], env, cast(Ptr[u8], env.base), env.mask, 0)
    env.in_code = 0
    store_mxcsr(addr(env.mxcsr))
    load_mxcsr(addr(env.host_mxcsr))


@native(export=True)
def run(env: Env) -> u64:
    """Run guest code from env.pc until something needs Python; returns env.exit."""
    c = cast(Ctx, env.ctx)
    site: u64 = 0
    indirect: u32 = 0
    while True:
        # Whoever sets the poll word empties the jump cache as well; put it back before looking at the word.
        env.jump_cache = c.jump_cache
        if unlikely(volatile_load(addr(env.poll)) != 0):
            env.exit = EXIT_POLL
            return EXIT_POLL
        pc = env.pc
        code = look_up(c, pc)
        if code == 0:
            code = translate(env, c, pc)
            if unlikely(code == 0):
                return env.exit
        if site:
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
            env.pc = find_instruction(c, env.fault_pc)
            return reason
        else:
            return reason


@native(export=True)
def translate_at(env: Env, pc: u64) -> u64:
    """Translate the block at `pc` without running it (for measurements); its host code or 0."""
    c = cast(Ctx, env.ctx)
    code = look_up(c, pc)
    if code:
        return code
    return translate(env, c, pc)


@native(export=True)
def scan_forms(c: Ctx, address: u64, size: u64, seen: Ptr[u8], pairs: Ptr[u8]) -> u64:
    """Decode all words of a range of guest code and note what translation would need of stencils.

    seen[form] and pairs[first * CONDITIONS + condition] get bit 0 for narrow values, 1 for wide ones, and 2 and 3 for
    the same where a backward branch has to poll. Returns the number of words that decode. Data between code does no
    harm.
    """
    count: u64 = 0
    before: u32 = 0
    before_wide: u32 = 0
    r = c.records[0]
    for i in range(size >> 2):
        pc = address + 4 * i
        page = fetch_page(c, pc)
        first = before
        before = 0
        if page:
            form = decode(c, cast(Ptr[u32], page + (pc & 4095))[0], pc, r)
            if form:
                info = c.forms[form]
                poll: u32 = 0
                if info.ends & ENDS_DIRECT and u64(r.target) <= pc:
                    poll = 1
                wide = u32(wide_bit(c, r, poll) != 0)
                seen[form] |= u8(u32(1) << (wide + 2 * poll))
                if first and info.fuse_second:
                    place = u64((first - 1) * CONDITIONS + info.fuse_second - 1)
                    pairs[place] |= u8(u32(1) << ((wide | before_wide) + 2 * poll))
                before = u32(info.fuse_first)
                before_wide = wide
                count += 1
    return count
