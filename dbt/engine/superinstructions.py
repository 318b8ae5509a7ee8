"""Superinstructions of the interpreter, native: which steps of a block run as one, by what is compiled of them.

A superinstruction is a handler for steps that lie behind each other: the first step has its address, and the others
keep their own handlers, so a block can be cut anywhere still. It is known by its parts, that is their handlers, tokens
and immediates; branch targets and addresses are read from the steps. What is compiled lies in a file
(formats.SuperHead), which joiner.py maps when something is hot, and has made longer.

Which steps are tried together depends on nothing but the block: as many in a row as may be parts, at most MAX_PARTS.
"""

from __future__ import annotations

from dbt.native import Ptr, cast, i64, native, rotl, u32, u64

from .formats import ENDS_DIRECT, PART_LAST, PART_NEVER, StencilHead, SuperEntry, SuperHead
from .layout import FUSED_STENCIL, MAX_PARTS, MODE_ALONE, MODE_INSTRUMENT, PART_KEY, TOKENS, VARIANTS, Ctx

KEY_FACTOR = 0x9E3779B97F4A7C15
KEY_WORDS = PART_KEY // 8
ENTRY_BYTES = 8  # of a SuperEntry, in front of its keys
IMPOSSIBLE = 1  # no handler's address: it is known that there is none


@native(inline=False)
def span_at(c: Ctx, first: u32, steps: u32) -> u32:
    """How many of the block's steps from `first` on may run as one."""
    n: u32 = 0
    while first + n < steps and n < MAX_PARTS:
        kind = c.forms[c.records[first + n].form].part
        if kind == PART_NEVER:
            break
        n += 1
        if kind == PART_LAST:
            break
    return n


@native(inline=True)
def describe(c: Ctx, index: u32, number: u32) -> None:
    """Fill in the part of a record. `number`: of its handler."""
    part = c.parts[index]
    r = c.records[index]
    part.number = number
    for token in range(u32(TOKENS)):
        part.r[token] = r.r[token]
    part.imm = r.imm
    part.target = 0
    if c.forms[r.form].ends & ENDS_DIRECT == 0:
        part.target = r.target


@native(inline=True)
def key_hash(c: Ctx, first: u32, n: u32) -> u64:
    """A hash of the keys of n parts."""
    hashed = u64(n)
    for i in range(first, first + n):
        words = cast(Ptr[u64], c.parts[i])
        for k in range(u32(KEY_WORDS)):
            hashed = (rotl(hashed, 23) ^ words[k]) * KEY_FACTOR
    return hashed >> 32


@native(inline=False)
def compiled(c: Ctx, first: u32, n: u32) -> u64:
    """The handler for n parts, 0 if they are not compiled, IMPOSSIBLE if they cannot be."""
    if c.supers == 0:
        return 0
    head = cast(SuperHead, c.supers)
    slots = cast(Ptr[u32], c.supers + head.slots)
    at = u32(key_hash(c, first, n)) & (head.n_slots - 1)
    while slots[at]:
        entry = cast(SuperEntry, c.supers + slots[at])
        if entry.n == n:
            found = cast(Ptr[u64], c.supers + slots[at] + ENTRY_BYTES)
            same: u32 = 1
            for i in range(n):
                words = cast(Ptr[u64], c.parts[first + i])
                for k in range(u32(KEY_WORDS)):
                    if words[k] != found[i * KEY_WORDS + k]:
                        same = 0
            if same:
                if entry.head == 0:
                    return IMPOSSIBLE
                code = cast(StencilHead, c.supers + entry.head)
                return cast(u64, code) + code.code
        at = (at + 1) & (head.n_slots - 1)
    return 0


@native(inline=False)
def plan(c: Ctx, n: u32, fused: i64) -> None:
    """Choose superinstructions for the n records of a block: into c.parts, how many are missing into c.n_missing.

    `fused`: the stencil of the last two records if they are one step, else -1.
    """
    steps = n
    for i in range(n):
        c.parts[i].handler = 0
        c.parts[i].span = 0
    c.n_missing = 0
    if c.mode & (MODE_ALONE | MODE_INSTRUMENT):
        return
    for i in range(n):
        r = c.records[i]
        describe(c, i, u32(r.form) * VARIANTS + r.variant)
    if fused >= 0:
        steps = n - 1
        c.parts[n - 2].number = u32(FUSED_STENCIL) | u32(fused)
    first: u32 = 0
    while first < steps:
        span = span_at(c, first, steps)
        if span < 2:
            first += 1
            continue
        found = compiled(c, first, span)
        if found == 0:
            c.parts[first].span = span
            c.n_missing += 1
        elif found != IMPOSSIBLE:
            c.parts[first].handler = found
        first += span
