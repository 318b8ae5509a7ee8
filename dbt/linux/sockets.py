"""Sockets: addresses with their lengths, messages, options. Families, types and option numbers are asm-generic's."""

from __future__ import annotations

from struct import pack, unpack

from .abi import EFAULT, EINVAL, ENOPROTOOPT, s32
from .vectors import host_vector

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .process import Process

_HOST_SOCKETPAIR, _HOST_ACCEPT4, _HOST_GETSOCKNAME, _HOST_GETPEERNAME, _HOST_RECVFROM = 53, 288, 51, 52, 45
_HOST_SETSOCKOPT, _HOST_GETSOCKOPT, _HOST_SENDMSG, _HOST_RECVMSG = 54, 55, 46, 47
_ADDRESS_MAX = 4096
_CONTROL_MAX = 65536 // 4
_SOL_SOCKET, _SOL_IP, _SOL_TCP, _SOL_IPV6 = 1, 0, 6, 41
# Options whose values hold pointers (programs for packet filters, tables of netfilter, mappings): (level, option).
_POINTERS = frozenset(
    ((_SOL_SOCKET, 26), (_SOL_SOCKET, 51), (_SOL_IP, 64), (_SOL_IP, 65), (_SOL_IPV6, 64), (_SOL_IPV6, 65),
     (_SOL_TCP, 35))
)  # fmt: skip
_LEVELS = frozenset((_SOL_SOCKET, _SOL_IP, _SOL_TCP, 17, _SOL_IPV6, 58, 136, 255, 1 << 8 | 14, 270))


def _with_address(process: Process, host: int, fd: int, address: int, length: int, *rest: int) -> int:
    """Make a call that fills in an address and its length."""
    if not address:
        return int(process.wait(host, process.descriptor(fd), 0, 0, *rest))
    size = s32(process.memory.read_u32(length))
    if size < 0:
        return -EINVAL
    where = process.pointer(address, size)
    return int(process.wait(host, process.descriptor(fd), where, process.pointer(length, 4), *rest))


def sys_socketpair(process: Process, family: int, kind: int, protocol: int, pair: int, *_: int) -> int:
    """Make two sockets that are connected."""
    place = process.pointer(pair, 8)
    return process.given_pair(int(process.call(_HOST_SOCKETPAIR, family, kind, protocol, place)), pair)


def sys_accept(process: Process, fd: int, address: int, length: int, *_: int) -> int:
    """Take a connection."""
    return process.given(_with_address(process, _HOST_ACCEPT4, fd, address, length, 0))


def sys_accept4(process: Process, fd: int, address: int, length: int, flags: int, *_: int) -> int:
    """Take a connection, with flags for the descriptor."""
    return process.given(_with_address(process, _HOST_ACCEPT4, fd, address, length, flags))


def sys_getsockname(process: Process, fd: int, address: int, length: int, *_: int) -> int:
    """The address of a socket."""
    return _with_address(process, _HOST_GETSOCKNAME, fd, address, length) if address else -EFAULT


def sys_getpeername(process: Process, fd: int, address: int, length: int, *_: int) -> int:
    """The address of the other side."""
    return _with_address(process, _HOST_GETPEERNAME, fd, address, length) if address else -EFAULT


def sys_recvfrom(process: Process, fd: int, buffer: int, size: int, flags: int, address: int, length: int) -> int:
    """Receive, with the sender's address."""
    data = process.pointer(buffer, size)
    source = where = 0
    if address:
        capacity = s32(process.memory.read_u32(length))
        if capacity < 0:
            return -EINVAL
        source, where = process.pointer(address, capacity), process.pointer(length, 4)
    return int(process.wait(_HOST_RECVFROM, process.descriptor(fd), data, size, flags, source, where))


def sys_setsockopt(process: Process, fd: int, level: int, option: int, value: int, length: int, *_: int) -> int:
    """Set an option, unless its value holds pointers."""
    size = s32(length)
    key = (s32(level), s32(option))
    if key in _POINTERS or key[0] not in _LEVELS:
        process.missing_feature(f"socket option {key[1]} of level {key[0]} is not implemented: ENOPROTOOPT")
        return -ENOPROTOOPT
    if size < 0:
        return -EINVAL
    number = process.descriptor(fd)
    return int(process.call(_HOST_SETSOCKOPT, number, level, option, process.pointer(value, size), size))


def sys_getsockopt(process: Process, fd: int, level: int, option: int, value: int, length: int, *_: int) -> int:
    """Get an option, unless its value holds pointers."""
    key = (s32(level), s32(option))
    if key in _POINTERS or key[0] not in _LEVELS:
        process.missing_feature(f"socket option {key[1]} of level {key[0]} is not implemented: ENOPROTOOPT")
        return -ENOPROTOOPT
    size = s32(process.memory.read_u32(length))
    if size < 0:
        return -EINVAL
    number = process.descriptor(fd)
    return int(
        process.call(_HOST_GETSOCKOPT, number, level, option, process.pointer(value, size), process.pointer(length, 4))
    )


def _message(process: Process, message: int, *, send: bool) -> tuple[int, tuple[int, ...]]:
    """A host copy of a struct msghdr; control data and addresses stay where they are (layouts agree)."""
    name, name_size, vector, count, control, control_size, flags = unpack(
        "<QIxxxxQQQQIxxxx", process.memory.read(message, 56)
    )
    if name_size > _ADDRESS_MAX:
        raise OSError(EINVAL, "size of an address")
    if send and control_size > _CONTROL_MAX:
        raise OSError(105, "control data too large")
    host_name = process.pointer(name, name_size) if name else 0
    host_control = process.pointer(control, control_size) if control_size else 0
    words = (host_name, name_size, host_vector(process, vector, count), count, host_control, control_size, flags)
    return process.scratch.put(pack("<QIxxxxQQQQIxxxx", *words)), words


def sys_sendmsg(process: Process, fd: int, message: int, flags: int, *_: int) -> int:
    """Send from several buffers, with control data."""
    header, _ = _message(process, message, send=True)
    return int(process.wait(_HOST_SENDMSG, process.descriptor(fd), header, flags))


def sys_recvmsg(process: Process, fd: int, message: int, flags: int, *_: int) -> int:
    """Receive into several buffers, with control data."""
    header, _ = _message(process, message, send=False)
    result = int(process.wait(_HOST_RECVMSG, process.descriptor(fd), header, flags))
    if result >= 0:
        found = unpack("<QIxxxxQQQQIxxxx", process.scratch.get(header, 56))
        process.memory.write_u32(message + 8, found[1])
        process.memory.write_u64(message + 40, found[5])
        process.memory.write_u32(message + 48, found[6])
    return result
