"""stat: struct stat differs between AArch64 (asm-generic/stat.h, 128 bytes) and x86-64 (144 bytes); statx is one."""

from __future__ import annotations

from struct import Struct

from . import paths
from .abi import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .process import Process

_HOST_FSTAT, _HOST_NEWFSTATAT, _HOST_STATX = 5, 262, 332
# dev ino nlink mode uid gid rdev size blksize blocks, then atime mtime ctime with nanoseconds
_HOST = Struct("<QQQIIIxxxxQqqq6q")
_HOST_SIZE = 144
# dev ino mode nlink uid gid rdev pad size blksize pad blocks times unused
_GUEST = Struct("<QQIIIIQ8xqi4xq6q8x")
_STATX_SIZE = 256


def to_guest(data: bytes) -> bytes:
    """A host's struct stat as the guest has it."""
    dev, ino, nlink, mode, uid, gid, rdev, size, blksize, blocks, *times = _HOST.unpack_from(data)
    return _GUEST.pack(dev, ino, mode, min(nlink, 0xFFFFFFFF), uid, gid, rdev, size, blksize, blocks, *times)


def _answer(process: Process, result: int, found: int, buffer: int) -> int:
    if result == 0:
        process.memory.write(buffer, to_guest(process.scratch.get(found, _HOST_SIZE)))
    return result


def sys_fstat(process: Process, fd: int, buffer: int, *_: int) -> int:
    """Describe an open file."""
    found = process.scratch.space(_HOST_SIZE)
    return _answer(process, int(process.call(_HOST_FSTAT, process.descriptor(fd), found)), found, buffer)


def _locate(process: Process, directory: int, path: int, flags: int) -> tuple[int, int]:
    """Descriptor and host address of the name for a call with AT_EMPTY_PATH."""
    name = process.memory.read_cstring(path) if path or not flags & AT_EMPTY_PATH else b""
    fd = AT_FDCWD if name[:1] == b"/" else process.descriptor(directory)
    host_name = paths.translate(process, name, follow=not flags & AT_SYMLINK_NOFOLLOW)
    return fd, process.scratch.text(host_name)


def sys_newfstatat(process: Process, directory: int, path: int, buffer: int, flags: int, *_: int) -> int:
    """Describe a file by name."""
    fd, name = _locate(process, directory, path, flags)
    found = process.scratch.space(_HOST_SIZE)
    return _answer(process, int(process.call(_HOST_NEWFSTATAT, fd, name, found, flags)), found, buffer)


def sys_statx(process: Process, directory: int, path: int, flags: int, mask: int, buffer: int, *_: int) -> int:
    """Describe a file by name, extended."""
    fd, name = _locate(process, directory, path, flags)
    return int(process.call(_HOST_STATX, fd, name, flags, mask, process.pointer(buffer, _STATX_SIZE)))
