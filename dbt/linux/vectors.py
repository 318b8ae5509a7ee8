"""readv, writev and their kin: the vectors are checked and copied, their addresses become the host's."""

from __future__ import annotations

from struct import pack, unpack

from .abi import EINVAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .process import Process

_IOV_MAX = 1024
_READV, _WRITEV, _PREADV, _PWRITEV, _PREADV2, _PWRITEV2 = 19, 20, 295, 296, 327, 328


def host_vector(process: Process, vector: int, count: int) -> int:
    """The host address of a copy of a guest's iovec array with host addresses in it."""
    if not 0 <= count <= _IOV_MAX:
        raise OSError(EINVAL, "too many vectors")
    words = list(unpack(f"<{2 * count}Q", process.memory.read(vector, 16 * count)))
    for index in range(0, 2 * count, 2):
        size = words[index + 1]
        if size >> 63:
            raise OSError(EINVAL, "negative size")
        words[index] = process.pointer(words[index], size) if size else 0
    return process.scratch.put(pack(f"<{2 * count}Q", *words))


def _call(process: Process, host: int, fd: int, vector: int, count: int, *rest: int) -> int:
    number = process.descriptor(fd)
    return int(process.wait(host, number, host_vector(process, vector, count), count, *rest))


def sys_readv(process: Process, fd: int, vector: int, count: int, *_: int) -> int:
    """Read into several buffers."""
    return _call(process, _READV, fd, vector, count)


def sys_writev(process: Process, fd: int, vector: int, count: int, *_: int) -> int:
    """Write from several buffers."""
    return _call(process, _WRITEV, fd, vector, count)


def sys_preadv(process: Process, fd: int, vector: int, count: int, low: int, high: int, *_: int) -> int:
    """Read at an offset; 64-bit kernels use `low` alone."""
    return _call(process, _PREADV, fd, vector, count, low, high)


def sys_pwritev(process: Process, fd: int, vector: int, count: int, low: int, high: int, *_: int) -> int:
    """Write at an offset."""
    return _call(process, _PWRITEV, fd, vector, count, low, high)


def sys_preadv2(process: Process, fd: int, vector: int, count: int, low: int, high: int, flags: int) -> int:
    """Read at an offset with flags."""
    return _call(process, _PREADV2, fd, vector, count, low, high, flags)


def sys_pwritev2(process: Process, fd: int, vector: int, count: int, low: int, high: int, flags: int) -> int:
    """Write at an offset with flags."""
    return _call(process, _PWRITEV2, fd, vector, count, low, high, flags)
