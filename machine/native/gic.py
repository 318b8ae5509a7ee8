"""Interrupt controllers, native: what each CPU of a GIC is offered, and what its interface signals.

`settle` looks at all anew: 32 interrupts are one word, so that is less work than to know what could be different. In
Python (machine/devices/gic_core.py, gicv2_core.py, gicv3_cpu.py) it is the other way round, and that is the definition.
"""

from __future__ import annotations

from dbt.native import Ptr, Struct, ctz, native, struct, u8, u16, u32, u64

IDLE = 0x100  # a priority
NOTHING = IDLE << 32 | 1023  # an offer: the priority above the interrupt's number
NUMBER, PRIORITY_AT, PRIORITY, GROUP_AT = 0xFFFFFF, 32, 0x1FF, 48
FIQ, IRQ, WAKE = 1 << 60, 1 << 61, 1 << 62
SIGNALS = FIQ | IRQ | WAKE
SPLIT, ASLEEP, PMHE, TAKES = 1, 2, 4, 8  # Cpu.flags: group 0 is FIQ; sleeps; priorities hide; TAKES << group


@struct
class Cpu(Struct):
    """A CPU's interface. Python sets all but `best` and what is below it. Words of 64 bits."""

    enables: u64  # groups
    limit: u64  # the priority mask register
    running: u64  # the group priority of what runs
    mask_0: u64  # bits of priorities that may preempt
    mask_1: u64
    flags: u64
    lpi: u64  # the most urgent LPI, an offer
    best: u64  # the most urgent pending interrupt: number, priority, group; and which lines are up
    first: u64  # of group 0
    second: u64  # of group 1


@struct
class Gic(Struct):
    """A GIC. One more CPU stands for any."""

    group: Ptr[u32]  # each slot's, as the next five
    enabled: Ptr[u32]
    latched: Ptr[u32]
    level: Ptr[u32]
    active: Ptr[u32]
    edge: Ptr[u32]
    number: Ptr[u32]  # that of a slot's first interrupt
    priority: Ptr[u8]  # each interrupt's
    route: Ptr[u16]  # each interrupt's: a CPU, or CPUs as a mask
    slots: u64
    cpu: Ptr[Cpu]
    cpus: u64
    masks: u64  # whether routes are masks
    changed: Ptr[u32]  # the CPUs whose lines are different


@native(inline=True)
def give(c: Cpu, group: u64, offer: u64) -> None:
    """Offer an interrupt to a CPU."""
    if group:
        c.second = min(c.second, offer)
    else:
        c.first = min(c.first, offer)


@native(inline=True)
def give_any(g: Gic, group: u64, offer: u64) -> None:
    """Of the CPUs that take part, the first with the least urgent work gets what may go to any."""
    if offer == NOTHING:
        return
    chosen = g.cpus
    most: u64 = 0
    for number in range(g.cpus):
        c = g.cpu[number]
        hidden = c.flags & PMHE != 0 and (offer >> PRIORITY_AT) >= c.limit
        part = c.flags & (u64(TAKES) << group) and (c.enables >> group) & 1 and not hidden
        if part and (chosen == g.cpus or c.running > most):
            chosen = number
            most = c.running
    if chosen < g.cpus:
        give(g.cpu[chosen], group, offer)


@native(inline=True)
def offer_all(g: Gic) -> None:
    """Offer all that is pending, enabled and not active."""
    for slot in range(g.slots):
        waiting = (g.latched[slot] | g.level[slot] & ~g.edge[slot]) & g.enabled[slot] & ~g.active[slot]
        while waiting:
            bit = u64(ctz(waiting))
            waiting &= waiting - 1
            at = 32 * slot + bit
            offer = u64(g.priority[at]) << PRIORITY_AT | u64(g.number[slot]) + bit
            group = (u64(g.group[slot]) >> bit) & 1
            route = u64(g.route[at])
            if g.masks == 0:
                if route <= g.cpus:
                    give(g.cpu[route], group, offer)
            else:
                while route:
                    number = u64(ctz(route))
                    route &= route - 1
                    if number < g.cpus:
                        give(g.cpu[number], group, offer)


@native(inline=True)
def seen(c: Cpu) -> u64:
    """What a CPU's interface sees of its offers."""
    best: u64 = NOTHING
    group: u64 = 0
    if c.enables & 1:
        best = c.first
    if c.enables & 2 and c.second < best:
        best = c.second
        group = 1
    priority = best >> PRIORITY_AT
    mask = c.mask_1 if group else c.mask_0
    word = best | group << GROUP_AT
    if c.flags & ASLEEP:
        if priority < IDLE:
            word |= WAKE
    elif priority < c.limit and (c.running == IDLE or priority & mask < c.running & mask):
        word |= u64(FIQ) if group == 0 and c.flags & SPLIT else u64(IRQ)
    return word


@native(export=True)
def settle(g: Gic) -> u32:
    """Look at all anew; how many CPUs' lines are different, which `changed` has."""
    for number in range(g.cpus + 1):
        c = g.cpu[number]
        c.first = NOTHING
        c.second = c.lpi
    offer_all(g)
    if g.masks == 0:
        anybody = g.cpu[g.cpus]
        give_any(g, 0, anybody.first)
        give_any(g, 1, anybody.second)
    count: u32 = 0
    for number in range(g.cpus):
        c = g.cpu[number]
        word = seen(c)
        if (word ^ c.best) & SIGNALS:
            g.changed[count] = u32(number)
            count += 1
        c.best = word
    return count


ROOTS = (settle,)
