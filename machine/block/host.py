"""What the host's kernel offers for files, and Python does not: fallocate's modes, OFD locks, sizes of block devices.

Locks are on bytes of the file that hold no meaning by themselves, as qemu has them, so that both respect each other:
byte 100 + n is held by who does n, byte 200 + n by who cannot have others do it (n: 0 read, 1 write, 3 resize).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ctypes

KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 0x01, 0x02, 0x10  # linux/falloc.h
BLKGETSIZE64, BLKSSZGET, BLKDISCARD, BLKZEROOUT = 0x80081272, 0x1268, 0x1277, 0x127F  # linux/fs.h
OFD_GETLK, OFD_SETLK = 36, 37  # asm-generic/fcntl.h
FLOCK = struct.Struct("hhqqi4x")
USED, REFUSED = 100, 200
READING, WRITING, RESIZING = 0, 1, 3
REFUSES = (WRITING, RESIZING)  # what nobody else may do while we use an image
UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV, errno.EINVAL, errno.ENOTTY}

_libc: list[ctypes.CDLL] = []  # loaded when it is first needed: `info` does without


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """The system call; OSError if it cannot be done."""
    import ctypes

    if not _libc:
        _libc.append(ctypes.CDLL(None, use_errno=True))
    while _libc[0].fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)):
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))


def device_size(fd: int) -> int:
    """Bytes of a block device."""
    return int(struct.unpack("Q", fcntl.ioctl(fd, BLKGETSIZE64, bytes(8)))[0])


def sector_size(fd: int) -> int:
    """Bytes of a block device's logical block: what O_DIRECT takes."""
    return int(struct.unpack("i", fcntl.ioctl(fd, BLKSSZGET, bytes(4)))[0])


def device_range(fd: int, request: int, offset: int, length: int) -> None:
    """BLKDISCARD or BLKZEROOUT."""
    fcntl.ioctl(fd, request, struct.pack("QQ", offset, length))


def take_locks(fd: int, *, writable: bool) -> str:
    """Take the locks of a reader or a writer; the result is empty, or what another already does or refuses."""
    uses = (READING, WRITING, RESIZING) if writable else (READING,)
    for byte in [USED + n for n in uses] + [REFUSED + n for n in REFUSES]:
        fcntl.fcntl(fd, OFD_SETLK, FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
    # Both have said what they do before either asks: of two that come at once at least one sees the other.
    for n, word in ((WRITING, "writing"), (RESIZING, "resizing")):
        if _others_hold(fd, USED + n):
            return f"somebody else has it open for {word}"
        if n in uses and _others_hold(fd, REFUSED + n):
            return f"somebody else uses it and does not share {word}"
    if _others_hold(fd, REFUSED + READING):
        return "somebody else uses it and does not share reading"
    return ""


def _others_hold(fd: int, byte: int) -> bool:
    asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    return bool(FLOCK.unpack(fcntl.fcntl(fd, OFD_GETLK, asked))[0] != fcntl.F_UNLCK)


def drop_locks(fd: int) -> None:
    """Give all of them back."""
    fcntl.fcntl(fd, OFD_SETLK, FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, USED, 2 * (REFUSED - USED), 0))


def users_of(fd: int) -> list[str]:
    """Who else has the same file open, `name (pid)`, as far as /proc shows it to us: a lock's holder is not told."""
    mine = os.fstat(fd)
    found: list[str] = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            count = sum(_same(mine, f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd"))
            if count > (int(pid) == os.getpid()):
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
                    found.append(f"{comm.read().strip()} ({pid})")
        except OSError:
            continue  # gone, or not ours to look at
    return found


def _same(mine: os.stat_result, path: str) -> bool:
    try:
        other = os.stat(path)
    except OSError:
        return False
    return (mine.st_dev, mine.st_ino) == (other.st_dev, other.st_ino)


def is_block_device(fd: int) -> bool:
    """Whether it is one."""
    return stat.S_ISBLK(os.fstat(fd).st_mode)
