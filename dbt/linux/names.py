"""System calls that take file names and mean the same to both kernels otherwise.

The numbers are the host's (linux/arch/x86/entry/syscalls/syscall_64.tbl).
"""

from __future__ import annotations

from . import paths
from .abi import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, EINVAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .process import Process

_XATTR_NAME = 256
_HOST_READLINKAT, _HOST_GETCWD = 267, 79


def _name(process: Process, directory: int, path: int, *, follow: bool, create: bool = False) -> tuple[int, int]:
    """Descriptor and host address of the name in two arguments."""
    name = process.memory.read_cstring(path)
    fd = AT_FDCWD if name[:1] == b"/" else process.descriptor(directory)
    return fd, process.scratch.text(paths.translate(process, name, follow=follow, create=create))


def _plain(process: Process, path: int, *, follow: bool = True) -> int:
    """Host address of a name that is relative to the current folder."""
    return _name(process, AT_FDCWD & 0xFFFFFFFF, path, follow=follow)[1]


def sys_mkdirat(process: Process, directory: int, path: int, mode: int, *_: int) -> int:
    """Make a folder."""
    return int(process.call(258, *_name(process, directory, path, follow=False, create=True), mode))


def sys_mknodat(process: Process, directory: int, path: int, mode: int, device: int, *_: int) -> int:
    """Make a special file."""
    return int(process.call(259, *_name(process, directory, path, follow=False, create=True), mode, device))


def sys_unlinkat(process: Process, directory: int, path: int, flags: int, *_: int) -> int:
    """Remove a name."""
    return int(process.call(263, *_name(process, directory, path, follow=False), flags))


def sys_symlinkat(process: Process, target: int, directory: int, path: int, *_: int) -> int:
    """Make a symbolic link; its target is text, not a name to look up."""
    text = process.scratch.text(process.memory.read_cstring(target))
    return int(process.call(266, text, *_name(process, directory, path, follow=False, create=True)))


def sys_linkat(process: Process, from_fd: int, old: int, to_fd: int, new: int, flags: int, *_: int) -> int:
    """Make a hard link."""
    if flags & AT_EMPTY_PATH and not process.memory.read(old, 1).strip(b"\0"):
        source = (process.descriptor(from_fd), process.scratch.text(b""))
    else:
        source = _name(process, from_fd, old, follow=bool(flags & AT_SYMLINK_FOLLOW))
    return int(process.call(265, *source, *_name(process, to_fd, new, follow=False, create=True), flags))


def sys_renameat(process: Process, from_fd: int, old: int, to_fd: int, new: int, *_: int) -> int:
    """Rename a file."""
    return sys_renameat2(process, from_fd, old, to_fd, new, 0)


def sys_renameat2(process: Process, from_fd: int, old: int, to_fd: int, new: int, flags: int, *_: int) -> int:
    """Rename a file, with flags."""
    source = _name(process, from_fd, old, follow=False)
    return int(process.call(316, *source, *_name(process, to_fd, new, follow=False, create=True), flags))


def sys_statfs(process: Process, path: int, buffer: int, *_: int) -> int:
    """Describe a file system."""
    return int(process.call(137, _plain(process, path), process.pointer(buffer, 120)))


def sys_truncate(process: Process, path: int, size: int, *_: int) -> int:
    """Set a file's size."""
    return int(process.call(76, _plain(process, path), size))


def sys_chdir(process: Process, path: int, *_: int) -> int:
    """Change the current folder."""
    return int(process.call(80, _plain(process, path)))


def sys_chroot(process: Process, path: int, *_: int) -> int:
    """Change the root: -L ROOT no longer applies, and what we have not imported is out of reach."""
    process.prepare_all()
    result = int(process.call(161, _plain(process, path)))
    if result == 0:
        process.root = b""
    return result


def sys_faccessat(process: Process, directory: int, path: int, mode: int, *_: int) -> int:
    """Check rights with the real user."""
    return int(process.call(269, *_name(process, directory, path, follow=True), mode))


def sys_faccessat2(process: Process, directory: int, path: int, mode: int, flags: int, *_: int) -> int:
    """Check rights, with flags."""
    name = _name(process, directory, path, follow=not flags & AT_SYMLINK_NOFOLLOW)
    return int(process.call(439, *name, mode, flags))


def sys_fchmodat(process: Process, directory: int, path: int, mode: int, *_: int) -> int:
    """Change a file's mode."""
    return int(process.call(268, *_name(process, directory, path, follow=True), mode))


def sys_fchownat(process: Process, directory: int, path: int, user: int, group: int, flags: int, *_: int) -> int:
    """Change a file's owner."""
    name = _name(process, directory, path, follow=not flags & AT_SYMLINK_NOFOLLOW)
    return int(process.call(260, *name, user, group, flags))


def sys_utimensat(process: Process, directory: int, path: int, times: int, flags: int, *_: int) -> int:
    """Set a file's times; without a name those of the descriptor."""
    pair = process.optional(times, 32)
    if not path:
        return int(process.call(280, process.descriptor(directory), 0, pair, flags))
    name = _name(process, directory, path, follow=not flags & AT_SYMLINK_NOFOLLOW)
    return int(process.call(280, *name, pair, flags))


def sys_inotify_add_watch(process: Process, fd: int, path: int, mask: int, *_: int) -> int:
    """Watch a file."""
    return int(process.call(254, process.descriptor(fd), _plain(process, path), mask))


def sys_readlinkat(process: Process, directory: int, path: int, buffer: int, size: int, *_: int) -> int:
    """Read a symbolic link; /proc/self/exe is the guest's program."""
    name = process.memory.read_cstring(path)
    length = size & 0xFFFFFFFF
    if not 0 < length < 1 << 31:
        return -EINVAL
    if name[:6] == b"/proc/":
        from . import procfs

        target = procfs.link(process, name)
        if target is not None:
            process.memory.write(buffer, target[:length])
            return min(len(target), length)
    fd = AT_FDCWD if name[:1] == b"/" else process.descriptor(directory)
    host_name = process.scratch.text(paths.translate(process, name, follow=False))
    return int(process.call(_HOST_READLINKAT, fd, host_name, process.pointer(buffer, length), length))


def sys_getcwd(process: Process, buffer: int, size: int, *_: int) -> int:
    """The current folder."""
    size = min(size, 1 << 20)
    return int(process.call(_HOST_GETCWD, process.pointer(buffer, size), size))


# Extended attributes: by name, by name without following a link, and by descriptor.


def _file(process: Process, kind: str, argument: int) -> int:
    """The first argument of an extended-attribute call: '' a name, 'l' one that is not followed, 'f' a descriptor."""
    return process.descriptor(argument) if kind == "f" else _plain(process, argument, follow=kind != "l")


def _attribute(process: Process, name: int) -> int:
    return process.scratch.text(process.memory.read_cstring(name, _XATTR_NAME))


def _xattr(operation: str, kind: str, host: int) -> Callable[..., int]:
    def set_(process: Process, file: int, name: int, value: int, size: int, flags: int, *_: int) -> int:
        where, what = _file(process, kind, file), _attribute(process, name)
        return int(process.call(host, where, what, process.optional(value, size), size, flags))

    def get(process: Process, file: int, name: int, value: int, size: int, *_: int) -> int:
        where, what = _file(process, kind, file), _attribute(process, name)
        return int(process.call(host, where, what, process.optional(value, size), size))

    def list_(process: Process, file: int, value: int, size: int, *_: int) -> int:
        return int(process.call(host, _file(process, kind, file), process.optional(value, size), size))

    def remove(process: Process, file: int, name: int, *_: int) -> int:
        return int(process.call(host, _file(process, kind, file), _attribute(process, name)))

    operations: dict[str, Callable[..., int]] = {"set": set_, "get": get, "list": list_, "remove": remove}
    return operations[operation]


sys_setxattr, sys_lsetxattr, sys_fsetxattr = _xattr("set", "", 188), _xattr("set", "l", 189), _xattr("set", "f", 190)
sys_getxattr, sys_lgetxattr, sys_fgetxattr = _xattr("get", "", 191), _xattr("get", "l", 192), _xattr("get", "f", 193)
sys_listxattr, sys_llistxattr = _xattr("list", "", 194), _xattr("list", "l", 195)
sys_flistxattr, sys_removexattr = _xattr("list", "f", 196), _xattr("remove", "", 197)
sys_lremovexattr, sys_fremovexattr = _xattr("remove", "l", 198), _xattr("remove", "f", 199)
