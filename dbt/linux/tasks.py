"""System calls on the process itself: its end, its thread's registrations, futexes, limits."""

from __future__ import annotations

from struct import pack, unpack

from .abi import EINTR, EINVAL, ENOSYS, s32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .process import Process

_HOST_GETTID, _HOST_GETPID, _HOST_FUTEX, _HOST_PRLIMIT64 = 186, 39, 202, 302
_ROBUST_LIST = 24  # bytes of struct robust_list_head
_FUTEX_COMMAND = 0x7F
_FUTEX_WAIT, _FUTEX_WAKE, _FUTEX_REQUEUE, _FUTEX_CMP_REQUEUE, _FUTEX_WAKE_OP = 0, 1, 3, 4, 5
_FUTEX_WAIT_BITSET, _FUTEX_WAKE_BITSET = 9, 10
# Limits of a process that would limit the translator, too: DATA, STACK, AS. They are remembered only.
_REMEMBERED = frozenset((2, 3, 9))
_NOFILE = 7


def sys_exit(process: Process, status: int, *_: int) -> int:
    """End the thread, which is the process."""
    process.status = status & 0xFF
    return 0


sys_exit_group = sys_exit


def sys_set_tid_address(process: Process, address: int, *_: int) -> int:
    """Register what to clear at the thread's end; answers its number."""
    process.clear_tid = address
    return int(process.call(_HOST_GETTID))


def sys_set_robust_list(_process: Process, _head: int, size: int, *_: int) -> int:
    """Register a list of locks; nobody is there to inherit them."""
    return 0 if size == _ROBUST_LIST else -EINVAL


def sys_rseq(_process: Process, *_: int) -> int:
    """Restartable sequences are not there; C libraries do without."""
    return -ENOSYS


def sys_restart_syscall(_process: Process, *_: int) -> int:
    """Never called by programs."""
    return -EINTR


def sys_futex(process: Process, address: int, operation: int, value: int, other: int, second: int, third: int) -> int:
    """Wait for, or wake, who waits for a word of memory."""
    word = process.pointer(address, 4)
    command = operation & _FUTEX_COMMAND
    if command in {_FUTEX_WAIT, _FUTEX_WAIT_BITSET}:
        return int(process.wait(_HOST_FUTEX, word, operation, value, process.optional(other, 16), 0, third))
    if command in {_FUTEX_WAKE, _FUTEX_WAKE_BITSET}:
        return int(process.call(_HOST_FUTEX, word, operation, value, 0, 0, third))
    if command in {_FUTEX_REQUEUE, _FUTEX_CMP_REQUEUE, _FUTEX_WAKE_OP}:
        return int(process.call(_HOST_FUTEX, word, operation, value, other, process.pointer(second, 4), third))
    process.missing_feature(f"futex operation {command} is not implemented: ENOSYS")
    return -ENOSYS


def sys_prlimit64(process: Process, pid: int, resource: int, new: int, old: int, *_: int) -> int:
    """Get and set a limit."""
    resource &= 0xFFFFFFFF
    own = s32(pid) in {0, int(process.call(_HOST_GETPID))}
    if not own or resource not in _REMEMBERED:
        limits = (process.optional(new, 16), process.optional(old, 16))
        if new and resource == _NOFILE and process.memory.read_u64(new) < process.limits_of(_NOFILE)[0]:
            process.prepare_all()  # there may be no descriptor left to import it with
        return int(process.call(_HOST_PRLIMIT64, pid, resource, *limits))
    before = process.limits_of(resource)
    if new:
        soft, hard = unpack("<QQ", process.memory.read(new, 16))
        if soft > hard:
            return -EINVAL
        process.limits[resource] = (soft, hard)
    if old:
        process.memory.write(old, pack("<QQ", *before))
    return 0


def sys_getrlimit(process: Process, resource: int, limit: int, *_: int) -> int:
    """Get a limit."""
    return sys_prlimit64(process, 0, resource, 0, limit)


def sys_setrlimit(process: Process, resource: int, limit: int, *_: int) -> int:
    """Set a limit."""
    return sys_prlimit64(process, 0, resource, limit, 0)
