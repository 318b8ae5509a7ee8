"""Which variant of its stencil each instruction of a block gets, native: by the flags that are needed, by its numbers.

Flags that are written again before anybody reads them are not computed. To know that, a few instructions behind the
block are looked at; the block depends on these as well (Ctx.looks).
"""

from __future__ import annotations

from dbt.native import Ptr, cast, i64, native, u8, u32, u64

from .decode import WORD, fetch_page, find_form, take_operands
from .formats import ENDS_ALWAYS, ENDS_CONDITIONAL, ENDS_DIRECT, ENDS_NO, USES_IMM, USES_NPC, USES_PC, USES_TARGET
from .layout import (
    LOOK_AHEAD,
    LOOKS,
    MAX_BLOCK,
    MODE_ALL_FLAGS,
    MODE_EXACT_FLAGS,
    MODE_NO_LIVENESS,
    MODE_STEPS,
    NO_FLAGS,
    POLL,
    WIDE,
    Ctx,
    Record,
)

ALL_FLAGS = 15
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
def branch_address(address: u64) -> u64:
    """Where execution goes on when it is sent to an address: see memory.branch_address."""
    if address >> 55 & 1:
        return address
    return address & 0x00FFFFFFFFFFFFFF


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
