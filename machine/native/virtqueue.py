"""virtqueues, native: `pop` walks and checks a whole chain, `push` and `wants` have the fences. See machine/virtio.

Whatever is unusual (errors, tables in pieces) is left to Python, which does it again from the start and says what is
wrong: `pop` has changed nothing of the ring's indexes then. Each word of the guest's is loaded once.
"""

from __future__ import annotations

from dbt.native import (
    Ptr,
    Struct,
    atomic_load,
    atomic_store,
    cast,
    fence,
    native,
    struct,
    u16,
    u32,
    u64,
    volatile_load,
    volatile_store,
)  # fmt: skip

NONE, FOUND, PYTHON = 0, 1, 2  # what pop returns
READABLE, WRITABLE = 1, 2  # flags of sections
INDIRECT_OFFERED, EVENTS = 1, 2  # Queue.features
NEXT, WRITE, INDIRECT = 1, 2, 4
AVAIL, USED, MARKS = 0x80, 0x8000, 0x8080
EVENT_ENABLE, EVENT_DISABLE, EVENT_DESC = 0, 1, 2
MOST_BYTES = 1 << 32


@struct
class Section(Struct):
    """Guest addresses that are memory: where this process has `start`."""

    start: u64
    end: u64
    host: u64
    flags: u64


@struct
class Item(Struct):
    """A buffer, or a part of one that is within one section. `where`: the section's number, and 1 if it is writable."""

    where: u64
    address: u64
    length: u64


@struct
class Queue(Struct):
    """One ring: where it is, what it may have, its indexes, and the chain that was popped last. Words of 64 bits."""

    table: u64
    driver: u64
    device: u64
    sections: Ptr[Section]
    n_sections: u64
    hint: u64  # the section that was found last
    items: Ptr[Item]
    room: u64  # items
    size: u64
    most: u64
    features: u64
    next_avail: u64
    avail_wrap: u64
    next_used: u64
    used_wrap: u64
    signalled: u64
    seen: u64
    quiet: u64
    token: u64
    identifier: u64
    descriptors: u64
    count: u64  # of items
    readable: u64  # bytes
    writable: u64


@native(inline=True)
def section_of(q: Queue, address: u64) -> u64:
    """The number of the section that an address is in; `n_sections`: none."""
    s = q.sections[q.hint]
    if address >= s.start and address < s.end:
        return q.hint
    low: u64 = 0
    high = q.n_sections
    while low < high:
        middle = (low + high) >> 1
        if q.sections[middle].end <= address:
            low = middle + 1
        else:
            high = middle
    if low == q.n_sections or address < q.sections[low].start:
        return q.n_sections
    q.hint = low
    return low


@native(inline=True)
def add(q: Queue, address: u64, length: u64, writable: u64) -> u32:
    """Note a buffer; 0 if it may not be."""
    if writable:
        q.writable += length
    else:
        if q.writable:
            return 0
        q.readable += length
    if q.readable + q.writable >= MOST_BYTES:
        return 0
    end = address + length
    if end < address:
        return 0
    while address < end:
        index = section_of(q, address)
        if index == q.n_sections or q.count == q.room:
            return 0
        s = q.sections[index]
        if s.flags & (WRITABLE if writable else READABLE) == 0:
            return 0
        count = (min(s.end, end)) - address
        item = q.items[q.count]
        item.where = 2 * index + writable
        item.address = address
        item.length = count
        q.count += 1
        address += count
    return 1


@native(inline=True)
def table_at(q: Queue, address: u64, length: u64) -> u64:
    """Where this process has an indirect table; 0 if it may not be, or is not in one piece."""
    if length & 15 or length == 0 or length >> 4 > q.most or address & 7:
        return 0
    index = section_of(q, address)
    if index == q.n_sections:
        return 0
    s = q.sections[index]
    if s.flags & READABLE == 0 or length > s.end - address:
        return 0
    return s.host + (address - s.start)


@native(inline=True)
def begin(q: Queue, token: u64) -> None:
    """A new chain."""
    q.token = token
    q.identifier = token
    q.descriptors = 1
    q.count = 0
    q.readable = 0
    q.writable = 0


@native(inline=True)
def needs_event(event: u64, new: u64, old: u64) -> u32:
    """Whether an index has passed `event`."""
    return u32((new - event - 1) & 0xFFFF < (new - old) & 0xFFFF)


@native(inline=True)
def signal(q: Queue) -> u64:
    """Note all that was pushed, before it is read what the driver wants to know of; what was noted up to now."""
    old = q.signalled
    if old != q.next_used:
        q.signalled = q.next_used
        fence()
    return old


# Split rings


@native(inline=True)
def split_chain(q: Queue, head: u64) -> u32:
    """Walk a chain; 0 if it may not be."""
    table = cast(Ptr[u64], q.table)
    entries = q.size
    index = head
    left = q.most
    indirect = q.features & INDIRECT_OFFERED
    while index < entries:
        address = volatile_load(table + 2 * index)
        word = volatile_load(table + (2 * index + 1))
        length = word & 0xFFFFFFFF
        flags = word >> 32
        if flags & INDIRECT:
            if indirect == 0 or flags & NEXT:
                return 0
            place = table_at(q, address, length)
            if place == 0:
                return 0
            table = cast(Ptr[u64], place)
            entries = length >> 4
            index = 0
            indirect = 0
        else:
            if left == 0:
                return 0
            left -= 1
            if add(q, address, length, u64(flags & WRITE != 0)) == 0:
                return 0
            if flags & NEXT == 0:
                return 1
            index = word >> 48
    return 0


@native(export=True)
def split_pop(q: Queue) -> u32:
    """The next chain of the available ring. NONE: the driver will notify."""
    driver = cast(Ptr[u16], q.driver)
    device = cast(Ptr[u16], q.device)
    last = q.next_avail
    if last == q.seen:
        seen = u64(atomic_load(driver + 1))
        if seen == last:
            q.quiet = 0
            if q.features & EVENTS:
                volatile_store(device + (2 + 4 * q.size), u16(last))
            else:
                volatile_store(device, u16(0))
            fence()
            seen = u64(atomic_load(driver + 1))
        if seen == last:
            return NONE
        if (seen - last) & 0xFFFF > q.size:
            return PYTHON
        q.seen = seen
    if q.quiet == 0:
        q.quiet = 1
        if q.features & EVENTS == 0:
            volatile_store(device, u16(1))
    head = u64(volatile_load(driver + (2 + (last & (q.size - 1)))))
    begin(q, head)
    if split_chain(q, head) == 0:
        return PYTHON
    q.next_avail = (last + 1) & 0xFFFF
    return FOUND


@native(export=True)
def split_push(q: Queue, identifier: u64, written: u64) -> None:
    """A chain is used."""
    used = cast(Ptr[u32], q.device)
    slot = 1 + 2 * (q.next_used & (q.size - 1))
    volatile_store(used + slot, u32(identifier))
    volatile_store(used + (slot + 1), u32(written))
    q.next_used = (q.next_used + 1) & 0xFFFF
    atomic_store(cast(Ptr[u16], q.device) + 1, u16(q.next_used))


@native(export=True)
def split_wants(q: Queue) -> u32:
    """1 if the driver wants an interrupt for what was pushed since the last call."""
    new = q.next_used
    old = signal(q)
    if new == old:
        return 0
    driver = cast(Ptr[u16], q.driver)
    if q.features & EVENTS:
        return needs_event(u64(volatile_load(driver + (2 + q.size))), new, old)
    return u32(volatile_load(driver) & 1 == 0)


# Packed rings


@native(inline=True)
def packed_available(q: Queue) -> u32:
    """Whether the next descriptor is the device's."""
    word = atomic_load(cast(Ptr[u64], q.table) + (2 * q.next_avail + 1))
    return u32((word >> 48) & MARKS == (u64(AVAIL) if q.avail_wrap else u64(USED)))


@native(inline=True)
def packed_chain(q: Queue) -> u32:
    """Walk a chain; 0 if it may not be."""
    ring = cast(Ptr[u64], q.table)
    index = q.next_avail
    bound = min(q.most, q.size)
    count: u64 = 0
    while count < bound:
        word = atomic_load(ring + (2 * index + 1))
        address = volatile_load(ring + 2 * index)
        length = word & 0xFFFFFFFF
        flags = word >> 48
        if flags & INDIRECT:
            if q.features & INDIRECT_OFFERED == 0 or flags & NEXT or count:
                return 0
            place = table_at(q, address, length)
            if place == 0:
                return 0
            table = cast(Ptr[u64], place)
            for entry in range(length >> 4):
                inner_address = volatile_load(table + 2 * entry)
                inner = volatile_load(table + (2 * entry + 1))
                if add(q, inner_address, inner & 0xFFFFFFFF, u64((inner >> 48) & WRITE != 0)) == 0:
                    return 0
        elif add(q, address, length, u64(flags & WRITE != 0)) == 0:
            return 0
        count += 1
        if flags & NEXT == 0:
            q.identifier = (word >> 32) & 0xFFFF
            q.descriptors = count
            return 1
        index = index + 1 if index + 1 < q.size else u64(0)
    return 0


@native(inline=True)
def packed_suppress(q: Queue, word: u64) -> None:
    """What the device wants to be told of."""
    volatile_store(cast(Ptr[u32], q.device), u32(word))


@native(export=True)
def packed_pop(q: Queue) -> u32:
    """The next chain of the ring. NONE: the driver will notify."""
    if packed_available(q) == 0:
        q.quiet = 0
        if q.features & EVENTS:
            packed_suppress(q, q.next_avail | (q.avail_wrap << 15) | (u64(EVENT_DESC) << 16))
        else:
            packed_suppress(q, u64(EVENT_ENABLE) << 16)
        fence()
        if packed_available(q) == 0:
            return NONE
    if q.quiet == 0:
        q.quiet = 1
        if q.features & EVENTS == 0:
            packed_suppress(q, u64(EVENT_DISABLE) << 16)
    begin(q, q.next_avail)
    if packed_chain(q) == 0:
        return PYTHON
    q.next_avail += q.descriptors
    if q.next_avail >= q.size:
        q.next_avail -= q.size
        q.avail_wrap ^= 1
    return FOUND


@native(export=True)
def packed_push(q: Queue, identifier: u64, descriptors: u64, written: u64) -> None:
    """A chain is used."""
    flags = u64(MARKS) if q.used_wrap else u64(0)
    if written:
        flags |= WRITE
    word = (written & 0xFFFFFFFF) | (identifier << 32) | (flags << 48)
    atomic_store(cast(Ptr[u64], q.table) + (2 * q.next_used + 1), word)
    q.next_used += descriptors
    if q.next_used >= q.size:
        q.next_used -= q.size
        q.used_wrap ^= 1
        q.signalled = (q.signalled - q.size) & 0xFFFF


@native(export=True)
def packed_wants(q: Queue) -> u32:
    """1 if the driver wants an interrupt for what was pushed since the last call."""
    new = q.next_used
    old = signal(q)
    if new == old:
        return 0
    word = u64(volatile_load(cast(Ptr[u32], q.driver)))
    flags = (word >> 16) & 3
    if flags != EVENT_DESC or q.features & EVENTS == 0:
        return u32(flags != EVENT_DISABLE)
    event = word & 0x7FFF
    if (word >> 15) & 1 != q.used_wrap:
        event -= q.size
    return needs_event(event, new, old)


ROOTS = (split_pop, split_push, split_wants, packed_pop, packed_push, packed_wants)
