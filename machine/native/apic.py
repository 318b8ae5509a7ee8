"""Local APIC, native: what its CPU is offered, acceptance, acknowledge and end (Intel SDM volume 3, 11.8).

`offered` is the first word: whoever runs the CPU looks at it with one load. In Python (machine/devices/apic_core.py) is
what has to be done, and all the rest: registers, messages, local inputs, and what `acknowledge` and `end` tell of.
"""

from __future__ import annotations

from dbt.native import Arr, Ptr, Struct, addr, array, clz, native, struct, u32, u64

NOTHING = 0x100  # in place of a vector
VECTOR = 0x1FF
ASKS = 1 << 9  # offered: the CPU's line is up
ENABLED, PIC = 1, 2  # settings: it takes interrupts of its own; the 8259 asks
TIMER = 1 << 10  # acknowledge: the timer waited for this vector to be free
EXTERNAL = 1 << 11  # acknowledge: the vector is the 8259's to say
SPURIOUS = 1 << 12  # acknowledge: nobody asked
LEVEL = 1 << 10  # end: it was triggered by a level, whose source has to be told


@struct
class Apic(Struct):
    """Sets have 256 bits, as the registers have them. Python sets what is from `task` to `watched`."""

    offered: u64  # the vector that is to be served now, or NOTHING; and ASKS
    task: u64  # TPR
    settings: u64
    spurious: u64  # vector
    watched: u64  # the timer's vector
    requested: Arr[u32] = array(8)
    in_service: Arr[u32] = array(8)
    by_level: Arr[u32] = array(8)


@native(inline=True)
def top(vectors: Ptr[u32]) -> u64:
    """The highest vector of a set; NOTHING if it is empty."""
    word: u64 = 8
    while word:
        word -= 1
        bits = vectors[word]
        if bits:
            return 32 * word + 31 - u64(clz(bits))
    return NOTHING


@native(inline=True)
def has(vectors: Ptr[u32], vector: u64) -> bool:
    """Whether a vector is in a set."""
    return (vectors[vector >> 5] >> u32(vector & 31)) & 1 != 0


@native(inline=True)
def put(vectors: Ptr[u32], vector: u64) -> None:
    """Put a vector into a set."""
    vectors[vector >> 5] |= u32(1) << u32(vector & 31)


@native(inline=True)
def take(vectors: Ptr[u32], vector: u64) -> None:
    """Take a vector out of a set."""
    vectors[vector >> 5] &= ~(u32(1) << u32(vector & 31))


@native(export=True)
def apic_settle(a: Apic) -> u64:
    """Look at all anew: what is `offered` now."""
    found = top(addr(a.requested))
    serving = top(addr(a.in_service))
    running = a.task >> 4
    if serving != NOTHING:
        running = max(running, serving >> 4)
    if found != NOTHING and found >> 4 <= running:
        found = NOTHING
    word = found
    if (found != NOTHING and a.settings & ENABLED) or a.settings & PIC:
        word |= ASKS
    a.offered = word
    return word


@native(export=True)
def apic_accept(a: Apic, vector: u64, level: u64) -> u64:
    """Request a vector, from 16 to 255; what is `offered` now."""
    put(addr(a.requested), vector)
    if level:
        put(addr(a.by_level), vector)
    else:
        take(addr(a.by_level), vector)
    return apic_settle(a)


@native(export=True)
def apic_acknowledge(a: Apic) -> u64:
    """The CPU takes an interrupt: its vector, and TIMER; or the spurious one with SPURIOUS; or EXTERNAL."""
    vector = a.offered & VECTOR
    if a.settings & ENABLED and vector != NOTHING:
        take(addr(a.requested), vector)
        put(addr(a.in_service), vector)
        apic_settle(a)
        return vector | TIMER if vector == a.watched else vector
    if a.settings & PIC:
        return EXTERNAL
    return a.spurious | SPURIOUS


@native(export=True)
def apic_end(a: Apic) -> u64:
    """The highest vector in service is done: that vector, and LEVEL; or NOTHING."""
    vector = top(addr(a.in_service))
    if vector == NOTHING:
        return NOTHING
    take(addr(a.in_service), vector)
    apic_settle(a)
    return vector | LEVEL if has(addr(a.by_level), vector) else vector


ROOTS = (apic_settle, apic_accept, apic_acknowledge, apic_end)
