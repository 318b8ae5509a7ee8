"""Guests that use up their descriptors: those that we need ourselves are none of theirs."""

from __future__ import annotations

import errno
import os
import resource
import socket
import subprocess
from functools import partial
from struct import pack
from typing import TYPE_CHECKING

import pytest

from dbt.linux.table import CALLS

from .conftest import HEAP

if TYPE_CHECKING:
    from pathlib import Path

    from dbt.linux.process import Process
    from tests.conftest import Command

# eventfd2, epoll_create1, dup, inotify_init1, timerfd_create, socket, pidfd_open; fcntl(F_DUPFD), openat, pipe2,
# memfd_create, signalfd4, socketpair
MAKERS = {
    19: (0, 0), 20: (0,), 23: (0,), 26: (0,), 85: (1, 0), 198: (1, 1, 0), 434: (os.getpid(), 0), 25: (0, 0, 0),
    56: (-100, HEAP, 0), 59: (HEAP + 64, 0), 279: (HEAP, 0), 74: (-1, HEAP + 128, 8, 0), 199: (1, 1, 0, HEAP + 64),
}  # fmt: skip


@pytest.fixture
def full(process: Process) -> Process:
    """A process that has but one descriptor left."""
    process.memory.write(HEAP, b"/proc/self/maps\0")
    for number in MAKERS:
        process.prepare((number,))
    free = os.open("/", os.O_RDONLY)
    os.close(free)
    process.fd_limit = free + 1
    return process


@pytest.mark.parametrize("number", MAKERS)
def test_they_get_no_descriptors_of_ours(full: Process, number: int) -> None:
    arguments = [each & 0xFFFFFFFFFFFFFFFF for each in (*MAKERS[number], 0, 0, 0, 0, 0, 0)[:6]]
    pair = number in {59, 199}
    before = os.listdir("/proc/self/fd")
    if not pair:
        last = full.do(number, *arguments)
        assert last == full.fd_limit - 1
        assert full.do(number, *arguments) == -errno.EMFILE
        os.close(last)
    else:
        assert full.do(number, *arguments) == -errno.EMFILE
    assert os.listdir("/proc/self/fd") == before


def test_nor_from_connections(full: Process, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "socket"))
        server.listen(1)
        client.connect(str(tmp_path / "socket"))
        full.fd_limit = client.fileno() + 1
        before = os.listdir("/proc/self/fd")
        assert full.do(202, server.fileno(), 0, 0, 0, 0, 0) == -errno.EMFILE
        assert os.listdir("/proc/self/fd") == before


def test_a_smaller_limit_finds_all_imported(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.cpu, "reference", lambda: None, raising=False)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    process.memory.write(HEAP, pack("<QQ", before[0] - 1, before[1]))
    try:
        assert process.do(261, 0, 7, HEAP, 0, 0, 0) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert set(CALLS) <= set(process.handlers)


@pytest.mark.needs("aarch64-linux-gnu-gcc")
def test_all_used_up(dragoman: Command, tmp_path: Path) -> None:
    """dup until there are no more, and a call that was not made before."""
    source = """
        #include <errno.h>
        #include <stdio.h>
        #include <sys/stat.h>
        #include <unistd.h>
        int main(void) {
            int last = -1, next, unusable = 0;
            struct stat found;
            while ((next = dup(0)) >= 0)
                last = next;
            int error = errno;
            unusable = fstat(last, &found) < 0;
            return error == EMFILE && !unusable && fork() >= 0 ? 5 : 6;
        }
    """
    subprocess.run(["aarch64-linux-gnu-gcc", "-static", "-x", "c", "-o", tmp_path / "program", "-"], input=source,
                   text=True, check=True)  # fmt: skip
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (256, hard))
    done = dragoman("run", tmp_path / "program", preexec_fn=few)
    assert (done.returncode, done.stderr) == (5, b"")
