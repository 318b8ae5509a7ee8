"""--strace: one line for each system call on standard error, in the form that strace(1) made familiar.

ARGUMENTS gives each call's arguments as words: d descriptor, D descriptor or AT_FDCWD, s string, b buffer whose size is
the next number, r buffer whose size is the result, p pointer, i int, u unsigned, x hexadecimal, o octal, and names of
flag sets in FLAGS. Calls that are not listed show their six arguments in hexadecimal.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from dbt.errors import GuestFault

from . import passthrough
from .abi import AT_FDCWD, ERESTARTSYS, s32, s64
from .table import CALLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .process import Process

_SHOWN = 32  # bytes of a string or buffer
_SIGNAL_NAMES = (
    "0", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
    "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
    "WINCH", "IO", "PWR", "SYS",
)  # fmt: skip

ARGUMENTS: dict[str, str] = {
    "read": "d r u", "write": "d b u", "pread64": "d r u i", "pwrite64": "d b u i", "readv": "d p i", "writev": "d p i",
    "openat": "D s open o", "close": "d", "lseek": "d l whence", "dup": "d", "dup3": "d d open", "fcntl": "d fcntl x",
    "ioctl": "d x x", "pipe2": "p open", "fstat": "d p", "newfstatat": "D s p at", "statx": "D s at x p",
    "getdents64": "d p u", "readlinkat": "D s r u", "faccessat": "D s o", "faccessat2": "D s o at",
    "unlinkat": "D s x", "mkdirat": "D s o", "symlinkat": "s D s", "linkat": "D s D s at", "renameat": "D s D s",
    "renameat2": "D s D s x", "mknodat": "D s o x", "fchmod": "d o", "fchmodat": "D s o", "fchown": "d i i",
    "fchownat": "D s i i at", "utimensat": "D s p at", "truncate": "s l", "ftruncate": "d l", "chdir": "s",
    "fchdir": "d", "getcwd": "p u", "statfs": "s p", "fstatfs": "d p", "umask": "o", "sendfile": "d d p u",
    "flock": "d x", "fsync": "d", "memfd_create": "s x", "ppoll": "p u p p u", "pselect6": "i p p p p p",
    "epoll_create1": "x", "epoll_ctl": "d i d p", "epoll_pwait": "d p i i p u", "eventfd2": "u x",
    "brk": "x", "mmap": "x u prot map d x", "munmap": "x u", "mprotect": "x u prot", "mremap": "x u u x x",
    "madvise": "x u i", "clone": "clone x x x x", "execve": "s p p", "execveat": "D s p p at", "exit": "i",
    "exit_group": "i", "wait4": "i p x p", "waitid": "i i p x p", "kill": "i signal", "tkill": "i signal",
    "tgkill": "i i signal", "rt_sigaction": "signal p p u", "rt_sigprocmask": "how p p u", "rt_sigsuspend": "p u",
    "rt_sigpending": "p u", "rt_sigtimedwait": "p p p u", "rt_sigreturn": "", "sigaltstack": "p p",
    "getpid": "", "getppid": "", "gettid": "", "getuid": "", "geteuid": "", "getgid": "", "getegid": "", "setsid": "",
    "setpgid": "i i", "getpgid": "i", "getsid": "i", "sched_yield": "", "sync": "", "set_tid_address": "x",
    "set_robust_list": "x u", "rseq": "x u x x", "prlimit64": "i i p p", "uname": "p", "sysinfo": "p",
    "getrandom": "p u x", "prctl": "i x x x x", "futex": "x x u x x x", "clock_gettime": "i p", "nanosleep": "p p",
    "clock_nanosleep": "i x p p", "gettimeofday": "p p", "setitimer": "i p p", "getrusage": "i p", "times": "p",
    "socket": "i x i", "socketpair": "i x i p", "bind": "d p u", "connect": "d p u", "listen": "d i",
    "accept4": "d p p x", "accept": "d p p", "sendto": "d b u x p u", "recvfrom": "d r u x p p",
    "sendmsg": "d p x", "recvmsg": "d p x", "shutdown": "d i", "setsockopt": "d i i p u", "getsockopt": "d i i p p",
}  # fmt: skip

_OPEN = ((0o100, "O_CREAT"), (0o200, "O_EXCL"), (0o400, "O_NOCTTY"), (0o1000, "O_TRUNC"), (0o2000, "O_APPEND"),
         (0o4000, "O_NONBLOCK"), (0o10000, "O_DSYNC"), (0o40000, "O_DIRECTORY"), (0o100000, "O_NOFOLLOW"),
         (0o200000, "O_DIRECT"), (0o400000, "O_LARGEFILE"), (0o1000000, "O_NOATIME"), (0o2000000, "O_CLOEXEC"),
         (0o10000000, "O_PATH"))  # fmt: skip
FLAGS: dict[str, tuple[tuple[int, str], ...]] = {
    "at": ((0x100, "AT_SYMLINK_NOFOLLOW"), (0x200, "AT_REMOVEDIR"), (0x400, "AT_SYMLINK_FOLLOW"),
           (0x800, "AT_NO_AUTOMOUNT"), (0x1000, "AT_EMPTY_PATH")),
    "prot": ((1, "PROT_READ"), (2, "PROT_WRITE"), (4, "PROT_EXEC")),
    "map": ((1, "MAP_SHARED"), (2, "MAP_PRIVATE"), (0x10, "MAP_FIXED"), (0x20, "MAP_ANONYMOUS"),
            (0x800, "MAP_DENYWRITE"), (0x4000, "MAP_NORESERVE"), (0x8000, "MAP_POPULATE"), (0x20000, "MAP_STACK"),
            (0x100000, "MAP_FIXED_NOREPLACE")),
    "clone": ((0x100, "CLONE_VM"), (0x200, "CLONE_FS"), (0x400, "CLONE_FILES"), (0x800, "CLONE_SIGHAND"),
              (0x4000, "CLONE_VFORK"), (0x10000, "CLONE_THREAD"), (0x80000, "CLONE_SETTLS"),
              (0x100000, "CLONE_PARENT_SETTID"), (0x200000, "CLONE_CHILD_CLEARTID"),
              (0x1000000, "CLONE_CHILD_SETTID")),
}  # fmt: skip
_NUMBERS: dict[str, dict[int, str]] = {
    "whence": {0: "SEEK_SET", 1: "SEEK_CUR", 2: "SEEK_END", 3: "SEEK_DATA", 4: "SEEK_HOLE"},
    "how": {0: "SIG_BLOCK", 1: "SIG_UNBLOCK", 2: "SIG_SETMASK"},
    "fcntl": {0: "F_DUPFD", 1: "F_GETFD", 2: "F_SETFD", 3: "F_GETFL", 4: "F_SETFL", 5: "F_GETLK", 6: "F_SETLK",
              7: "F_SETLKW", 1030: "F_DUPFD_CLOEXEC"},
}  # fmt: skip
_ADDRESSES = frozenset(("brk", "mmap", "mremap"))


write: Callable[[str], None] | None = None  # where lines go instead of standard error: `dragoman trace`


def traced(process: Process, number: int, *args: int) -> int:
    """Make a system call and print it. A call that does not come back (exit, exec) is printed before."""
    name = call_name(number)
    kinds = ARGUMENTS.get(name, "x x x x x x").split()
    early = name in {"exit", "exit_group", "execve", "execveat", "clone", "rt_sigreturn"}
    text = ""
    if early:
        text = f"{name}({', '.join(_shown(process, kind, args, i, 0) for i, kind in enumerate(kinds))})"
        _print(f"{os.getpid()} {text} …")
    result = process.do(number, *args)
    if not early:
        text = f"{name}({', '.join(_shown(process, kind, args, i, result) for i, kind in enumerate(kinds))})"
    if name not in {"exit", "exit_group", "rt_sigreturn"}:
        _print(f"{os.getpid()} {text} = {describe_result(name, result)}")
    return result


def call_name(number: int) -> str:
    """The name of a system call."""
    if number in CALLS:
        return CALLS[number][0]
    for row in passthrough.ROWS:
        if row[0] == number:
            return row[1]
    return f"syscall_{number}"


def describe_result(name: str, result: int) -> str:
    """A result with the error's name and text."""
    if -4096 < result < 0:
        if result == -ERESTARTSYS:
            return "? ERESTARTSYS (a signal is waiting)"
        return f"-1 {errno.errorcode.get(-result, -result)} ({os.strerror(-result)})"
    return f"{result:#x}" if name in _ADDRESSES else str(result)


def _shown(process: Process, kind: str, args: tuple[int, ...], index: int, result: int) -> str:
    """One argument as text."""
    value = args[index]
    if kind in {"d", "D"}:
        return "AT_FDCWD" if kind == "D" and s32(value) == AT_FDCWD else str(s32(value))
    if kind == "s":
        return _string(process, value)
    if kind in {"b", "r"}:
        size = result if kind == "r" else args[index + 1]
        return _buffer(process, value, size) if size >= 0 else f"{value:#x}"
    if kind == "i":
        return str(s32(value))
    if kind == "l":
        return str(s64(value))
    if kind == "u":
        return str(value)
    if kind == "o":
        return f"0{value & 0xFFFFFFFF:o}"
    if kind == "p":
        return f"{value:#x}" if value else "NULL"
    if kind == "open":
        access = ("O_RDONLY", "O_WRONLY", "O_RDWR", "3")[value & 3]
        rest = flag_names(_OPEN, value & 0xFFFFFFFC)
        return f"{access}|{rest}" if rest != "0" else access
    if kind == "signal":
        signal = s32(value)
        return f"SIG{_SIGNAL_NAMES[signal]}" if 0 < signal < len(_SIGNAL_NAMES) else str(signal)
    if kind in _NUMBERS:
        return _NUMBERS[kind].get(s32(value), str(s32(value)))
    if kind in FLAGS:
        return flag_names(FLAGS[kind], value)
    return f"{value:#x}"


def flag_names(names: tuple[tuple[int, str], ...], value: int) -> str:
    """Bits by name, what is left in hexadecimal."""
    found = []
    for bit, name in names:
        if value & bit:
            found.append(name)
            value &= ~bit
    if value:
        found.append(f"{value:#x}")
    return "|".join(found) or "0"


def _string(process: Process, address: int) -> str:
    """A C string, or the pointer if it cannot be read."""
    if not address:
        return "NULL"
    try:
        text = process.memory.read_cstring(address)
    except (GuestFault, OSError):
        return f"{address:#x}"
    return quote(text, len(text))


def _buffer(process: Process, address: int, size: int) -> str:
    """The beginning of a buffer."""
    try:
        data = process.memory.read(address, min(size, _SHOWN))
    except GuestFault:
        return f"{address:#x}"
    return quote(data, size)


def quote(data: bytes, size: int) -> str:
    """Bytes as a C string; dots if there are more than are shown."""
    shown = "".join(
        {9: "\\t", 10: "\\n", 13: "\\r", 34: '\\"', 92: "\\\\"}.get(byte)
        or (chr(byte) if 32 <= byte < 127 else f"\\{byte:o}")
        for byte in data
    )
    return f'"{shown}"' + ("..." if size > len(data) else "")


def _print(text: str) -> None:
    """One line, written at once and past Python's buffers."""
    if write is not None:
        write(text)
        return
    with suppress(OSError):  # the guest may have closed it
        os.write(2, text.encode(errors="backslashreplace") + b"\n")
