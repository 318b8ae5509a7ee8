"""Decoding, native: guest words to records, by the tables that frontends/tables.py builds from the rows.

The same tables drive the Python decoder, so both give the same record for every word.
"""

from __future__ import annotations

from dbt.native import Ptr, cast, i64, native, u8, u16, u32, u64, unlikely

from .formats import FormInfo
from .host_x86_64 import copy_own
from .layout import PAGE_CACHE, PAGE_SIZE, TOKENS, Ctx, Record

PROT_EXEC = 4
WORD = 4  # bytes of an A64 instruction


@native(inline=True)
def find_form(c: Ctx, word: u32) -> u32:
    """The form of an instruction word, 0 if no row covers it."""
    nodes = c.nodes
    children = c.children
    at: u64 = 0
    while True:
        node = nodes[at]
        child = children[u64(node.base) + u64((word >> node.shift) & node.mask)]
        if child < 0:
            form = u32(~child)
            info = c.forms[form]
            if word & info.mask != info.value:
                return 0
            return form
        at = u64(child)


@native(inline=True)
def take_operands(c: Ctx, info: FormInfo, word: u32, pc: u64, out: Record) -> None:
    """Fill in the tokens and immediates of a record."""
    operands = c.operands + info.operands
    for i in range(u32(info.n_operands)):
        op = operands[i]
        index: u64 = 0
        for k in range(u32(op.n_fields)):
            width = u32(op.width[k])
            index = (index << width) | u64((word >> op.pos[k]) & ((u32(1) << width) - 1))
        if op.kind == 0:
            out.r[op.slot] = c.tokens[u64(op.table) + index]
        else:
            value = i64(index)
            if op.has_table:
                value = c.constants[u64(op.table) + index]
            if op.sign:
                spare = 64 - u64(op.sign)
                value = (value << spare) >> spare
            value = value << u64(op.shift)
            if op.pc_base == 1:
                value += i64(pc)
            elif op.pc_base == 2:
                value += i64(pc & 0xFFFFFFFFFFFFF000)
            if op.kind == 1:
                out.imm = value
            else:
                out.target = value


@native(inline=True)
def decode(c: Ctx, word: u32, pc: u64, out: Record) -> u32:
    """Decode one word at `pc` into a record; returns its form, 0 if it is undefined."""
    form = find_form(c, word)
    out.form = u16(form)
    out.variant = 0
    out.length = WORD
    for token in range(u32(TOKENS)):
        out.r[token] = 0  # superinstructions are known by all of them
    out.imm = 0
    out.target = 0
    out.pc = pc
    take_operands(c, c.forms[form], word, pc, out)
    return form


@native(inline=False)
def load_page(c: Ctx, number: u64) -> u64:
    """Bring a guest page into the page cache; returns where its bytes are, 0 if it may not be executed.

    The bytes are copied by the kernel, which does not fault where a file was truncated under its mapping.
    """
    address = number * PAGE_SIZE
    low: u64 = 0
    high = c.n_mappings
    while low < high:
        middle = (low + high) >> 1
        if c.mappings[middle].end <= address:
            low = middle + 1
        else:
            high = middle
    if low == c.n_mappings or address < c.mappings[low].start or c.mappings[low].prot & PROT_EXEC == 0:
        return 0
    slot = number & (PAGE_CACHE - 1)
    data = c.page_data + slot * PAGE_SIZE
    c.page_tags[slot] = 0
    if read_guest(c, address, data, PAGE_SIZE) != PAGE_SIZE:
        return 0
    c.page_tags[slot] = number + 1
    return cast(u64, data)


@native(inline=False)
def read_guest(c: Ctx, address: u64, to: Ptr[u8], size: u64) -> i64:
    """Copy guest bytes through the kernel; returns their number, below `size` at an unreadable page, or -errno."""
    return copy_own(cast(u64, to), c.base + (address & c.mask), size)


@native(inline=True)
def fetch_page(c: Ctx, pc: u64) -> Ptr[u8]:
    """The cached bytes of the page that holds `pc`; null if it may not be executed."""
    number = (pc & c.mask) >> 12
    slot = number & (PAGE_CACHE - 1)
    if unlikely(c.page_tags[slot] != number + 1):
        return cast(Ptr[u8], load_page(c, number))
    return c.page_data + slot * PAGE_SIZE
