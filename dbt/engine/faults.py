"""Signal handlers of the host, native: faults of translated code become exits, other signals are noted for the guest.

A fault of a block resumes at the leave stencil, as if the translated code had left by itself: the pinned registers are
as they were at the access (the stencil builder has verified that), and only the stack pointer has to be put back. One
of a region resumes where LLVM was told that it would (backends/llvm/landings.py).
"""

from __future__ import annotations

from dbt.native import Fn, Ptr, addr, cast, i32, i64, native, new, symbol, syscall, u8, u32, u64, volatile_store

from .host_x86_64 import (
    SI_ADDR,
    SYS_GETPID,
    SYS_GETTID,
    SYS_SIGACTION,
    SYS_TGKILL,
    SYSTEM_CALL,
    UC_ERR,
    UC_FLAGS,
    UC_RCX,
    UC_RDI,
    UC_RIP,
    UC_RSP,
    UC_SIGMASK,
    KernelSigaction,
)
from .layout import EXIT_BUS, EXIT_FAULT, MAX_CPUS, SIGINFO_BYTES, SIGNAL_RING, Ctx, Env, SignalArea

SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV = 4, 5, 7, 8, 11
FAULTS = (1 << SIGILL) | (1 << SIGTRAP) | (1 << SIGBUS) | (1 << SIGFPE) | (1 << SIGSEGV)
BUS_ADRERR = 2
SI_TKILL = -6  # si_code of raise()
SI_CODE = 8  # offset in siginfo
SI_PID = 16
# Signals that stay unblocked while one waits to be taken: those that our own code may raise.
SYNCHRONOUS = (1 << 3) | (1 << 4) | (1 << 6) | (1 << 7) | (1 << 10)


@native(inline=True)
def field(base: Ptr[u8], offset: u64) -> Ptr[u64]:
    """A 64-bit field of one of the kernel's structs."""
    return cast(Ptr[u64], base + offset)


@native(inline=False)
def note(area: SignalArea, signo: u32, info: Ptr[u8], context: Ptr[u8]) -> None:
    """Record a signal for the guest, and see to it that translated code leaves soon."""
    slot = area.ring[area.head & (SIGNAL_RING - 1)]
    slot.signo = signo
    source = cast(Ptr[u64], info)
    to = cast(Ptr[u64], addr(slot.info))
    for i in range(u32(SIGINFO_BYTES // 8)):
        to[i] = source[i]
    area.head += 1
    # One at a time: the rest stays pending in the kernel, in its order, until Python has dealt with this one.
    field(context, UC_SIGMASK)[0] = ~u64(SYNCHRONOUS)
    rip = field(context, UC_RIP)
    if rip[0] >= area.window_start and rip[0] < area.window_end:
        rip[0] = area.window_abort
    if area.env:
        env = cast(Env, area.env)
        c = cast(Ctx, env.ctx)
        volatile_store(addr(env.poll), 1)
        if c.empty_cache:
            env.jump_cache = c.empty_cache


@native(inline=True)
def holds(c: Ctx, host: u64) -> u32:
    """1 if the host address is in this address space's translated code."""
    return u32(host >= c.code and host < c.code_end) | u32(host >= c.regions and host < c.regions_end)


@native(inline=False)
def owner(area: SignalArea, host: u64, pinned: u64) -> u64:
    """The Env whose translated code holds the host address, 0 if there is none. `pinned`: where most code has it."""
    for i in range(u32(MAX_CPUS)):
        if area.cpus[i] == pinned and pinned:
            if holds(cast(Ctx, cast(Env, pinned).ctx), host):
                return pinned
    for i in range(u32(MAX_CPUS)):
        found = area.cpus[i]
        if found:
            if holds(cast(Ctx, cast(Env, found).ctx), host):
                return found
    return 0


@native(inline=False)
def land(c: Ctx, env: Env, host: u64) -> u64:
    """Where the access of a region at a host address goes on when it has faulted; 0: at the leave stencil.

    Env gets the address of its instruction.
    """
    at = u32(host - c.regions)
    low: u64 = 0
    high = c.n_landings
    while low < high:
        middle = (low + high) >> 1
        if c.landings[middle].access < at:
            low = middle + 1
        else:
            high = middle
    if low < c.n_landings and c.landings[low].access == at:
        env.pc = c.landings[low].pc
        return c.regions + u64(c.landings[low].landing)
    return 0


@native(inline=False)
def raised_again(area: SignalArea, info: Ptr[u8]) -> u32:
    """1 if the thread whose fault was passed on has sent this signal to itself."""
    if area.crashed == 0 or cast(Ptr[i32], info + SI_CODE)[0] != SI_TKILL:
        return 0
    same = u64(syscall(SYS_GETTID)) == area.crashed
    return u32(same and i64(cast(Ptr[i32], info + SI_PID)[0]) == syscall(SYS_GETPID))


@native(export=True)
def foreign_actions(area: SignalArea) -> u64:
    """The faults, as bits, whose action is not the one that we have set last."""
    found: u64 = 0
    action = new(KernelSigaction)
    for signo in range(u32(SIGSEGV + 1)):
        if (u64(FAULTS) >> u64(signo)) & 1:
            syscall(SYS_SIGACTION, signo, 0, cast(u64, action), 8)
            if action.handler != area.handler or action.mask != area.masks[signo]:
                found |= u64(1) << u64(signo)
    return found


@native(inline=False)
def pass_on(area: SignalArea, signo: u32, info: Ptr[u8], context: Ptr[u8]) -> None:
    """A fault that is not the guest's: to whoever handled it before us, or to its default action.

    A fault comes again when this returns; a signal that was sent has to be sent again. A handler that tells of a crash
    and then raises the signal once more, for whoever was there before it, has had its turn: the process dies.
    """
    old = area.previous[signo]
    sent = cast(Ptr[i32], info + SI_CODE)[0] <= 0
    if sent and raised_again(area, info):
        old = 0
    if old > 1:
        if not sent:
            area.crashed = u64(syscall(SYS_GETTID))
        handler = cast(Fn[None, i32, Ptr[u8], Ptr[u8]], old)
        handler(i32(signo), info, context)
        return
    if sent and old == 1:
        return
    action = new(KernelSigaction)
    action.handler = 0
    action.flags = 0
    action.restorer = 0
    action.mask = 0
    syscall(SYS_SIGACTION, signo, cast(u64, action), 0, 8)
    if sent:
        syscall(SYS_TGKILL, syscall(SYS_GETPID), syscall(SYS_GETTID), signo)


@native(export=True)
def on_signal(signo: i32, info: Ptr[u8], context: Ptr[u8]) -> None:
    """The handler of every signal that we handle (SA_SIGINFO | SA_ONSTACK)."""
    area = cast(SignalArea, cast(Ptr[u64], symbol(SYSTEM_CALL, "dragoman_area"))[0])
    code = cast(Ptr[i32], info + SI_CODE)[0]
    number = u32(signo)
    fault = number == SIGSEGV or number == SIGBUS or number == SIGFPE or number == SIGILL or number == SIGTRAP
    if fault and code <= 0 and (area.guests == 0 or raised_again(area, info)):
        pass_on(area, number, info, context)
        return
    if not fault or code <= 0:
        note(area, number, info, context)
        return
    rip = field(context, UC_RIP)
    found = owner(area, rip[0], field(context, UC_RDI)[0])
    if found and number != SIGILL and number != SIGTRAP:
        env = cast(Env, found)
        c = cast(Ctx, env.ctx)
        if env.in_code:
            env.fault_pc = rip[0]
            env.fault_address = field(info, SI_ADDR)[0]
            env.fault_error = field(context, UC_ERR)[0]
            env.exit = EXIT_FAULT
            if number == SIGBUS and code == BUS_ADRERR:
                env.exit = EXIT_BUS
            if rip[0] >= c.regions and rip[0] < c.regions_end:
                landing = land(c, env, rip[0])
                if landing:  # the stack and all registers are what that code expects
                    rip[0] = landing
                    return
                # Everything is in env, as far as it is live; the leave stencil spills flag words out of registers.
                field(context, UC_RDI)[0] = found
                for i in range(u32(4)):
                    field(context, UC_FLAGS + 8 * u64(i))[0] = env.flags[i]
            if env.step:
                field(context, UC_RCX)[0] = env.step
                env.step = 0
            rip[0] = c.leave
            field(context, UC_RSP)[0] = env.host_sp
            return
    pass_on(area, number, info, context)
