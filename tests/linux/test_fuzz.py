"""System calls with nonsense: every answer is a number, the process stays whole, memory stays inside its range."""

from __future__ import annotations

import os
import random
import signal
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from dbt.linux import passthrough
from dbt.linux.table import CALLS

from .conftest import HEAP, READ_ONLY, UNMAPPED

if TYPE_CHECKING:
    from dbt.linux.process import Process

# Nothing here can hurt the machine that the tests run on, whoever runs them: the calls get no name of a file that is
# there, no process but an impossible one, and no descriptor but that of a pipe.
NAMES = (
    "brk", "mmap", "munmap", "mprotect", "mremap", "madvise", "mincore", "msync", "mlock", "munlock", "readv",
    "writev", "preadv2", "ppoll", "pselect6", "epoll_ctl", "epoll_pwait", "fcntl", "ioctl", "getdents64",
    "fstat", "newfstatat", "statx", "readlinkat", "faccessat2", "openat", "rt_sigaction", "rt_sigprocmask",
    "rt_sigpending", "sigaltstack", "rt_sigreturn", "prlimit64", "uname", "prctl", "futex", "sendmsg",
    "recvmsg", "getsockopt", "setsockopt", "getsockname", "accept4", "recvfrom", "pipe2", "getcwd", "execve",
    "clone3", "set_robust_list", "personality", "times", "getrusage", "sysinfo", "clock_gettime", "getrandom",
    "timerfd_settime", "read", "write", "pread64", "lseek", "sched_getaffinity", "getitimer", "fstatfs",
)  # fmt: skip
NUMBERS = {name: number for number, (name, _) in CALLS.items()} | {row[1]: row[0] for row in passthrough.ROWS}
EDGES = (
    0, 1, 7, 8, 64, 4095, 4096, 4097, HEAP, HEAP + 1, HEAP + 0x1FF8, READ_ONLY, UNMAPPED, 1 << 31, (1 << 32) - 1,
    (1 << 46) - 1, (1 << 46) - 4096, 1 << 46, 1 << 56, 1 << 63, (1 << 64) - 1, (1 << 64) - 100, (1 << 64) - 4096,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_nonsense(process: Process, seed: int) -> None:
    pid = os.fork()
    if not pid:  # what a call may change (limits, mask, descriptors) is a child's
        status = 1
        signal.alarm(60)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        try:
            _make_calls(process, random.Random(seed))
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _make_calls(process: Process, source: random.Random) -> None:
    os.closerange(3, 256)  # pytest has its own there
    ends = os.pipe2(os.O_NONBLOCK)
    for _ in range(3000):
        name = source.choice(NAMES)
        args = [source.choice(EDGES) if source.random() < 0.8 else source.getrandbits(64) for _ in range(6)]
        if name in {"ppoll", "pselect6", "epoll_pwait", "futex"}:
            args[1 if name == "futex" else 2] = 1  # never wait: a wake, a bad or short time
            args[3] = 0
        if name == "ppoll":
            args[2] = UNMAPPED
        if name == "pselect6":
            args[4] = UNMAPPED
        if name in {"prlimit64", "prctl"}:
            args[2] = 0
        if name == "prctl":
            args[0] |= 1 << 20
        if source.random() < 0.5:
            args[0] = source.choice(ends)
        process.memory.map(HEAP, 0x2000, 3)
        process.memory.write(HEAP, source.randbytes(64) + bytes(64))
        result = process.do(NUMBERS[name], *args)
        assert isinstance(result, int), name
        assert -4096 < result < 1 << 64, name
        process.status = None
        areas = process.memory.areas
        assert all(a.start < a.end for a in areas)
        assert all(a.end <= b.start for a, b in pairwise(areas))
        assert not areas or areas[-1].end <= process.limit
