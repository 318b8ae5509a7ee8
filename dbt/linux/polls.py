"""Waiting for descriptors: poll, select, epoll, signalfd. struct epoll_event is packed on x86-64 only (12 bytes)."""

from __future__ import annotations

from struct import iter_unpack, pack, unpack

from .abi import EINVAL, s32
from .signals import OWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .process import Process

_HOST_EPOLL_CTL, _HOST_EPOLL_PWAIT, _HOST_PSELECT6, _HOST_PPOLL, _HOST_SIGNALFD4 = 233, 281, 270, 271, 289
_HOST_EPOLL_PWAIT2 = 441
_EVENT, _HOST_EVENT = 16, 12
_MAX_EVENTS = 4096
_MAX_SELECT = 1024 * 64
_CTL_DEL = 2


def _mask(process: Process, address: int, size: int) -> tuple[int, int | None]:
    """A signal mask argument: host address of a copy without the signals that are ours, and the mask; (0, None)."""
    if not address:
        return 0, None
    if size != 8:
        raise OSError(EINVAL, "size of a signal mask")
    mask = process.memory.read_u64(address)
    return process.scratch.put(pack("<Q", mask & ~OWN)), mask


def _finish(process: Process, mask: int | None, result: int) -> int:
    return result if mask is None else process.signals.wait_with_mask(mask, result)


def sys_ppoll(process: Process, fds: int, count: int, timeout: int, mask: int, size: int, *_: int) -> int:
    """Wait for some of several descriptors."""
    count &= 0xFFFFFFFF
    array = process.pointer(fds, 8 * count) if count else 0
    time = process.optional(timeout, 16)
    host_mask, guest_mask = _mask(process, mask, size)
    return _finish(process, guest_mask, int(process.wait(_HOST_PPOLL, array, count, time, host_mask, 8)))


def sys_pselect6(process: Process, count: int, read: int, write: int, special: int, timeout: int, mask: int) -> int:
    """Wait for some of several descriptors given as bit sets; the last argument points to {mask, its size}."""
    number = s32(count)
    if number < 0:
        return -EINVAL
    size = (min(number, _MAX_SELECT) + 63) // 64 * 8
    sets = [process.optional(address, size) for address in (read, write, special)]
    time = process.optional(timeout, 16)
    guest_mask: int | None = None
    argument = 0
    if mask:
        pointer, length = unpack("<QQ", process.memory.read(mask, 16))
        host_mask, guest_mask = _mask(process, pointer, length)
        argument = process.scratch.put(pack("<QQ", host_mask, 8))
    number = min(number, _MAX_SELECT)
    return _finish(process, guest_mask, int(process.wait(_HOST_PSELECT6, number, *sets, time, argument)))


def sys_epoll_ctl(process: Process, epoll: int, operation: int, fd: int, event: int, *_: int) -> int:
    """Change what an epoll descriptor watches."""
    host_event = 0
    if s32(operation) != _CTL_DEL:
        events, data = unpack("<IxxxxQ", process.memory.read(event, _EVENT))
        host_event = process.scratch.put(pack("<IQ", events, data))
    return int(process.call(_HOST_EPOLL_CTL, process.descriptor(epoll), operation, process.descriptor(fd), host_event))


def _epoll(process: Process, host: int, fd: int, events: int, count: int, timeout: int, mask: int, size: int) -> int:
    number = s32(count)
    if number <= 0:
        return -EINVAL
    process.pointer(events, _EVENT * number)
    number = min(number, _MAX_EVENTS)
    found = process.scratch.space(_HOST_EVENT * number)
    host_mask, guest_mask = _mask(process, mask, size)
    result = int(process.wait(host, process.descriptor(fd), found, number, timeout, host_mask, 8))
    if result > 0:
        data = process.scratch.get(found, _HOST_EVENT * result)
        process.memory.write(events, b"".join(pack("<IxxxxQ", *event) for event in iter_unpack("<IQ", data)))
    return _finish(process, guest_mask, result)


def sys_epoll_pwait(process: Process, fd: int, events: int, count: int, timeout: int, mask: int, size: int) -> int:
    """Wait for what an epoll descriptor watches, for milliseconds."""
    return _epoll(process, _HOST_EPOLL_PWAIT, fd, events, count, timeout, mask, size)


def sys_epoll_pwait2(process: Process, fd: int, events: int, count: int, timeout: int, mask: int, size: int) -> int:
    """Wait for what an epoll descriptor watches, for a timespec."""
    return _epoll(process, _HOST_EPOLL_PWAIT2, fd, events, count, process.optional(timeout, 16), mask, size)


def sys_signalfd4(process: Process, fd: int, mask: int, size: int, flags: int, *_: int) -> int:
    """A descriptor from which signals are read (struct signalfd_siginfo is one layout)."""
    host_mask = _mask(process, mask, size)[0]
    return process.given(int(process.call(_HOST_SIGNALFD4, process.descriptor(fd), host_mask, 8, flags)))
