"""System calls on signals (linux/kernel/signal.c). struct sigaction is {handler, flags, restorer, mask} of 64 bits."""

from __future__ import annotations

from struct import pack, unpack

from .abi import EINTR, EINVAL, s32
from .sigframe import altstack_flags, set_altstack
from .signals import OWN, SIGNALS, UNBLOCKABLE, bit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .process import Process

_HOST_SIGPENDING, _HOST_SIGTIMEDWAIT, _HOST_SIGSUSPEND = 127, 128, 130
_HOST_TIMER_CREATE, _HOST_TIMER_DELETE = 222, 226
_HOST_GETPID, _HOST_SIGQUEUEINFO, _HOST_TGSIGQUEUEINFO = 39, 129, 297
_SIGINFO = 128
_SIGEVENT = 64  # bytes
_MASK_SIZE = 8
_BLOCK, _UNBLOCK, _SETMASK = 0, 1, 2


def sys_rt_sigaction(process: Process, signal: int, new: int, old: int, size: int, *_: int) -> int:
    """Get and set what a signal does."""
    number = s32(signal)
    if size != _MASK_SIZE or not 1 <= number <= SIGNALS:
        return -EINVAL
    action = unpack("<4Q", process.memory.read(new, 32)) if new else None
    if action is not None and bit(number) & UNBLOCKABLE:
        return -EINVAL
    before = process.signals.action(number)
    if action is not None:
        handler, flags, restorer, mask = action
        process.signals.set_action(number, (handler, flags, restorer, mask & ~UNBLOCKABLE))
    if old:
        process.memory.write(old, pack("<4Q", *before))
    return 0


def sys_rt_sigprocmask(process: Process, how: int, new: int, old: int, size: int, *_: int) -> int:
    """Get and set the mask."""
    if size != _MASK_SIZE:
        return -EINVAL
    before = process.signals.mask
    if new:
        wanted = process.memory.read_u64(new)
        how = s32(how)
        if how == _BLOCK:
            wanted = before | wanted
        elif how == _UNBLOCK:
            wanted = before & ~wanted
        elif how != _SETMASK:
            return -EINVAL
        process.signals.set_mask(wanted)
    if old:
        process.memory.write_u64(old, before)
    return 0


def sys_rt_sigpending(process: Process, buffer: int, size: int, *_: int) -> int:
    """The signals that are blocked and have arrived."""
    if size > _MASK_SIZE:
        return -EINVAL
    found = process.scratch.space(_MASK_SIZE)
    result = int(process.call(_HOST_SIGPENDING, found, _MASK_SIZE))
    if result < 0:
        return result
    mask = int.from_bytes(process.scratch.get(found, _MASK_SIZE), "little")
    for signal, _info in process.signals.deferred:
        mask |= bit(signal)
    process.memory.write(buffer, pack("<Q", mask & process.signals.mask)[:size])
    return 0


def sys_rt_sigsuspend(process: Process, mask: int, size: int, *_: int) -> int:
    """Wait for a signal under another mask."""
    if size != _MASK_SIZE:
        return -EINVAL
    wanted = process.memory.read_u64(mask)
    signals = process.signals
    if any(not wanted & bit(signal) for signal, _info in signals.deferred):
        process.cpu.env.poll = 1
        return signals.wait_with_mask(wanted, -EINTR)
    result = int(process.wait(_HOST_SIGSUSPEND, process.scratch.put(pack("<Q", wanted & ~OWN)), _MASK_SIZE))
    return signals.wait_with_mask(wanted, result)


def sys_rt_sigtimedwait(process: Process, wanted: int, info: int, timeout: int, size: int, *_: int) -> int:
    """Take a signal that is blocked, without its handler."""
    if size != _MASK_SIZE:
        return -EINVAL
    mask = process.memory.read_u64(wanted)
    signals = process.signals
    for index, (number, data) in enumerate(signals.deferred):
        if mask & bit(number):
            if info:
                process.memory.write(info, data)
            del signals.deferred[index]
            return number
    host_mask = process.scratch.put(pack("<Q", mask))
    found, time = process.optional(info, 128), process.optional(timeout, 16)
    return int(process.wait(_HOST_SIGTIMEDWAIT, host_mask, found, time, _MASK_SIZE))


def sys_rt_sigqueueinfo(process: Process, pid: int, signal: int, info: int, *_: int) -> int:
    """Send a signal with a siginfo."""
    return _queue(process, _HOST_SIGQUEUEINFO, (pid,), signal, info)


def sys_rt_tgsigqueueinfo(process: Process, group: int, thread: int, signal: int, info: int, *_: int) -> int:
    """The same to one thread."""
    return _queue(process, _HOST_TGSIGQUEUEINFO, (group, thread), signal, info)


def _queue(process: Process, host: int, to: tuple[int, ...], signal: int, info: int) -> int:
    """To oneself the siginfo may be that of a fault (who has looked at a crash passes it on), and is for the guest.

    Our handler would take it for a fault of the host's.
    """
    number = s32(signal)
    data = process.memory.read(info, _SIGINFO)
    me = int(process.call(_HOST_GETPID))
    if 1 <= number <= SIGNALS and bit(number) & OWN and all(s32(each) == me for each in to):
        process.signals.send(number, pack("<i", number) + data[4:])
        return 0
    return int(process.call(host, *to, signal, process.scratch.put(data)))


def sys_sigaltstack(process: Process, new: int, old: int, *_: int) -> int:
    """Get and set the stack for handlers with SA_ONSTACK."""
    signals = process.signals
    sp = process.cpu.reg("sp")
    before = signals.altstack
    if new:
        result = set_altstack(process, *unpack("<QIxxxxQ", process.memory.read(new, 24)))
        if result < 0:
            return result
    if old:
        process.memory.write(old, pack("<QIxxxxQ", before[0], altstack_flags(before, sp), before[2]))
    return 0


def sys_timer_create(process: Process, clock: int, event: int, timer: int, *_: int) -> int:
    """Make a timer that sends a signal."""
    place = process.pointer(timer, 4)
    result = int(process.call(_HOST_TIMER_CREATE, clock, process.optional(event, _SIGEVENT), place))
    if result == 0:
        process.signals.timers.add(process.memory.read_u32(timer))
    return result


def sys_timer_delete(process: Process, timer: int, *_: int) -> int:
    """Remove a timer."""
    process.signals.timers.discard(timer & 0xFFFFFFFF)
    return int(process.call(_HOST_TIMER_DELETE, timer))
