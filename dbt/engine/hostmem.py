"""The host's memory calls, through the C library; nothing here knows the host's architecture.

The warm path imports this module: ctypes, mmap and resource are all it may use.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PROT_NONE, PROT_READ, PROT_WRITE, PROT_EXEC = 0, mmap.PROT_READ, mmap.PROT_WRITE, mmap.PROT_EXEC
MAP_SHARED: Final = mmap.MAP_SHARED
MAP_PRIVATE: Final = mmap.MAP_PRIVATE
MAP_ANONYMOUS: Final = mmap.MAP_ANONYMOUS
MAP_FIXED: Final = 0x10
MAP_NORESERVE: Final = 0x4000
HOST_PAGE: Final = mmap.PAGESIZE

_libc = ctypes.CDLL(None, use_errno=True)
_mmap = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_munmap = _libc.munmap
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_mprotect = _libc.mprotect
_mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_FAILED = ctypes.c_void_p(-1).value


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


_vm_readv = _libc.process_vm_readv
_vm_writev = _libc.process_vm_writev
for _call in (_vm_readv, _vm_writev):
    _call.restype = ctypes.c_ssize_t
    _call.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)


def map_memory(size: int, prot: int, flags: int, address: int = 0, fd: int = -1, offset: int = 0) -> int:
    """Call mmap; returns the host address. Raises OSError with the host's errno."""
    found = _mmap(address, size, prot, flags, fd, offset)
    if found is None or found == _FAILED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(found)


def map_anonymous(size: int, prot: int = PROT_READ | PROT_WRITE) -> int:
    """Zeroed private memory that is committed as it is touched; returns its host address."""
    return map_memory(size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)


def memory_file(data: bytes) -> int:
    """A descriptor of a file that is nowhere but in memory, with these contents (memfd_create(2)). Raises OSError."""
    _check_size(len(data))
    fd = os.memfd_create("dragoman")
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_to_run(fd: int) -> int:
    """A descriptor of a copy in memory of the file `fd`, which is closed, to map code from.

    What happens to a file, above all that it gets shorter, happens to those that have mapped it; a copy is safe from
    that. It is the file itself where the host does not let code run out of such a copy.
    """
    copy = -1
    try:
        size, done = os.fstat(fd).st_size, 0
        _check_size(size)
        copy = os.memfd_create("dragoman")
        while done < size and (part := os.sendfile(copy, fd, done, size - done)):
            done += part
        unmap_memory(map_memory(HOST_PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, 0, copy), HOST_PAGE)
    except OSError:
        if copy >= 0:
            os.close(copy)
        return fd
    os.close(fd)
    return copy


def place_code(data: bytes, at: int = 0) -> int:
    """Code in memory that is no file's: the address. Raises OSError where that must not become executable."""
    flags = MAP_PRIVATE | MAP_ANONYMOUS | (MAP_FIXED if at else 0)
    address = map_memory(len(data), PROT_READ | PROT_WRITE, flags, at)
    ctypes.memmove(address, data, len(data))
    protect_memory(address, len(data), PROT_READ | PROT_EXEC)
    return address


def _check_size(size: int) -> None:
    """Raise OSError where a file may not have this size, before the host kills the guest for it (SIGXFSZ)."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if 0 <= limit < size:
        raise OSError(27, os.strerror(27))


def unmap_memory(address: int, size: int) -> None:
    """Call munmap; raises OSError."""
    if _munmap(address, size):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def protect_memory(address: int, size: int, prot: int) -> None:
    """Call mprotect; raises OSError."""
    if _mprotect(address, size, prot):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def read_own(address: int, size: int) -> bytes:
    """Read our own memory through the kernel, which stops at what is not readable instead of faulting.

    Returns the bytes before the first unreadable page, so fewer than `size` when there is one.
    """
    buffer = ctypes.create_string_buffer(size)
    local = _IoVec(ctypes.addressof(buffer), size)
    remote = _IoVec(address, size)
    done = _vm_readv(os.getpid(), ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    return buffer.raw[:done] if done > 0 else b""


def write_own(address: int, data: bytes) -> int:
    """Write our own memory through the kernel; returns how many bytes there was room for before a bad page."""
    local = _IoVec(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data))
    remote = _IoVec(address, len(data))
    done = _vm_writev(os.getpid(), ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    return max(int(done), 0)


_mremap = _libc.mremap
_mremap.restype = ctypes.c_void_p
_mremap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)
_MREMAP_MAYMOVE_FIXED = 3


def remap_memory(old: int, old_size: int, new: int, new_size: int) -> None:
    """Move pages to another host address (or resize them in place where both are the same); raises OSError."""
    flags = _MREMAP_MAYMOVE_FIXED if new != old else 0
    found = _mremap(old, old_size, new_size, flags, new)
    if found is None or found == _FAILED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
