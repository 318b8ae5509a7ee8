"""Constants and small conversions of the AArch64 Linux ABI and of the x86-64 host's.

Sources: linux/include/uapi/asm-generic (AArch64 follows it), linux/arch/{arm64,x86}/include/uapi/asm.
Host system-call numbers are those of linux/arch/x86/entry/syscalls/syscall_64.tbl.
"""

from __future__ import annotations

PAGE = 4096
U64 = (1 << 64) - 1
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_SYMLINK_FOLLOW = 0x400
AT_EMPTY_PATH = 0x1000

EPERM, ENOENT, EINTR, EIO, E2BIG, ENOEXEC, EBADF, ECHILD, EAGAIN = 1, 2, 4, 5, 7, 8, 9, 10, 11
ENOMEM, EACCES, EFAULT, EBUSY, EEXIST, ENOTDIR, EISDIR, EINVAL = 12, 13, 14, 16, 17, 20, 21, 22
EMFILE, ENOTTY, ESPIPE, ERANGE, ENAMETOOLONG, ENOSYS, ELOOP, ELIBBAD = 24, 25, 29, 34, 36, 38, 40, 80
ENOPROTOOPT = 92
ERESTARTSYS = 512  # inside only: the call was not started because a signal is waiting

# linux/arch/arm64/include/uapi/asm/fcntl.h against asm-generic/fcntl.h (x86): four bits are dealt out differently.
O_CREAT, O_CLOEXEC, O_NONBLOCK = 0o100, 0o2000000, 0o4000
_GUEST_DIRECTORY, _GUEST_NOFOLLOW, _GUEST_DIRECT, _GUEST_LARGEFILE = 0o40000, 0o100000, 0o200000, 0o400000
_HOST_DIRECT, _HOST_LARGEFILE, _HOST_DIRECTORY, _HOST_NOFOLLOW = 0o40000, 0o100000, 0o200000, 0o400000
_MOVED = 0o740000
_TO_HOST = (
    (_GUEST_DIRECTORY, _HOST_DIRECTORY),
    (_GUEST_NOFOLLOW, _HOST_NOFOLLOW),
    (_GUEST_DIRECT, _HOST_DIRECT),
    (_GUEST_LARGEFILE, _HOST_LARGEFILE),
)
HOST_NOFOLLOW = _HOST_NOFOLLOW


def open_flags_to_host(flags: int) -> int:
    """O_ flags of the guest as the host has them."""
    host = flags & ~_MOVED
    for guest_bit, host_bit in _TO_HOST:
        if flags & guest_bit:
            host |= host_bit
    return host


def open_flags_to_guest(flags: int) -> int:
    """O_ flags of the host as the guest has them (F_GETFL)."""
    guest = flags & ~_MOVED
    for guest_bit, host_bit in _TO_HOST:
        if flags & host_bit:
            guest |= guest_bit
    return guest


def s32(value: int) -> int:
    """The `int` in a register's low half."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value & 0x80000000 else value


def s64(value: int) -> int:
    """The `long` in a register."""
    return value - (1 << 64) if value >> 63 else value


def page_up(size: int) -> int:
    """`size` in whole pages."""
    return (size + PAGE - 1) & -PAGE
