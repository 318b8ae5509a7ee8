"""clone: fork, and vfork as a fork whose parent waits (clone(2)). Threads are not there yet.

A vforked child shares its parent's memory, and programs use that to report why an exec failed (posix_spawn). Here it
has a copy; when it ends or executes something, it sends back the part of the parent's stack that it may have changed.
"""

from __future__ import annotations

import os
from struct import unpack

from dbt.errors import GuestFault

from .abi import EINVAL, ENOSYS, ERESTARTSYS
from .signals import OWN, SIGCHLD, SYS_SIGPROCMASK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .process import Process

CLONE_VM, CLONE_VFORK, CLONE_THREAD, CLONE_SETTLS, CLONE_PIDFD = 0x100, 0x4000, 0x10000, 0x80000, 0x1000
CLONE_PARENT_SETTID, CLONE_CHILD_SETTID = 0x100000, 0x1000000
_CSIGNAL = 0xFF  # what the child's end sends
# What a child of fork cannot be given here: FS, FILES, SIGHAND (which the kernel refuses without VM), PARENT.
_SHARED = 0x200 | 0x400 | 0x800 | 0x8000
_NAMESPACES = 0x7E020080
_BLOCK_ALL = ((1 << 64) - 1) & ~OWN
_SHARED_STACK = 16384  # bytes from the parent's stack pointer up
_SIG_SETMASK = 2
_HOST_SOCKETPAIR, _HOST_SENDTO = 53, 44
_AF_UNIX, _SOCK_STREAM, _SOCK_CLOEXEC, _MSG_NOSIGNAL = 1, 1, 0x80000, 0x4000
# What a child is likely to call before and after it executes something: execve, exit_group, close, dup3, fcntl,
# rt_sigaction, rt_sigprocmask, brk, mprotect, set_tid_address, set_robust_list, prlimit64, readlinkat, prctl,
# newfstatat.
_LIKELY = (221, 94, 57, 24, 25, 134, 135, 214, 226, 96, 99, 261, 78, 167, 79)


def sys_clone(process: Process, flags: int, stack: int, parent_tid: int, tls: int, child_tid: int, *_: int) -> int:
    """Make a child process. Arguments are in AArch64's order (CONFIG_CLONE_BACKWARDS)."""
    if flags & CLONE_THREAD or (flags & CLONE_VM and not flags & CLONE_VFORK):
        process.missing_feature("threads are not implemented: clone answers ENOSYS")
        return -ENOSYS
    if flags & (_NAMESPACES | CLONE_PIDFD):
        return -EINVAL
    if flags & _SHARED or flags & _CSIGNAL != SIGCHLD:
        process.missing_feature(f"flags {flags:#x} of clone are not implemented: EINVAL")
        return -EINVAL
    scratch = process.scratch
    process.call(SYS_SIGPROCMASK, _SIG_SETMASK, scratch.put(_BLOCK_ALL.to_bytes(8, "little")), 0, 8)
    try:
        # What was noted before must be the parent's alone: it is delivered first, then the call is made again.
        arrived = process.cpu.signals.take()
        if arrived:
            process.signals.deferred.extend(arrived)
            return -ERESTARTSYS
        return _fork(process, flags, stack, parent_tid, tls, child_tid)
    finally:
        process.signals.apply_mask()


def sys_clone3(_process: Process, *_: int) -> int:
    """Not there: C libraries fall back to clone."""
    return -ENOSYS


def _fork(process: Process, flags: int, stack: int, parent_tid: int, tls: int, child_tid: int) -> int:
    """Fork the host process; returns in both."""
    cpu = process.cpu
    sp = cpu.reg("sp")
    process.prepare(_LIKELY)
    ends = _connection(process) if flags & CLONE_VFORK else None
    try:
        pid = os.fork()
    except OSError:
        for end in ends or ():
            os.close(end)
        raise
    if pid:
        if ends is not None:
            os.close(ends[1])
            _await_child(process, ends[0], sp)
        if flags & CLONE_PARENT_SETTID:
            _tell(process, parent_tid, pid)
        return pid
    process.child = True
    process.signals.forked()
    if process.vfork_pipe >= 0:
        process.call(3, process.vfork_pipe)
        process.vfork_pipe = -1
    if ends is not None:
        os.close(ends[0])
        process.vfork_pipe = process.hide(ends[1])
        process.vfork_stack = sp if flags & CLONE_VM else 0
    after_fork = getattr(cpu, "after_fork", None)
    if after_fork is not None:
        after_fork()
    if flags & CLONE_CHILD_SETTID:
        _tell(process, child_tid, os.getpid())
    if flags & CLONE_SETTLS:
        cpu.set_reg("tpidr_el0", tls)
    if stack:
        cpu.set_reg("sp", stack)
    return 0


def _tell(process: Process, place: int, pid: int) -> None:
    """Store a process's number where the guest wants it; a bad address does not matter to the kernel either."""
    try:  # noqa: SIM105 - contextlib is dear to import
        process.memory.write_u32(place, pid)
    except GuestFault:
        pass


def _connection(process: Process) -> tuple[int, int]:
    """A pair of sockets: unlike a pipe, it can be written to without SIGPIPE where nobody reads any more."""
    place = process.scratch.space(8)
    result = int(process.call(_HOST_SOCKETPAIR, _AF_UNIX, _SOCK_STREAM | _SOCK_CLOEXEC, 0, place))
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    parent, child = unpack("<ii", process.scratch.get(place, 8))
    return parent, child


def _shared_part(process: Process, sp: int) -> tuple[int, int]:
    """The part of the stack that a vforked child gives back: [start, end)."""
    area = process.memory.area_at(sp)
    return (sp, min(sp + _SHARED_STACK, area.end)) if area is not None else (sp, sp)


def _await_child(process: Process, fd: int, sp: int) -> None:
    """Wait until a vforked child has ended or executed something; take over what it wrote."""
    data = b""
    try:
        while part := os.read(fd, _SHARED_STACK):
            data += part
    finally:
        os.close(fd)
    start, end = _shared_part(process, sp)
    if data and len(data) == end - start:
        try:  # noqa: SIM105
            process.memory.write(start, data)
        except GuestFault:
            pass  # it is not writable: then the child wrote nothing


def release_parent(process: Process) -> None:
    """In a vforked child that ends or executes: hand back the stack, let the parent go on."""
    start, end = _shared_part(process, process.vfork_stack) if process.vfork_stack else (0, 0)
    try:
        data = process.memory.read(start, end - start)
    except GuestFault:
        data = b""  # there is no stack
    while data:
        sent = int(process.call(_HOST_SENDTO, process.vfork_pipe, process.scratch.put(data), len(data), _MSG_NOSIGNAL))
        if sent <= 0:
            break  # the parent is gone: nobody to tell
        data = data[sent:]
    process.call(3, process.vfork_pipe)
    process.vfork_pipe = -1
