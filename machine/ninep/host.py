"""What the file server asks the kernel for: one step from a descriptor, or the inode behind one.

`openat2` with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS walks several names at once; without it in the kernel they are
walked one by one with O_NOFOLLOW. What needs an inode and not a name goes by AT_EMPTY_PATH or through a descriptor of
/proc/self/fd.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import stat
import struct
import threading
from typing import TYPE_CHECKING

from dbt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

AT_EMPTY_PATH = 0x1000
RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 0x02, 0x04, 0x08
OPENAT2 = 437
STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
PATH_MAX = 4096
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
F_OFD_GETLK, F_OFD_SETLK = 36, 37
FLOCK = struct.Struct("hhqqi4x")  # type, whence, start, length, pid
DIRENT = struct.Struct("<QqHB")  # inode, offset of the next, length of this, type
NO_KERNEL = {errno.ENOSYS, errno.EPERM}  # no openat2, or a filter that does not know it

_libc = ctypes.CDLL(None, use_errno=True)


class OpenHow(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class TimeSpec(ctypes.Structure):
    """struct timespec."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def step(directory: int, name: bytes) -> int:
    """A descriptor of what `name` is in a directory: of a link itself, if it is one."""
    return os.open(name, STEP, dir_fd=directory)


def descend(root: int, names: Sequence[bytes]) -> int:
    """A descriptor of what is at the end of these names below `root`, none of which may be a link but the last."""
    path = b"/".join(names)
    if not path:
        return os.open(b".", STEP, dir_fd=root)
    if len(path) < PATH_MAX:
        how = OpenHow(STEP, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
        found = _libc.syscall(OPENAT2, root, path, ctypes.byref(how), ctypes.sizeof(how))
        if found >= 0:
            return int(found)
        code = ctypes.get_errno()
        if code not in NO_KERNEL:
            raise OSError(code, os.strerror(code))
    at = os.dup(root)
    for name in names:
        try:
            below = step(at, name)
        finally:
            os.close(at)
        at = below
    return at


def entries(directory: int, room: int) -> list[tuple[int, int, int, bytes]]:
    """(inode, offset of the next, type, name) of what getdents64 gives in `room` bytes; none at the end."""
    buffer = ctypes.create_string_buffer(room)
    length = _checked(_libc.getdents64(directory, buffer, ctypes.c_size_t(room)))
    data = buffer.raw[:length]
    found = []
    at = 0
    while at < length:
        inode, offset, size, kind = DIRENT.unpack_from(data, at)
        found.append((inode, offset, kind, data[at + DIRENT.size : at + size].split(b"\0", 1)[0]))
        at += size
    return found


def set_owner(inode: int, uid: int, gid: int) -> None:
    """Of the inode behind a descriptor; -1 leaves one as it is."""
    _checked(_libc.fchownat(inode, b"", uid, gid, AT_EMPTY_PATH))


def set_times(inode: int, accessed: tuple[int, int], modified: tuple[int, int]) -> None:
    """Of the inode behind a descriptor, as (seconds, nanoseconds)."""
    times = (TimeSpec * 2)(TimeSpec(*accessed), TimeSpec(*modified))
    _checked(_libc.utimensat(inode, b"", times, AT_EMPTY_PATH))


def lock(file: int, kind: int, start: int, length: int, *, ask: bool = False) -> tuple[int, int, int, int]:
    """Set a lock of this open file, or `ask` who is in the way: (type, start, length, process)."""
    query = FLOCK.pack(kind, os.SEEK_SET, start, length, 0)
    answer = fcntl.fcntl(file, F_OFD_GETLK if ask else F_OFD_SETLK, query)
    kind, _, start, length, process = FLOCK.unpack(answer)
    return kind, start, length, max(process, 0)


class Share:
    """A folder that is shared, and what guests may do there.

    `readonly`: nothing that changes it. `owners`: guests set owners, and bits for set-user-ID and set-group-ID;
    otherwise all is the server's user's, and they are told that it was done. `fifos`: they may make FIFOs. Devices and
    sockets are never made, and only files and directories are opened.
    """

    def __init__(self, folder: str, *, readonly: bool = False, owners: bool = False, fifos: bool = True) -> None:
        self.folder = folder
        self.readonly = readonly
        self.owners = owners
        self.fifos = fifos
        try:
            self.root = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise UsageError(f"the folder {folder} cannot be shared: {reason}") from error
        try:
            self._inodes = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            os.close(self.root)
            raise UsageError(f"the folder {folder} cannot be shared without /proc: {error.strerror}") from error
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.most_files = max(min(soft // 2, 4096), 16)
        self.most_handles = max(min(soft // 4, 1024), 16)
        self._devices: dict[int, int] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Give the descriptors back; again does nothing. No session may use the folder any more."""
        for descriptor in (self.root, self._inodes):
            if descriptor >= 0:
                os.close(descriptor)
        self.root = self._inodes = -1

    # Inodes

    def reopen(self, inode: int, flags: int) -> int:
        """Open the file or directory behind a descriptor, which is one."""
        return os.open(str(inode), flags & ~os.O_NOFOLLOW | FILE, dir_fd=self._inodes)

    def set_mode(self, inode: int, mode: int) -> None:
        """Permissions, and what else chmod sets if guests may."""
        os.chmod(str(inode), self.mode(mode), dir_fd=self._inodes)

    def link(self, inode: int, directory: int, name: bytes) -> None:
        """Another name for the inode behind a descriptor."""
        os.link(str(inode), name, src_dir_fd=self._inodes, dst_dir_fd=directory, follow_symlinks=True)

    def mode(self, mode: int) -> int:
        """What of a guest's mode counts."""
        return mode & (0o7777 if self.owners else 0o1777)

    def qid_path(self, device: int, inode: int) -> int:
        """One number for an inode, on whichever file system below the folder it is."""
        number = self._devices.get(device)
        if number is None:
            with self._lock:
                number = self._devices.setdefault(device, len(self._devices))
        return inode ^ (number & 0x7FFF) << 48

    def qid(self, info: os.stat_result) -> tuple[int, int, int]:
        """What says which file this is, and whether it has changed."""
        kind = 0x80 if stat.S_ISDIR(info.st_mode) else 0x02 if stat.S_ISLNK(info.st_mode) else 0
        version = (info.st_mtime_ns ^ info.st_size << 8) & 0xFFFF_FFFF
        return kind, version, self.qid_path(info.st_dev, info.st_ino)
