"""mremap made directly on a process."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from dbt.errors import GuestFault

from .conftest import HEAP, UNMAPPED
from .test_calls import call

if TYPE_CHECKING:
    from dbt.linux.process import Process


def test_mremap(process: Process) -> None:
    address = call(process, "mmap", 0, 0x2000, 3, 0x22, -1, 0)
    process.memory.write(address, b"start")
    blocker = call(process, "mmap", address + 0x2000, 0x1000, 3, 0x100022, -1, 0)
    moved = call(process, "mremap", address, 0x2000, 0x8000, 1)
    assert moved not in {address, -errno.ENOMEM}
    assert blocker == -errno.EEXIST or moved > 0
    assert process.memory.read(moved, 5) == b"start"
    assert process.memory.read(moved + 0x7FFF, 1) == b"\0"
    assert call(process, "mremap", moved, 0x8000, 0x1000, 0) == moved
    with pytest.raises(GuestFault):
        process.memory.read(moved + 0x1000, 1)
    assert call(process, "mremap", moved, 0x1000, 0x3000, 0) == moved
    assert call(process, "mremap", moved, 0x3000, 0x3000, 3, HEAP + 0x10000) == HEAP + 0x10000
    assert process.memory.read(HEAP + 0x10000, 5) == b"start"
    assert call(process, "mremap", UNMAPPED, 0x1000, 0x2000, 1) == -errno.EFAULT
    assert call(process, "mremap", 1, 0x1000, 0x2000, 1) == -errno.EINVAL
    for pages in (4, 5, 6):  # again and again in its place, then away from there
        assert call(process, "mremap", HEAP + 0x10000, (pages - 1) << 12, pages << 12, 0) == HEAP + 0x10000
    moved = call(process, "mremap", HEAP + 0x10000, 0x6000, 0x6000, 3, HEAP + 0x20000)
    assert process.memory.read(HEAP + 0x20000, 0x6000).rstrip(b"\0") == b"start"
    for flags in (0, 1):  # what obviously overcommits, as mmap refuses it
        assert call(process, "mremap", moved, 0x6000, 1 << 44, flags) == -errno.ENOMEM
