"""System calls made directly on a process."""

from __future__ import annotations

import errno
import os
import resource
import socket
from pathlib import Path
from struct import pack, unpack
from typing import TYPE_CHECKING

import pytest

from dbt.errors import GuestFault
from dbt.linux import passthrough
from dbt.linux.abi import AT_FDCWD, open_flags_to_guest, open_flags_to_host
from dbt.linux.table import CALLS

from .conftest import HEAP, READ_ONLY, UNMAPPED

if TYPE_CHECKING:
    from dbt.linux.process import Process

CWD = AT_FDCWD & 0xFFFFFFFFFFFFFFFF
NUMBERS = {name: number for number, (name, _) in CALLS.items()} | {row[1]: row[0] for row in passthrough.ROWS}
WILD = (UNMAPPED, (1 << 46) - 8, 1 << 46, 1 << 55, (1 << 64) - 8)


def call(process: Process, name: str, *args: int) -> int:
    return process.do(NUMBERS[name], *(arg & 0xFFFFFFFFFFFFFFFF for arg in (*args, *(0,) * (6 - len(args)))))


def put(process: Process, data: bytes, at: int = HEAP) -> int:
    process.memory.write(at, data)
    return at


def put_path(process: Process, path: Path | str, at: int = HEAP) -> int:
    return put(process, os.fsencode(path) + b"\0", at)


def test_tables_do_not_overlap() -> None:
    numbers = [row[0] for row in passthrough.ROWS]
    assert len(set(numbers)) == len(numbers)
    assert not set(numbers) & set(CALLS)
    assert len(numbers) + len(CALLS) > 150


@pytest.mark.parametrize("number", sorted(CALLS))
def test_every_call_has_a_function(process: Process, number: int) -> None:
    assert callable(process._find(number))


def test_unknown_calls_are_named_once(process: Process, notes: list[str]) -> None:
    assert process.do(9999, *[0] * 6) == -errno.ENOSYS
    assert process.do(9999, *[0] * 6) == -errno.ENOSYS
    assert notes == ["system call 9999 is not implemented: ENOSYS"]


SAFE_TO_TRY = [row for row in passthrough.ROWS if row[5] and row[1] not in {"wait4", "waitid", "clock_settime"}]


@pytest.mark.parametrize("row", SAFE_TO_TRY, ids=lambda row: row[1])
@pytest.mark.parametrize("wild", WILD, ids=hex)
def test_bad_pointers(process: Process, row: passthrough.Row, wild: int) -> None:
    number, _, _, fds, _, pointers = row
    for index, unit, count, _ in pointers:
        args = [0xFFFFFFFF if fds >> place & 1 else 0 for place in range(6)]
        for other, *_ in pointers:
            args[other] = HEAP
        args[index] = wild
        size = unit
        if count >= 0:
            args[count] = 16
            size *= 16
        result = process.do(number, *args)
        if (wild & (1 << 56) - 1) + size > process.limit:
            assert result == -errno.EFAULT


@pytest.mark.parametrize("wild", WILD, ids=hex)
@pytest.mark.parametrize(
    "name",
    ["openat", "newfstatat", "readlinkat", "execve", "chdir", "mkdirat", "uname", "pipe2", "statx", "getcwd", "statfs"],
)
def test_bad_pointers_elsewhere(process: Process, name: str, wild: int) -> None:
    first = {"uname": 0, "pipe2": 0, "execve": 0, "chdir": 0, "getcwd": 0, "statfs": 0}.get(name, 1)
    args = [CWD, 0, 0, 0] if first else [0, 0, 0, 0]
    args[first] = wild
    if name == "getcwd":
        args[1] = 4096
    assert call(process, name, *args) == -errno.EFAULT


def test_pointer_is_checked_with_its_size(process: Process) -> None:
    assert process.pointer(process.limit - 8, 8) == process.base + process.limit - 8
    with pytest.raises(GuestFault):
        process.pointer(process.limit - 8, 9)
    assert process.pointer(0xAB << 56 | HEAP, 8) == process.base + HEAP  # the top byte is ignored
    assert process.optional(0, 1 << 60) == 0


def test_open_flags() -> None:
    assert open_flags_to_host(0o40000) == os.O_DIRECTORY
    assert open_flags_to_host(0o100000) == os.O_NOFOLLOW
    assert open_flags_to_host(0o200000) == os.O_DIRECT
    for flags in range(0, 0o40000000, 0o10001):
        assert open_flags_to_guest(open_flags_to_host(flags)) == flags


def test_files(process: Process, tmp_path: Path) -> None:
    name = put_path(process, tmp_path / "file")
    fd = call(process, "openat", CWD, name, os.O_CREAT | os.O_RDWR, 0o640)
    assert fd >= 0
    assert call(process, "write", fd, put(process, b"hello", HEAP + 0x800), 5) == 5
    assert call(process, "lseek", fd, 1, 0) == 1
    assert call(process, "read", fd, HEAP + 0x900, 100) == 4
    assert process.memory.read(HEAP + 0x900, 4) == b"ello"
    assert call(process, "read", fd, READ_ONLY, 1) == 0
    call(process, "lseek", fd, 0, 0)
    assert call(process, "read", fd, READ_ONLY, 1) == -errno.EFAULT
    vector = put(process, pack("<4Q", HEAP + 0x700, 2, HEAP + 0x800, 2), HEAP + 0x400)
    call(process, "lseek", fd, 0, 0)
    assert call(process, "writev", fd, put(process, pack("<2Q", 1 << 50, 4), HEAP + 0x600), 1) == -errno.EFAULT
    assert call(process, "readv", fd, vector, 2) == 4
    assert call(process, "readv", fd, vector, 1025) == -errno.EINVAL
    assert process.memory.read(HEAP + 0x700, 2) + process.memory.read(HEAP + 0x800, 2) == b"hell"
    assert call(process, "fstat", fd, HEAP + 0x400) == 0
    found = os.fstat(fd)
    dev, ino, mode, nlink, uid, gid = unpack("<QQIIII", process.memory.read(HEAP + 0x400, 32))
    assert (dev, ino, mode, nlink, uid, gid) == found[2:3] + found[1:2] + found[0:1] + found[3:6]
    assert unpack("<q", process.memory.read(HEAP + 0x430, 8)) == (5,)
    assert call(process, "close", fd) == 0
    assert call(process, "close", fd) == -errno.EBADF


def test_the_translators_own_memory_cannot_be_opened(process: Process, tmp_path: Path) -> None:
    (tmp_path / "mem").symlink_to("/proc/self/mem")
    (tmp_path / "other").symlink_to("/proc/self/mem")
    for path in (
        "/proc/self/mem", "/proc/thread-self/mem", f"/proc/{os.getpid()}/mem", f"/proc/self/task/{os.getpid()}/mem",
        f"{tmp_path}/mem", f"{tmp_path}/other",
    ):  # fmt: skip
        assert call(process, "openat", CWD, put_path(process, path), os.O_RDWR) == -errno.EACCES
    ordinary = tmp_path / "file.mem"
    ordinary.write_bytes(b"x")
    assert call(process, "openat", CWD, put_path(process, str(ordinary)), os.O_RDONLY) >= 0


def test_open_names(process: Process, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    name = put_path(process, tmp_path / "link")
    assert call(process, "openat", CWD, name, 0o100000) == -errno.ELOOP  # AArch64's O_NOFOLLOW
    assert call(process, "openat", CWD, put_path(process, "/etc/passwd"), 0o40000) == -errno.ENOTDIR
    assert call(process, "readlinkat", CWD, put_path(process, tmp_path / "link"), HEAP + 0x800, 3) == 3
    assert process.memory.read(HEAP + 0x800, 4) == b"now\0"
    process.memory.write(HEAP, b"a" * 0x2000)
    assert call(process, "openat", CWD, HEAP, 0) == -errno.ENAMETOOLONG


def test_own_descriptors_are_hidden(process: Process) -> None:
    read_end, write_end = os.pipe()
    hidden = process.hide(write_end)
    try:
        assert hidden >= process.fd_limit
        assert call(process, "write", hidden, HEAP, 1) == -errno.EBADF
        assert call(process, "close", hidden) == -errno.EBADF
        assert call(process, "dup3", read_end, hidden, 0) == -errno.EBADF
        assert call(process, "fcntl", read_end, 0, hidden) == -errno.EINVAL
        assert call(process, "close_range", process.fd_limit, 0xFFFFFFFF, 0) == 0
        os.write(hidden, b"x")
        directory = call(process, "openat", CWD, put_path(process, "/proc/self/fd"), 0o40000)
        size = call(process, "getdents64", directory, HEAP, 0x2000)
        names, at = [], 0
        data = process.memory.read(HEAP, size)
        while at < size:
            length = unpack("<H", data[at + 16 : at + 18])[0]
            names.append(data[at + 19 : at + length].split(b"\0")[0])
            at += length
        assert b"%d" % read_end in names
        assert b"%d" % hidden not in names
        call(process, "close", directory)
    finally:
        os.close(read_end)
        os.close(hidden)


def test_fcntl(process: Process) -> None:
    assert call(process, "pipe2", HEAP, 0o200000 | os.O_CLOEXEC) == 0  # AArch64's O_DIRECT
    ends = unpack("<ii", process.memory.read(HEAP, 8))
    assert call(process, "fcntl", ends[1], 3, 0) == os.O_WRONLY | 0o200000
    assert call(process, "fcntl", ends[0], 4, os.O_NONBLOCK) == 0
    assert call(process, "read", ends[0], HEAP, 1) == -errno.EAGAIN
    assert call(process, "fcntl", ends[0], 1, 0) == 1
    assert call(process, "fcntl", ends[0], 777777, 0) == -errno.EINVAL
    assert call(process, "ioctl", ends[0], 0x541B, HEAP) == 0
    assert call(process, "ioctl", ends[0], 0x541B, UNMAPPED) == -errno.EFAULT
    assert call(process, "ioctl", ends[0], 0xDEADBEEF, HEAP) == -errno.ENOTTY
    for end in ends:
        os.close(end)


def test_brk(process: Process) -> None:
    start = call(process, "brk", 0)
    assert call(process, "brk", start + 5000) == start + 5000
    process.memory.write(start + 4999, b"x")
    assert call(process, "brk", start + 1) == start + 1
    with pytest.raises(GuestFault):
        process.memory.read(start + 4999, 1)
    assert call(process, "brk", 1 << 60) == start + 1
    assert call(process, "brk", start - 1) == start + 1


def test_mmap(process: Process, tmp_path: Path) -> None:
    address = call(process, "mmap", 0, 0x3000, 3, 0x22, -1, 0)
    assert address > 0
    process.memory.write(address, b"abc")
    assert call(process, "mprotect", address, 0x1000, 1) == 0
    with pytest.raises(GuestFault):
        process.memory.write(address, b"x")
    assert call(process, "munmap", address + 0x1000, 0x1000) == 0
    assert call(process, "mprotect", address, 0x3000, 1) == -errno.ENOMEM
    assert call(process, "mmap", address, 0x1000, 3, 0x100022, -1, 0) == -errno.EEXIST
    assert call(process, "mmap", 0, 0, 3, 0x22, -1, 0) == -errno.EINVAL
    assert call(process, "mmap", 0, 1 << 60, 3, 0x22, -1, 0) == -errno.ENOMEM
    assert call(process, "mmap", 0, (1 << 64) - 1, 3, 0x22, -1, 0) in {-errno.ENOMEM, -errno.EINVAL}
    assert call(process, "mmap", 0x1000, 0x1000, 3, 0x32, -1, 0) == -errno.EPERM
    assert call(process, "mmap", 0, 0x1000, 3, 2, 999, 0) == -errno.EBADF
    assert call(process, "munmap", 1, 0x1000) == -errno.EINVAL
    assert call(process, "munmap", 0, 1 << 62) == -errno.EINVAL
    path = tmp_path / "file"
    path.write_bytes(b"content" * 1000)
    with path.open("rb") as file:
        mapped = call(process, "mmap", 0, 7000, 1, 2, file.fileno(), 0)
    assert process.memory.read(mapped, 7) == b"content"
    assert process.memory.area_at(mapped).name == str(path)  # type: ignore[union-attr]


def test_madvise(process: Process) -> None:
    process.memory.write(HEAP, b"gone")
    assert call(process, "madvise", HEAP, 0x1000, 4) == 0
    assert process.memory.read(HEAP, 4) == bytes(4)
    assert call(process, "madvise", HEAP, 0x1000, 10) == 0  # DONTFORK must not reach the host
    assert call(process, "madvise", UNMAPPED, 0x1000, 4) == -errno.ENOMEM
    assert call(process, "madvise", HEAP, 0x1000, 100) == -errno.EINVAL
    assert call(process, "mincore", HEAP, 0x2000, HEAP + 0x100) == 0
    for name in ("msync", "mlock", "munlock"):
        assert call(process, name, HEAP, 0x2000, 4) == 0
        assert call(process, name, HEAP, 0x3000, 4) == -errno.ENOMEM
        assert call(process, name, HEAP, 1 << 60, 4) == -errno.ENOMEM


def test_limits(process: Process) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = put(process, pack("<QQ", 1 << 20, 1 << 21))
    assert call(process, "prlimit64", 0, resource.RLIMIT_AS, limit, HEAP + 32) == 0
    assert resource.getrlimit(resource.RLIMIT_AS) == before  # it would limit the translator
    assert call(process, "prlimit64", 0, resource.RLIMIT_AS, 0, HEAP + 64) == 0
    assert unpack("<QQ", process.memory.read(HEAP + 64, 16)) == (1 << 20, 1 << 21)
    assert call(process, "prlimit64", 0, resource.RLIMIT_NOFILE, 0, HEAP + 64) == 0
    assert unpack("<QQ", process.memory.read(HEAP + 64, 16))[0] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_uname(process: Process) -> None:
    assert call(process, "uname", HEAP) == 0
    assert process.memory.read(HEAP + 4 * 65, 8) == b"aarch64\0"
    assert process.memory.read_cstring(HEAP).decode() == "Linux"


def test_prctl(process: Process) -> None:
    with Path("/proc/self/comm").open() as file:
        before = file.read().strip()
    assert call(process, "prctl", 15, put(process, b"a-long-name-of-a-thread\0")) == 0
    assert call(process, "prctl", 16, HEAP) == 0
    assert process.memory.read_cstring(HEAP) == b"a-long-name-of-"
    assert call(process, "prctl", 15, put(process, b"across-pages\0", HEAP + 0xFFB)) == 0
    assert call(process, "prctl", 16, HEAP) == 0
    assert process.memory.read_cstring(HEAP) == b"across-pages"
    assert call(process, "prctl", 424242) == -errno.EINVAL
    call(process, "prctl", 15, put(process, before.encode() + b"\0"))


def test_epoll(process: Process) -> None:
    assert call(process, "pipe2", HEAP, 0) == 0
    ends = unpack("<ii", process.memory.read(HEAP, 8))
    epoll = call(process, "epoll_create1", 0)
    event = put(process, pack("<IxxxxQ", 1, 0x1122334455667788), HEAP + 0x100)
    assert call(process, "epoll_ctl", epoll, 1, ends[0], event) == 0
    assert call(process, "epoll_pwait", epoll, HEAP + 0x200, 4, 0, 0, 8) == 0
    os.write(ends[1], b"x")
    assert call(process, "epoll_pwait", epoll, HEAP + 0x200, 4, -1, 0, 8) == 1
    assert process.memory.read(HEAP + 0x200, 16) == pack("<IIQ", 1, 0, 0x1122334455667788)
    assert call(process, "epoll_pwait", epoll, UNMAPPED, 4, -1, 0, 8) == -errno.EFAULT
    polled = put(process, pack("<iHH", ends[0], 1, 0), HEAP + 0x300)
    assert call(process, "ppoll", polled, 1, 0, 0, 8) == 1
    assert process.memory.read(polled, 8) == pack("<iHH", ends[0], 1, 1)
    bits = put(process, (1 << ends[0]).to_bytes(128, "little"), HEAP + 0x400)
    assert call(process, "pselect6", ends[0] + 1, bits, 0, 0, 0, 0) == 1
    for fd in (*ends, epoll):
        os.close(fd)


def test_sockets(process: Process) -> None:
    assert call(process, "socketpair", 1, 1, 0, HEAP) == 0
    a, b = unpack("<ii", process.memory.read(HEAP, 8))
    vector = put(process, pack("<4Q", HEAP + 0x100, 3, HEAP + 0x200, 3), HEAP + 0x80)
    put(process, b"abc", HEAP + 0x100)
    put(process, b"def", HEAP + 0x200)
    control = put(process, pack("<QIIii", 20, socket.SOL_SOCKET, socket.SCM_RIGHTS, a, 0), HEAP + 0x300)
    message = put(process, pack("<QIIQQQQII", 0, 0, 0, vector, 2, control, 24, 0, 0), HEAP + 0x400)
    assert call(process, "sendmsg", a, message, 0) == 6
    put(process, bytes(6), HEAP + 0x100)
    put(process, pack("<QIIQQQQII", 0, 0, 0, vector, 2, control, 24, 0, 0), message)
    assert call(process, "recvmsg", b, message, 0) == 6
    assert process.memory.read(HEAP + 0x100, 3) == b"abc"
    passed = unpack("<i", process.memory.read(control + 16, 4))[0]
    assert passed not in {a, b}
    length = put(process, pack("<I", 4), HEAP + 0x500)
    assert call(process, "getsockopt", a, socket.SOL_SOCKET, socket.SO_TYPE, HEAP + 0x600, length) == 0
    assert process.memory.read_u32(HEAP + 0x600) == socket.SOCK_STREAM
    assert call(process, "setsockopt", a, socket.SOL_SOCKET, 26, HEAP, 16) == -errno.ENOPROTOOPT
    assert call(process, "sendto", a, HEAP + 0x200, 3, 0, 0, 0) == 3
    assert call(process, "recvfrom", b, HEAP + 0x700, 10, 0, 0, 0) == 3
    for fd in (a, b, passed):
        os.close(fd)


def test_proc_self(process: Process) -> None:
    process.exe = "/bin/sh"
    process.argv = [b"guest", b"x"]
    name = put_path(process, "/proc/self/exe")
    assert call(process, "readlinkat", CWD, name, HEAP + 0x800, 100) == 7
    assert process.memory.read(HEAP + 0x800, 7) == b"/bin/sh"
    for view, start in (("cmdline", b"guest\0x\0"), ("maps", b"00100000-00102000 rw-p 00000000 00:00 0")):
        for owner in ("self", "thread-self", str(os.getpid())):
            fd = call(process, "openat", CWD, put_path(process, f"/proc/{owner}/{view}"), 0)
            size = call(process, "read", fd, HEAP + 0x800, 0x800)
            assert process.memory.read(HEAP + 0x800, size).startswith(start)
            os.close(fd)


def test_root(process: Process, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "only-here").write_text("x")
    (tmp_path / "link").symlink_to("/etc/only-here")
    process.root = os.fsencode(tmp_path)
    for name in ("/etc/only-here", "/link", "/etc/passwd"):
        fd = call(process, "openat", CWD, put_path(process, name), 0)
        assert fd >= 0, name
        os.close(fd)
    assert call(process, "openat", CWD, put_path(process, "/no/where"), 0) == -errno.ENOENT


def test_exec_errors(process: Process, tmp_path: Path) -> None:
    def attempt(path: Path) -> int:
        return call(process, "execve", put_path(process, path), 0, 0)

    assert attempt(tmp_path / "none") == -errno.ENOENT
    assert attempt(tmp_path) == -errno.EACCES
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + pack("<HH", 2, 183) + bytes(10))
    broken.chmod(0o755)
    assert attempt(broken) == -errno.ENOEXEC
    broken.write_bytes(b"#!" + os.fsencode(broken) + b"\n")
    assert attempt(broken) == -errno.ELOOP
    broken.write_bytes(b"#!\n")
    assert attempt(broken) == -errno.ENOEXEC
    broken.write_bytes(b"no program at all")
    assert attempt(broken) == -errno.ENOEXEC
    put(process, pack("<Q", UNMAPPED), HEAP + 0x800)
    assert call(process, "execve", put_path(process, broken), HEAP + 0x800, 0) == -errno.EFAULT


def test_exit(process: Process) -> None:
    call(process, "exit_group", 0x1FF)
    assert process.status == 0xFF
