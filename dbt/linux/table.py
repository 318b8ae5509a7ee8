"""Which function serves which AArch64 system call: number -> (name, module of this folder).

The function is `sys_` and the name in that module, which is imported when the call is first made; calls of
passthrough.ROWS need none. Numbers are those of linux/include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

_MODULES: dict[str, dict[int, str]] = {
    "files": {
        24: "dup3", 25: "fcntl", 56: "openat", 57: "close", 59: "pipe2", 61: "getdents64", 279: "memfd_create",
        436: "close_range",
    },
    "vectors": {
        65: "readv", 66: "writev", 69: "preadv", 70: "pwritev", 286: "preadv2", 287: "pwritev2",
    },
    "stat": {79: "newfstatat", 80: "fstat", 291: "statx"},
    "names": {
        5: "setxattr", 6: "lsetxattr", 7: "fsetxattr", 8: "getxattr", 9: "lgetxattr", 10: "fgetxattr",
        11: "listxattr", 12: "llistxattr", 13: "flistxattr", 14: "removexattr", 15: "lremovexattr",
        16: "fremovexattr", 17: "getcwd", 27: "inotify_add_watch", 33: "mknodat", 34: "mkdirat", 35: "unlinkat",
        36: "symlinkat", 37: "linkat", 38: "renameat", 43: "statfs", 45: "truncate", 48: "faccessat", 49: "chdir",
        51: "chroot", 53: "fchmodat", 54: "fchownat", 78: "readlinkat", 88: "utimensat", 276: "renameat2",
        439: "faccessat2",
    },
    "polls": {
        21: "epoll_ctl", 22: "epoll_pwait", 72: "pselect6", 73: "ppoll", 74: "signalfd4", 441: "epoll_pwait2",
    },
    "ioctl": {29: "ioctl"},
    "sockets": {
        199: "socketpair", 202: "accept", 204: "getsockname", 205: "getpeername", 207: "recvfrom", 208: "setsockopt",
        209: "getsockopt", 211: "sendmsg", 212: "recvmsg", 242: "accept4",
    },
    "regions": {
        214: "brk", 215: "munmap", 216: "mremap", 222: "mmap", 226: "mprotect", 227: "msync", 228: "mlock",
        229: "munlock", 232: "mincore", 233: "madvise",
        284: "mlock2",
    },
    "clone": {220: "clone", 435: "clone3"},
    "execve": {221: "execve", 281: "execveat"},
    "tasks": {
        93: "exit", 94: "exit_group", 96: "set_tid_address", 98: "futex", 99: "set_robust_list", 128: "restart_syscall",
        163: "getrlimit", 164: "setrlimit", 261: "prlimit64", 293: "rseq",
    },
    "system": {92: "personality", 160: "uname", 161: "sethostname", 167: "prctl"},
    "sigcalls": {
        132: "sigaltstack", 133: "rt_sigsuspend", 134: "rt_sigaction", 135: "rt_sigprocmask", 136: "rt_sigpending",
        137: "rt_sigtimedwait", 138: "rt_sigqueueinfo", 240: "rt_tgsigqueueinfo", 107: "timer_create",
        111: "timer_delete",
    },
    "sigframe": {139: "rt_sigreturn"},
}  # fmt: skip

CALLS: dict[int, tuple[str, str]] = {
    number: (name, module) for module, calls in _MODULES.items() for number, name in calls.items()
}
