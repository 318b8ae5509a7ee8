"""System calls that pass through to the host, native: those whose arguments mean the same on both sides.

Every guest address is checked against the guest's range together with the size of what it points to; the pages
behind it are the kernel's to check, which answers EFAULT as it would natively. Descriptors of our own are refused.
"""

from __future__ import annotations

from dbt.native import Arr, Fn, Ptr, Struct, addr, array, cast, i64, native, new, struct, symbol, syscall, u8, u32, u64

from .host_x86_64 import SYSTEM_CALL
from .layout import MAKES, N_PASS, SYSCALL_INTERRUPTED, SYSCALL_NOT_STARTED, SYSCALL_PERFORM, Ctx, Env

TAG_MASK = 0x00FFFFFFFFFFFFFF  # Linux takes Arm's top byte off addresses in system calls
EINTR, EBADF, EFAULT, EMFILE = 4, 9, 14, 24
SYS_CLOSE = 3
AT_FDCWD = 0xFFFFFF9C  # -100 as u32


@struct
class Arguments(Struct):
    """Of a host system call."""

    a: Arr[u64] = array(6)


@native(export=True)
def host_call(env: Env, number: u64, a: Arguments) -> i64:
    """Make a host system call that may wait: the result, -errno, or -512 if a signal was noted before it began."""
    call = cast(Fn[i64, u64, u64, u64, u64, u64, u64, u64, u64], symbol(SYSTEM_CALL, "dragoman_system_call"))
    return call(cast(u64, addr(env.poll)), number, a.a[0], a.a[1], a.a[2], a.a[3], a.a[4], a.a[5])


@native(inline=False)
def pass_through(env: Env, c: Ctx) -> u32:
    """Make the system call that the guest asks for, if native code may; 1: done, 0: it is for Python (env.value)."""
    guest = cast(u64, addr(env.guest))
    number = cast(Ptr[u64], guest + c.syscall_number)[0]
    env.value = SYSCALL_PERFORM
    if number >= N_PASS:
        return 0
    call = c.passes[number]
    if call.host < 0:
        return 0
    result = cast(Ptr[i64], guest + c.syscall_result)
    values = new(Arguments)
    for i in range(u32(6)):
        values.a[i] = cast(Ptr[u64], guest + c.syscall_args[i])[0]
    for i in range(u32(6)):
        value = values.a[i]
        if (call.fds >> u8(i)) & 1:
            if u32(value) >= c.fd_limit and u32(value) != AT_FDCWD:
                result[0] = -EBADF
                return 1
        if (call.pointers >> u8(i)) & 1 and value != 0:
            size = u64(call.sizes[i])
            if call.counts[i]:
                count = values.a[call.counts[i] - 1]
                if count > c.limit:
                    result[0] = -EFAULT
                    return 1
                size = size * count
            value = value & TAG_MASK
            if value >= c.limit or size > c.limit - value:
                result[0] = -EFAULT
                return 1
            values.a[i] = value
    for i in range(u32(6)):
        if (call.pointers >> u8(i)) & 1 and values.a[i] != 0:
            values.a[i] += c.base
    done = host_call(env, u64(u32(call.host)), values)
    if done == -SYSCALL_NOT_STARTED or done == -EINTR:
        env.value = SYSCALL_NOT_STARTED if done == -SYSCALL_NOT_STARTED else SYSCALL_INTERRUPTED
        return 0
    if call.kind & MAKES and done >= i64(c.fd_limit):  # one of those that we need ourselves
        syscall(SYS_CLOSE, u64(done))
        done = -EMFILE
    result[0] = done
    c.n_syscalls += 1
    return 1


@native(export=True)
def wait_call(env: Env, number: u64, a: u64, b: u64, c: u64, d: u64, e: u64, f: u64) -> i64:
    """As host_call, for Python, arguments apart."""
    values = new(Arguments)
    values.a[0] = a
    values.a[1] = b
    values.a[2] = c
    values.a[3] = d
    values.a[4] = e
    values.a[5] = f
    return host_call(env, number, values)


@native(export=True)
def raw_call(number: u64, a: u64, b: u64, c: u64, d: u64, e: u64, f: u64) -> i64:
    """Make a host system call in any case: the result or -errno."""
    return syscall(number, a, b, c, d, e, f)
