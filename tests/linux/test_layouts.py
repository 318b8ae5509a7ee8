"""Struct layouts and constants against the C library's headers of the guest, compiled and run by qemu."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dbt.linux import abi, ioctl, passthrough, sigframe, stat

pytestmark = pytest.mark.needs("aarch64-linux-gnu-gcc", "qemu-aarch64-static")

SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/timex.h>
#include <sys/ucontext.h>
#include <sys/utsname.h>
#include <asm/sigcontext.h>
#include <termios.h>
#include <sys/ioctl.h>
#define S(t) printf("sizeof " #t " %zu\n", sizeof(t))
#define O(t, f) printf(#t "." #f " %zu\n", offsetof(t, f))
#define C(c) printf(#c " %ld\n", (long)(c))
typedef struct stat stat_t; typedef struct epoll_event epoll_t; typedef struct sigcontext sigcontext_t;
typedef struct fpsimd_context fpsimd_t; typedef struct esr_context esr_t;
int main(int argc, char **argv)
{
    S(stat_t); O(stat_t, st_dev); O(stat_t, st_ino); O(stat_t, st_mode); O(stat_t, st_nlink); O(stat_t, st_uid);
    O(stat_t, st_gid); O(stat_t, st_rdev); O(stat_t, st_size); O(stat_t, st_blksize); O(stat_t, st_blocks);
    O(stat_t, st_atim); O(stat_t, st_mtim); O(stat_t, st_ctim);
    S(epoll_t); O(epoll_t, data);
    O(sigcontext_t, regs); O(sigcontext_t, sp); O(sigcontext_t, pc); O(sigcontext_t, pstate);
    O(sigcontext_t, __reserved); S(fpsimd_t); O(fpsimd_t, vregs); S(esr_t);
    O(ucontext_t, uc_stack); O(ucontext_t, uc_sigmask); O(ucontext_t, uc_mcontext);
    C(O_DIRECTORY); C(O_NOFOLLOW); C(O_DIRECT); C(O_CLOEXEC); C(O_NONBLOCK); C(O_CREAT);
    C(O_TMPFILE); C(F_GETLK); C(F_SETLK); C(F_SETLKW); C(F_DUPFD_CLOEXEC); C(AT_SYMLINK_NOFOLLOW);
    C(SA_RESTART); C(SA_NODEFER); C(SA_RESETHAND); C(SA_ONSTACK); C(SIGSEGV); C(SIGCHLD);
    C(TCGETS); C(TIOCGWINSZ); C(FIONREAD); C(SO_TYPE);
    S(struct timespec); S(struct timeval); S(struct itimerval); S(struct itimerspec); S(struct rusage);
    S(siginfo_t); S(struct rlimit); S(struct sysinfo); S(struct statfs); S(struct utsname); S(struct tms);
    S(struct timex); S(struct pollfd); S(struct msghdr); S(struct sigaltstack_k); S(struct flock);
    struct stat s;
    stat(argv[1], &s);
    printf("values %lu %lu %u %u %lu %ld %ld\n", s.st_dev, s.st_ino, s.st_mode, s.st_nlink, s.st_rdev, s.st_size,
           s.st_mtim.tv_nsec);
    return 0;
}
""".replace(" S(struct sigaltstack_k);", " S(stack_t);")


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("layouts")
    (folder / "t.c").write_text(SOURCE)
    subprocess.run(["aarch64-linux-gnu-gcc", "-static", "-o", folder / "t", folder / "t.c"], check=True)
    made = subprocess.run(
        ["qemu-aarch64-static", folder / "t", folder / "t.c"], check=True, capture_output=True, text=True
    )
    facts = {"path": str(folder / "t.c")}
    for line in made.stdout.splitlines():
        name, _, value = line.rpartition(" ") if not line.startswith("values") else line.partition(" ")
        facts[name] = value
    return facts


def test_stat(truth: dict[str, str]) -> None:
    path = Path(truth["path"])
    found = path.stat()
    host = stat._HOST.pack(
        found.st_dev, found.st_ino, found.st_nlink, found.st_mode, found.st_uid, found.st_gid, found.st_rdev,
        found.st_size, found.st_blksize, found.st_blocks, 1, 2, 3, found.st_mtime_ns % 10**9, 5, 6,
    )  # fmt: skip
    guest = stat.to_guest(host + bytes(24))
    assert len(guest) == int(truth["sizeof stat_t"])

    def field(name: str, size: int) -> int:
        at = int(truth[f"stat_t.{name}"])
        return int.from_bytes(guest[at : at + size], "little")

    assert field("st_blksize", 4) == found.st_blksize
    assert field("st_blocks", 8) == found.st_blocks
    assert [field("st_atim", 8), field("st_mtim", 8), field("st_ctim", 8)] == [1, 3, 5]
    assert (field("st_uid", 4), field("st_gid", 4)) == (found.st_uid, found.st_gid)
    values = [field("st_dev", 8), field("st_ino", 8), field("st_mode", 4), field("st_nlink", 4), field("st_rdev", 8)]
    at = int(truth["stat_t.st_mtim"]) + 8
    values += [field("st_size", 8), int.from_bytes(guest[at : at + 8], "little")]
    assert " ".join(map(str, values)) == truth["values"]


def test_signal_frame(truth: dict[str, str]) -> None:
    expected = {
        "ucontext_t.uc_stack": sigframe._STACK,
        "ucontext_t.uc_sigmask": sigframe._MASK,
        "ucontext_t.uc_mcontext": sigframe._MCONTEXT,
        "sigcontext_t.regs": sigframe._REGS,
        "sigcontext_t.sp": 256,
        "sigcontext_t.pc": 264,
        "sigcontext_t.pstate": 272,
        "sigcontext_t.__reserved": sigframe._RECORDS,
        "sizeof fpsimd_t": sigframe.FPSIMD_SIZE,
        "fpsimd_t.vregs": 16,
        "sizeof esr_t": sigframe.ESR_SIZE,
        "sizeof siginfo_t": 128,
        "sizeof epoll_t": 16,
        "epoll_t.data": 8,
    }
    assert {name: int(truth[name]) for name in expected} == expected


def test_open_flags(truth: dict[str, str]) -> None:
    for name in ("O_DIRECTORY", "O_NOFOLLOW", "O_DIRECT", "O_CLOEXEC", "O_NONBLOCK", "O_CREAT", "O_TMPFILE"):
        assert abi.open_flags_to_host(int(truth[name])) == getattr(os, name), name


@pytest.mark.parametrize(
    ("call", "argument", "struct"),
    [
        ("nanosleep", 0, "struct timespec"),
        ("gettimeofday", 0, "struct timeval"),
        ("setitimer", 1, "struct itimerval"),
        ("timerfd_settime", 2, "struct itimerspec"),
        ("getrusage", 1, "struct rusage"),
        ("waitid", 2, "siginfo_t"),
        ("sysinfo", 0, "struct sysinfo"),
        ("fstatfs", 1, "struct statfs"),
        ("times", 0, "struct tms"),
        ("adjtimex", 0, "struct timex"),
    ],
)
def test_sizes_that_pass_through(truth: dict[str, str], call: str, argument: int, struct: str) -> None:
    row = next(row for row in passthrough.ROWS if row[1] == call)
    size = next(pointer[1] for pointer in row[5] if pointer[0] == argument)
    assert size == int(truth[f"sizeof {struct}"])


def test_numbers(truth: dict[str, str]) -> None:
    assert int(truth["TCGETS"]) in ioctl._SIZES
    assert int(truth["TIOCGWINSZ"]) in ioctl._SIZES
    assert int(truth["FIONREAD"]) in ioctl._SIZES
    assert int(truth["F_DUPFD_CLOEXEC"]) == 1030
    assert int(truth["sizeof struct flock"]) == 32
    assert int(truth["sizeof struct msghdr"]) == 56
    assert int(truth["sizeof stack_t"]) == 24
    assert int(truth["sizeof struct utsname"]) == 390
    assert int(truth["SA_RESTART"]) == 0x10000000
    assert (int(truth["SIGSEGV"]), int(truth["SIGCHLD"])) == (11, 17)
