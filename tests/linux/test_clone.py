"""clone and chroot: what they refuse and leave behind, and need before. Children are in guests/processes.c."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from dbt.linux.table import CALLS

from .conftest import HEAP

if TYPE_CHECKING:
    from dbt.linux.process import Process


def test_clone_of_threads_is_refused(process: Process, notes: list[str]) -> None:
    assert process.do(220, 0x10100, HEAP, 0, 0, 0) == -errno.ENOSYS
    assert process.do(220, 0x100, HEAP, 0, 0, 0) == -errno.ENOSYS
    assert len(notes) == 1
    assert process.do(435, HEAP, 64) == -errno.ENOSYS


@pytest.mark.parametrize("flags", [0, 10, 0x200 | 17, 0x400 | 17, 0x800 | 17, 0x8000 | 17, 0x4500 | 17])
def test_clone_of_children_that_would_share_something_is_refused(
    process: Process, notes: list[str], flags: int
) -> None:
    """Files, folder, handlers, parent; or that end with another signal than SIGCHLD."""
    assert process.do(220, flags, 0, 0, 0, 0) == -errno.EINVAL
    assert "clone" in notes[0]


def test_a_fork_that_fails_leaves_nothing_open(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise BlockingIOError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(os, "fork", fail)
    before = os.listdir("/proc/self/fd")
    assert process.do(220, 0x4100 | 17, 0, 0, 0, 0) == -errno.EAGAIN
    assert os.listdir("/proc/self/fd") == before


def test_before_another_root_all_is_imported(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    engines: list[str] = []
    process.memory.write(HEAP, b"/no/where\0")
    monkeypatch.setattr(process.cpu, "reference", lambda: engines.append("reference"), raising=False)
    assert process.do(51, HEAP) == -errno.ENOENT
    assert set(CALLS) <= set(process.handlers)
    assert engines
