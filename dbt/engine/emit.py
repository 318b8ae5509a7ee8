"""The emitter, native: copies stencils behind each other and fills their holes (copy-and-patch)."""

from __future__ import annotations

from dbt.native import Ptr, addr, cast, i32, i64, native, new, u8, u32, u64, u128

from . import formats
from .formats import (
    NUMBERS,
    SPECIAL_HOT,
    SPECIAL_JUMP,
    SPECIAL_LINK,
    SPECIAL_STOP,
    STENCIL_HEAD_BYTES,
    Hole,
    StencilHead,
)
from .layout import MODE_STEPS, TOKENS, Ctx, Record, Values
from .steps import put_inserted_step, put_special_step
from .table import look_up


@native(inline=True)
def copy_code(to: Ptr[u8], source: Ptr[u8], size: u32) -> None:
    """Copy whole 16-byte words, at least two: there is slack behind both."""
    words_to = cast(Ptr[u128], to)
    words = cast(Ptr[u128], source)
    words_to[0] = words[0]
    words_to[1] = words[1]
    for i in range(2, (size + 15) >> 4):
        words_to[i] = words[i]


@native(inline=True)
def put(c: Ctx, to: Ptr[u8], stencil: u32, r: Record, v: Values) -> Ptr[u8]:
    """Copy the stencil at an offset of the pack to `to`; returns the place behind it."""
    head = cast(StencilHead, c.pack + stencil)
    size = u32(head.code_size)
    copy_code(to, cast(Ptr[u8], head) + head.code, size)
    end = to + size
    holes = cast(Ptr[Hole], cast(Ptr[u8], head) + STENCIL_HEAD_BYTES)
    for i in range(u32(head.n_holes)):
        hole = holes[i]
        place = to + hole.offset
        p32 = cast(Ptr[i32], place)
        p64 = cast(Ptr[i64], place)
        add = i64(hole.addend)
        match hole.kind:
            case formats.HOLE_REG32:
                p32[0] = i32(r.r[hole.source]) + hole.addend
            case formats.HOLE_IMM32:
                p32[0] = i32(r.imm + add)
            case formats.HOLE_TARGET32:
                p32[0] = i32(r.target + add)
            case formats.HOLE_PC32:
                p32[0] = i32(i64(r.pc) + add)
            case formats.HOLE_NPC32:
                p32[0] = i32(v.npc + add)
            case formats.HOLE_REG64:
                p64[0] = i64(r.r[hole.source]) + add
            case formats.HOLE_IMM64:
                p64[0] = r.imm + add
            case formats.HOLE_TARGET64:
                p64[0] = r.target + add
            case formats.HOLE_PC64:
                p64[0] = i64(r.pc) + add
            case formats.HOLE_NPC64:
                p64[0] = v.npc + add
            case formats.HOLE_NEXT:
                p32[0] = i32(end - place) + hole.addend
            case formats.HOLE_TAKEN:
                p32[0] = i32(i64(branch_target(c, u64(r.target), cast(u64, place))) - cast(i64, place)) + hole.addend
            case formats.HOLE_LEAVE:
                p32[0] = i32(i64(c.leave) - cast(i64, place)) + hole.addend
            case formats.HOLE_RODATA:
                p32[0] = i32(i64(c.rodata) - cast(i64, place)) + hole.addend
            case formats.HOLE_SITE64:
                p64[0] = v.site + add
            case formats.HOLE_COUNT32:
                p32[0] = i32(v.count + add)
            case formats.HOLE_NUMBER64:
                p64[0] = v.numbers[hole.source] + add
            case formats.HOLE_IMM8:
                place[0] = u8(r.imm + add)
            case formats.HOLE_TARGET8:
                place[0] = u8(r.target + add)
    return end


@native(inline=False)
def put_special(c: Ctx, to: Ptr[u8], number: u32, r: Record, v: Values) -> Ptr[u8]:
    """As put, for one of the special stencils."""
    if c.mode & MODE_STEPS:
        return put_special_step(c, to, number, r, v)
    return put(c, to, c.special[number], r, v)


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
def put_counter(c: Ctx, to: Ptr[u8], r: Record, v: Values) -> Ptr[u8]:
    """Have the block that begins with a record leave when it was entered c.threshold times.

    Of the interpreter only where that may do some good: where superinstructions are missing (see superinstructions.py).
    """
    if c.mode & MODE_STEPS:
        if c.n_missing == 0:
            return to
        start = new(Values)
        start.count = i64(c.threshold)
        return put_special(c, to, SPECIAL_HOT, r, start)
    v.site = i64(cast(u64, addr(c.counters[c.n_blocks])))
    c.counters[c.n_blocks] = u32(c.threshold)
    return put_special(c, to, SPECIAL_HOT, r, v)


@native(inline=False)
def put_insertions(c: Ctx, to: Ptr[u8], index: u32) -> Ptr[u8]:
    """Emit what tools want to run before record `index` of the block; returns the place behind it."""
    p = to
    r = new(Record)
    v = new(Values)
    record = c.records[index]
    r.imm = record.imm
    r.target = record.target
    r.pc = record.pc
    v.npc = i64(record.pc + record.length)
    v.count = 0
    while c.insertion < c.n_insertions:
        insertion = c.insertions[c.insertion]
        if insertion.index != index:
            break
        for token in range(u32(TOKENS)):
            r.r[token] = insertion.r[token]
        for number in range(u32(NUMBERS)):
            v.numbers[number] = insertion.numbers[number]
        if c.mode & MODE_STEPS:
            p = put_inserted_step(c, p, insertion.stencil, r, v)
        else:
            head = cast(StencilHead, c.pack + insertion.stencil)
            v.site = cast(i64, p) + i64(head.code_size)
            p = put(c, p, insertion.stencil, r, v)
        c.insertion += 1
    return p


@native(export=True, inline=False)
def branch_target(c: Ctx, pc: u64, site: u64) -> u64:
    """Where a direct branch to `pc` goes now: the block if there is one, else a new link stub in the cold part."""
    code = look_up(c, pc)
    if code:
        return code
    r = new(Record)
    v = new(Values)
    r.pc = pc
    r.target = i64(pc)
    v.npc = i64(pc)
    v.site = i64(site)
    v.count = 0
    head = cast(StencilHead, c.pack + c.special[SPECIAL_LINK])
    size = (u64(head.code_size) + 31) & 0xFFFFFFFFFFFFFFE0  # copy_code writes 32 bytes at least
    c.cold -= size
    put_special(c, cast(Ptr[u8], c.cold), SPECIAL_LINK, r, v)
    return c.cold
