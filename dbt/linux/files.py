"""System calls on descriptors: open, close, duplicate, fcntl, pipes, directories."""

from __future__ import annotations

import os
from struct import unpack_from

from . import paths
from .abi import (
    AT_FDCWD,
    EACCES,
    EBADF,
    EINVAL,
    O_CLOEXEC,
    O_CREAT,
    open_flags_to_guest,
    open_flags_to_host,
    s32,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .process import Process

HOST_OPENAT, HOST_CLOSE, HOST_FCNTL, HOST_DUP3, HOST_PIPE2, HOST_GETDENTS64 = 257, 3, 72, 292, 293, 217
HOST_MEMFD_CREATE, HOST_CLOSE_RANGE, HOST_LSEEK = 319, 436, 8
F_DUPFD, F_GETFL, F_SETFL, F_GETLK, F_SETLK, F_SETLKW, F_DUPFD_CLOEXEC = 0, 3, 4, 5, 6, 7, 1030
_LOCKS = frozenset((F_GETLK, F_SETLK, F_SETLKW, 36, 37, 38))  # struct flock of 32 bytes, the same on both sides
_OWNER_EX = frozenset((15, 16))  # F_SETOWN_EX, F_GETOWN_EX: 8 bytes
_HINTS = frozenset((1035, 1036, 1037, 1038))  # F_..._RW_HINT: 8 bytes
# F_GETFD, F_SETFD, owner, signal, lease, pipe size, seals, notify: plain numbers.
_PLAIN = frozenset((1, 2, 8, 9, 10, 11, 1024, 1025, 1026, 1031, 1032, 1033, 1034))
_CLOSE_RANGE_CLOEXEC, _CLOSE_RANGE_UNSHARE = 4, 2


def sys_openat(process: Process, directory: int, path: int, flags: int, mode: int, *_: int) -> int:
    """Open a file; a view of /proc/self is opened as a file in memory."""
    name = process.memory.read_cstring(path)
    fd = AT_FDCWD if name[:1] == b"/" else process.descriptor(directory)
    if name[:6] == b"/proc/":
        from . import procfs

        content = procfs.content(process, name)
        if content is not None:
            return _open_content(process, content, s32(flags))
    host_name = paths.translate(process, name, create=bool(flags & O_CREAT))
    host_flags = open_flags_to_host(flags & 0xFFFFFFFF)
    result = int(process.wait(HOST_OPENAT, fd, process.scratch.text(host_name), host_flags, mode & 0xFFFFFFFF))
    result = process.given(result)
    if result >= 0 and is_own_memory(result):
        process.call(HOST_CLOSE, result)
        return -EACCES
    if result >= 0 and process.listings:
        process.listings.discard(result)
    if result >= 0 and host_name[:5] == b"/proc" and paths.is_descriptor_listing(host_name):
        process.listings.add(result)
    return result


def is_own_memory(fd: int) -> bool:
    """Whether a descriptor is /proc/self/mem, by whatever way: through it a guest would reach the translator."""
    try:
        target = os.readlink(f"/proc/self/fd/{fd}")
        if not target.endswith("/mem"):
            return False
        # By name for the files of single tasks, by identity where procfs is mounted elsewhere as well.
        own = target.startswith(f"/proc/{os.getpid()}/")
        return own or os.path.samestat(os.fstat(fd), os.stat("/proc/self/mem"))
    except OSError:
        return False


def _open_content(process: Process, content: bytes, flags: int) -> int:
    """A descriptor from which `content` can be read."""
    if flags & 3:
        return -EACCES
    name = process.scratch.text(b"proc")
    fd = process.given(int(process.call(HOST_MEMFD_CREATE, name, 1 if flags & O_CLOEXEC else 0)))
    if fd >= 0:
        os.write(fd, content)
        process.call(HOST_LSEEK, fd, 0, 0)
    return fd


def sys_close(process: Process, fd: int, *_: int) -> int:
    """Close a descriptor of the guest's."""
    number = process.descriptor(fd)
    process.listings.discard(number)
    return int(process.call(HOST_CLOSE, number))


def sys_close_range(process: Process, first: int, last: int, flags: int, *_: int) -> int:
    """Close a range of descriptors, except ours."""
    first, last = first & 0xFFFFFFFF, last & 0xFFFFFFFF
    if first > last or flags & ~(_CLOSE_RANGE_CLOEXEC | _CLOSE_RANGE_UNSHARE):
        return -EINVAL
    last = min(last, process.fd_limit - 1)
    return int(process.call(HOST_CLOSE_RANGE, first, last, flags)) if first <= last else 0


def sys_dup3(process: Process, old: int, new: int, flags: int, *_: int) -> int:
    """Duplicate a descriptor to a given number, which may not be one of ours."""
    if flags & 0xFFFFFFFF & ~O_CLOEXEC:
        return -EINVAL
    if new & 0xFFFFFFFF >= process.fd_limit:
        return -EBADF
    process.listings.discard(new & 0xFFFFFFFF)
    return int(process.wait(HOST_DUP3, process.descriptor(old), new & 0xFFFFFFFF, flags))


def sys_fcntl(process: Process, fd: int, command: int, argument: int, *_: int) -> int:
    """Control a descriptor. Commands are asm-generic's on both sides; flags of files are not."""
    number, command = process.descriptor(fd), s32(command)
    if command == F_GETFL:
        result = int(process.call(HOST_FCNTL, number, command))
        return open_flags_to_guest(result) if result >= 0 else result
    if command == F_SETFL:
        return int(process.call(HOST_FCNTL, number, command, open_flags_to_host(argument & 0xFFFFFFFF)))
    if command in {F_DUPFD, F_DUPFD_CLOEXEC}:
        if argument >= process.fd_limit:
            return -EINVAL
        return process.given(int(process.call(HOST_FCNTL, number, command, argument)))
    if command in _LOCKS:
        argument = process.pointer(argument, 32)
        return int((process.wait if command in {F_SETLKW, 38} else process.call)(HOST_FCNTL, number, command, argument))
    if command in _OWNER_EX or command in _HINTS:
        argument = process.pointer(argument, 8)
    elif command not in _PLAIN:
        process.missing_feature(f"fcntl command {command} is not implemented: EINVAL")
        return -EINVAL
    return int(process.call(HOST_FCNTL, number, command, argument))


def sys_pipe2(process: Process, pair: int, flags: int, *_: int) -> int:
    """Make a pipe; O_DIRECT has another bit here than there."""
    address = process.pointer(pair, 8)
    return process.given_pair(int(process.call(HOST_PIPE2, address, open_flags_to_host(flags & 0xFFFFFFFF))), pair)


def sys_memfd_create(process: Process, name: int, flags: int, *_: int) -> int:
    """Make a file in memory."""
    text = process.memory.read_cstring(name, 250)
    return process.given(int(process.call(HOST_MEMFD_CREATE, process.scratch.text(text), flags)))


def sys_getdents64(process: Process, fd: int, buffer: int, size: int, *_: int) -> int:
    """List a directory; our own descriptors are left out of /proc/self/fd."""
    number, size = process.descriptor(fd), size & 0xFFFFFFFF
    result = int(process.call(HOST_GETDENTS64, number, process.pointer(buffer, size), size))
    if result <= 0 or number not in process.listings:
        return result
    data = process.memory.read(buffer, result)
    kept = bytearray()
    at = 0
    while at < result:
        length = unpack_from("<H", data, at + 16)[0]
        name = data[at + 19 : at + length].split(b"\0", 1)[0]
        if not name.isdigit() or int(name) < process.fd_limit:
            kept += data[at : at + length]
        at += length
    process.memory.write(buffer, bytes(kept))
    return len(kept)
