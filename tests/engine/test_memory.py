"""The address space: mappings against a naive model, bytes, faults, isolation."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dbt.engine import hostmem
from dbt.engine.hostmem import MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE
from dbt.engine.layout import PAGE_SIZE
from dbt.engine.memory import AddressSpace
from dbt.errors import GuestFault

if TYPE_CHECKING:
    from collections.abc import Iterator

RW = PROT_READ | PROT_WRITE


@pytest.fixture
def space() -> Iterator[AddressSpace]:
    space = AddressSpace()
    yield space
    space.close()


def test_read_and_write_across_mappings(space: AddressSpace) -> None:
    space.map(0x10000, 0x1000, RW)
    space.map(0x11000, 0x1000, RW)
    space.write(0x10FFE, b"abcd")
    assert space.read(0x10FFE, 4) == b"abcd"
    assert space.read(0xFF00_0000_0001_0FFE, 4) == b"abcd"  # Arm's top byte is ignored


@pytest.mark.parametrize("address", [0, 0x12000, 0xFFFF_0000_0000, (1 << 46) - 1, (1 << 47) + 8, (1 << 64) - 1])
def test_unmapped_memory_faults(space: AddressSpace, address: int) -> None:
    space.map(0x10000, 0x2000, RW)
    with pytest.raises(GuestFault):
        space.read(address, 8)
    with pytest.raises(GuestFault):
        space.write(address, b"12345678")


def test_the_fault_names_the_first_bad_byte(space: AddressSpace) -> None:
    space.map(0x10000, 0x1000, RW)
    with pytest.raises(GuestFault) as read:
        space.read(0x10FF0, 0x20)
    assert read.value.address == 0x11000
    with pytest.raises(GuestFault) as write:
        space.write(0x10FF0, bytes(0x20))
    assert (write.value.address, write.value.access) == (0x11000, "write")


def test_protection_is_kept(space: AddressSpace) -> None:
    space.map(0x10000, 0x1000, PROT_READ)
    assert space.read(0x10000, 1) == b"\0"
    with pytest.raises(GuestFault):
        space.write(0x10000, b"x")
    space.protect(0x10000, 0x1000, RW)
    space.write(0x10000, b"x")
    with pytest.raises(OSError, match="not mapped") as error:
        space.protect(0x10000, 0x2000, RW)
    assert error.value.errno == errno.ENOMEM


def test_guest_code_is_never_executable_for_the_host(space: AddressSpace) -> None:
    space.map(0x10000, 0x1000, RW | PROT_EXEC)
    start = space.host(0x10000)
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(part, 16) for part in line.split()[0].split("-"))
        if low <= start < high:
            assert "x" not in line.split()[1]
            return
    pytest.fail("the mapping is not there")


def test_a_file_truncated_under_its_mapping_faults_and_does_not_crash(space: AddressSpace, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 8192)
    fd = os.open(path, os.O_RDWR)
    space.map(0x10000, 8192, PROT_READ, MAP_PRIVATE, fd, 0, str(path))
    os.ftruncate(fd, 0)
    os.close(fd)
    with pytest.raises(GuestFault):
        space.read(0x11000, 4)


def test_strings(space: AddressSpace) -> None:
    space.map(0x10000, 0x2000, RW)
    space.write(0x10FFD, b"hello\0")
    assert space.read_cstring(0x10FFD) == b"hello"
    space.write(0x10000, b"a" * 0x2000)
    with pytest.raises(OSError, match="too long"):
        space.read_cstring(0x10000, 100)
    with pytest.raises(GuestFault):
        space.read_cstring(0x11FF0)


def test_free_ranges(space: AddressSpace) -> None:
    space.map(0x20000, 0x1000, RW)
    assert space.find_free(0x1000, hint=0x30000) == 0x30000
    taken = space.find_free(0x1000, hint=0x20000, top=0x40000)
    assert taken == 0x3F000
    assert space.find_free(0x20000, top=0x31000) == 0
    assert space.find_free(1 << 46) == 0


@pytest.mark.parametrize("seed", range(8))
def test_mappings_equal_a_naive_model(space: AddressSpace, seed: int) -> None:
    chance = random.Random(seed)
    pages: dict[int, int] = {}
    for _ in range(300):
        start, count = chance.randrange(64), chance.randrange(1, 12)
        prot = chance.choice((0, PROT_READ, RW, PROT_READ | PROT_EXEC))
        span = range(start, start + count)
        what = chance.choice(("map", "map", "unmap", "protect"))
        address, length = start * PAGE_SIZE, count * PAGE_SIZE
        if what == "map":
            space.map(address, length, prot)
            pages.update(dict.fromkeys(span, prot))
        elif what == "unmap":
            space.unmap(address, length)
            for page in span:
                pages.pop(page, None)
        elif all(page in pages for page in span):
            space.protect(address, length, prot)
            pages.update(dict.fromkeys(span, prot))
        else:
            with pytest.raises(OSError, match="not mapped"):
                space.protect(address, length, prot)
        model = {
            page: prot
            for low, high, prot, _name, _offset in space.mappings()
            for page in range(low // PAGE_SIZE, high // PAGE_SIZE)
        }
        assert model == pages
    for page, prot in pages.items():
        if prot & PROT_READ:
            assert len(space.read(page * PAGE_SIZE, PAGE_SIZE)) == PAGE_SIZE
        elif not prot:
            with pytest.raises(GuestFault):
                space.read(page * PAGE_SIZE, 1)


def test_code_changes_are_announced_before_they_happen(space: AddressSpace) -> None:
    seen: list[tuple[int, int]] = []
    space.on_code_change = lambda start, end: seen.append((start, end))
    space.map(0x10000, 0x1000, RW)
    space.unmap(0x10000, 0x1000)
    assert not seen
    space.map(0x10000, 0x1000, PROT_READ | PROT_EXEC)
    space.protect(0x10000, 0x1000, RW)
    assert seen == [(0x10000, 0x11000)]


def test_opening_and_closing_leaves_nothing(space: AddressSpace) -> None:
    del space
    before = len(Path("/proc/self/maps").read_text().splitlines())
    for _ in range(200):
        again = AddressSpace()
        again.map(0x10000, 0x1000, RW)
        again.close()
    assert len(Path("/proc/self/maps").read_text().splitlines()) <= before + 2


def test_read_own_stops_at_a_bad_page() -> None:
    start = hostmem.map_anonymous(8192)
    hostmem.unmap_memory(start + 4096, 4096)
    assert len(hostmem.read_own(start, 8192)) == 4096
    assert hostmem.read_own(0, 8) == b""
    hostmem.unmap_memory(start, 4096)
