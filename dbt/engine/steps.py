"""Blocks of the interpreter, native: steps (layout.Step) behind each other instead of copied stencils."""

from __future__ import annotations

from dbt.native import Ptr, addr, cast, copy, i64, native, sizeof, u8, u32, u64

from .formats import NUMBERS, SPECIAL_COUNT, SPECIAL_HOT, SPECIAL_JUMP, SPECIAL_LINK, StencilHead
from .layout import MODE_ALONE, Ctx, Record, Step, Values
from .table import look_up


@native(inline=True)
def handler_at(c: Ctx, handler: u32) -> u64:
    """Host address of a handler, by what the indices of the handler file have of it."""
    head = cast(StencilHead, c.pack + handler)
    return cast(u64, head) + head.code


@native(inline=False)
def put_step(c: Ctx, to: Ptr[u8], handler: u32, r: Record, direct: u32) -> Ptr[u8]:
    """Write a step to `to`; returns the place behind it. `direct`: it branches to r.target, linked if that is known."""
    step = cast(Step, to)
    step.handler = handler_at(c, handler)
    copy(step.record, r)
    if direct:
        step.unlinked = handler_at(c, c.special[SPECIAL_LINK])
        step.link = 0
        if c.mode & MODE_ALONE == 0:
            step.link = look_up(c, u64(r.target))
        if step.link == 0:
            step.link = cast(u64, addr(step.unlinked))
    return to + sizeof(Step)


@native(inline=False)
def put_inserted_step(c: Ctx, to: Ptr[u8], handler: u32, r: Record, v: Values) -> Ptr[u8]:
    """Write a step of a tool's: the numbers lie behind it, `link` is where it leaves (records.InsertedSource)."""
    numbers = cast(Ptr[i64], put_step(c, to, handler, r, 0))
    cast(Step, to).link = c.leave
    for i in range(u32(NUMBERS)):
        numbers[i] = v.numbers[i]
    return to + 2 * sizeof(Step)


@native(inline=False)
def put_special_step(c: Ctx, to: Ptr[u8], number: u32, r: Record, v: Values) -> Ptr[u8]:
    """As emit.put_special. A step that counts has the number as its immediate."""
    end = put_step(c, to, c.special[number], r, u32(number == SPECIAL_JUMP))
    if number == SPECIAL_COUNT or number == SPECIAL_HOT:
        cast(Step, to).record.imm = v.count
    return end
