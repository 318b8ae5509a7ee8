"""Accesses through an address space: sizes, order, splitting, holes, attributes, read-only memory, overlays."""

from __future__ import annotations

import threading
from pathlib import Path
from random import Random

import pytest
from dbt.machine.errors import BusError, MapError
from dbt.machine.log import GUEST_ERROR, UNASSIGNED, Log
from dbt.machine.memory import (
    CPU0,
    DECODE_ERROR,
    DEVICE_ERROR,
    MMIO,
    OK,
    RAM,
    ROM,
    AccessSizes,
    AddressSpace,
    Alias,
    Attributes,
    Container,
    DirtyTracker,
    ROMDevice,
    Transaction,
    Unassigned,
    load,
    load_file,
    overlay,
)


class Bytes:
    """A device of 64 bytes that notes its accesses; numbers are in `order`."""

    def __init__(self, order: str = "little") -> None:
        self.data = bytearray(range(64))
        self.order = order
        self.calls: list[tuple[str, int, int]] = []
        self.attributes: list[Attributes] = []

    def read(self, offset: int, size: int, attributes: Attributes) -> int:
        self.calls.append(("read", offset, size))
        self.attributes.append(attributes)
        return int.from_bytes(self.data[offset : offset + size], self.order)  # type: ignore[arg-type]

    def write(self, offset: int, size: int, value: int, attributes: Attributes) -> None:
        self.calls.append(("write", offset, size))
        self.attributes.append(attributes)
        self.data[offset : offset + size] = value.to_bytes(size, self.order)  # type: ignore[arg-type]


def build(sizes: AccessSizes, unassigned: Unassigned = Unassigned.ERROR) -> tuple[AddressSpace, Bytes]:
    device = Bytes(sizes.order)
    root = Container("root", 1 << 16)
    root.place(MMIO("device", 64, device, sizes), 0x100)
    root.place(RAM("ram", 0x100), 0)
    return AddressSpace("space", root, bits=16, unassigned=unassigned, log=Log()), device


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize(
    ("implemented", "unaligned"),
    [(sizes, False) for sizes in ((1, 8), (1, 1), (1, 4), (2, 2), (4, 4), (2, 8), (8, 8))]
    + [(sizes, True) for sizes in ((1, 8), (1, 1), (1, 4))],
)
def test_every_access_reads_and_writes_the_bytes_at_its_place(
    implemented: tuple[int, int], unaligned: bool, order: str
) -> None:
    random = Random(1)
    space, device = build(AccessSizes((1, 8), implemented, unaligned, order))
    for size in (1, 2, 4, 8):
        for offset in range(0, 64 - size + 1, 1 if unaligned else size):
            device.calls.clear()
            expected = int.from_bytes(device.data[offset : offset + size], "little")
            assert space.read(0x100 + offset, size) == expected
            for _, at, count in device.calls:
                assert implemented[0] <= count <= implemented[1]
                assert at % count == 0
            assert len(device.calls) <= max(2, size)
            value = random.getrandbits(8 * size)
            before = bytes(device.data)
            space.write(0x100 + offset, size, value)
            assert device.data[offset : offset + size] == value.to_bytes(size, "little")
            for at in set(range(64)) - set(range(offset, offset + size)):
                wide = at // implemented[0] == offset // implemented[0]
                assert device.data[at] == before[at] or (wide and device.data[at] == 0)


def test_a_wide_access_is_split_in_order_and_a_narrow_read_is_widened() -> None:
    space, device = build(AccessSizes((1, 8), (2, 4)))
    space.write(0x108, 8, 0x1122334455667788)
    space.read(0x10B, 1)
    assert device.calls == [("write", 8, 4), ("write", 12, 4), ("read", 10, 2)]


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, 2), (0, 8), (2, 4), (1, 4)])
def test_what_a_device_does_not_take_is_refused_and_logged(offset: int, size: int) -> None:
    space, device = build(AccessSizes((4, 4), (4, 4)))
    with pytest.raises(BusError, match=f"at {0x100 + offset:#x}"):
        space.read(0x100 + offset, size)
    with pytest.raises(BusError):
        space.write(0x100 + offset, size, 0)
    assert not device.calls
    assert space.log.counts[GUEST_ERROR] == 2


@pytest.mark.parametrize(
    ("unassigned", "value"), [(Unassigned.ONES, 0xFFFFFFFF), (Unassigned.ZEROES, 0), (Unassigned.ERROR, None)]
)
def test_nobody_answers_as_the_bus_wants(unassigned: Unassigned, value: int | None) -> None:
    space, _ = build(AccessSizes((4, 4)), unassigned)
    for address, size in ((0x4000, 4), (0xFFFC, 4), (0x10000, 4), (1 << 60, 4), (0x102, 4)):
        if value is None:
            with pytest.raises(BusError):
                space.read(address, size)
            with pytest.raises(BusError):
                space.write(address, size, 1)
        else:
            assert space.read(address, size) == value
            space.write(address, size, 1)
    assert space.log.counts[UNASSIGNED] == 8


def test_an_access_over_borders_is_made_of_pieces() -> None:
    space, device = build(AccessSizes((1, 8), (1, 4)), Unassigned.ONES)
    space.write(0xFC, 4, 0x44332211)
    assert space.read(0xFD, 8) == 0x0403020100443322
    assert device.calls == [("read", 0, 4), ("read", 4, 1)]
    assert space.read(0x13E, 4) == 0xFFFF3F3E  # the end of the device, then nothing
    space.write(0x13E, 4, 0xAABBCCDD)
    assert device.data[62:] == b"\xdd\xcc"


@pytest.mark.parametrize(("address", "size"), [(0, 3), (0, 0), (0, 16), (-1, 4)])
def test_impossible_accesses_are_the_callers_mistake(address: int, size: int) -> None:
    space, _ = build(AccessSizes())
    with pytest.raises(ValueError, match="access"):
        space.read(address, size)
    with pytest.raises(ValueError, match="access"):
        space.write(address, size, 0)


def test_transactions_never_raise() -> None:
    space, device = build(AccessSizes((4, 4)))
    secure = Attributes(cpu=3, privileged=False, secure=True)
    read = Transaction(0x104, 4, write=False, attributes=secure)
    space.perform(read)
    assert (read.result, read.data) == (OK, 0x07060504)
    space.perform(Transaction(0x104, 4, write=True, data=1, attributes=secure))
    assert device.data[4:8] == b"\1\0\0\0"
    assert device.attributes == [secure, secure]
    for address, result in ((0x101, DEVICE_ERROR), (0x8000, DECODE_ERROR)):
        wrong = Transaction(address, 4, write=False, data=5)
        space.perform(wrong)
        assert (wrong.result, wrong.data) == (result, 0)


def test_rom_and_read_only_aliases_drop_writes() -> None:
    root = Container("root", 1 << 16)
    ram, device = RAM("ram", 0x100), Bytes()
    root.place(ROM("rom", 0x100), 0)
    root.place(ram, 0x100)
    root.place(Alias("shadow", ram, 0x10, 0x10, readonly=True), 0x200)
    mmio = MMIO("device", 64, device)
    root.place(mmio, 0x300)
    root.place(Alias("seen", mmio, readonly=True), 0x400)
    space = AddressSpace("space", root, bits=16)
    load(space, 0, bytes(range(16)))
    space.write(0, 4, 0xFFFFFFFF)
    assert space.read(0, 4) == 0x03020100
    space.write(0x110, 4, 0x12345678)
    space.write(0x200, 4, 0)
    assert space.read(0x200, 4) == 0x12345678
    space.write(0x400, 4, 0)
    assert space.read(0x400, 4) == 0x03020100
    assert space.log.counts[GUEST_ERROR] == 3
    with pytest.raises(MapError, match="nothing is there at 0x210"):
        load(space, 0x1F8, bytes(0x20))
    with pytest.raises(MapError, match="device is not memory"):
        load(space, 0x300, b"1")


def test_a_rom_device_reads_directly_or_calls() -> None:
    device = Bytes()
    flash = ROMDevice("flash", 64, device)
    space = AddressSpace("space", flash, bits=16)
    load(space, 0, b"\xaa" * 64)
    assert space.read(8, 4) == 0xAAAAAAAA
    assert not device.calls
    space.write(8, 4, 0x90)
    assert device.calls == [("write", 8, 4)]
    flash.direct = False
    assert space.read(8, 4) == 0x90
    with pytest.raises(BusError):
        space.peek(0, 4)
    flash.direct = True
    assert space.read(8, 4) == 0xAAAAAAAA
    assert space.peek(60, 4) == b"\xaa" * 4


def test_files_are_loaded_within_their_limit(tmp_path: Path) -> None:
    path = f"{tmp_path}/image"
    with open(path, "wb") as file:
        file.write(b"firmware")
    space = AddressSpace("space", ROM("rom", 0x100), bits=16)
    assert load_file(space, 8, path, 8) == 8
    assert space.peek(8, 8) == b"firmware"
    with pytest.raises(Exception, match="8 bytes, and 7 fit"):
        load_file(space, 8, path, 7)
    with pytest.raises(Exception, match="no such file"):
        load_file(space, 8, path + "2", 7)


def test_each_cpu_has_its_own_bank_over_the_system() -> None:
    root = Container("root", 1 << 16)
    ram = RAM("ram", 0x1000)
    root.place(ram, 0)
    system = AddressSpace("system", root, bits=16)
    banks = [Bytes(), Bytes()]
    cpus = [overlay(f"cpu{n}", system, [(0x100, MMIO(f"bank{n}", 64, bank))]) for n, bank in enumerate(banks)]
    cpus[0].write(0x100, 1, 0x55)
    cpus[1].write(0x200, 1, 0x66)
    assert (banks[0].data[0], banks[1].data[0], system.read(0x100, 1)) == (0x55, 0, 0)
    assert [space.read(0x200, 1) for space in (*cpus, system)] == [0x66] * 3
    root.place(RAM("more", 0x1000), 0x1000)  # what changes in the system changes for all
    cpus[0].write(0x1800, 1, 7)
    assert cpus[1].read(0x1800, 1) == 7
    assert cpus[0].lock is system.lock


def test_a_device_is_entered_by_one_at_a_time_and_not_from_within() -> None:
    class Nested(Bytes):
        inside = 0

        def write(self, offset: int, size: int, value: int, attributes: Attributes) -> None:
            self.inside += 1
            assert self.inside == 1
            if offset == 8:
                space.write(0, 4, value)
            super().write(offset, size, value, attributes)
            self.inside -= 1

    device = Nested()
    space = AddressSpace("space", MMIO("device", 64, device), bits=16)
    with pytest.raises(BusError, match="within an access already"):
        space.write(8, 4, 1)
    device.inside = 0

    def work() -> None:
        for _ in range(2000):
            space.write(0, 4, 1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert device.calls.count(("write", 0, 4)) == 6000


def test_dirty_pages_are_those_written_since() -> None:
    ram = RAM("ram", 10 * 4096 + 5)
    space = AddressSpace("space", ram, bits=32)
    trackers = [DirtyTracker(ram.memory), DirtyTracker(ram.memory)]
    space.write(4095, 2, 0xFFFF)
    space.write(9 * 4096, 8, 1)
    assert trackers[0].collect() == [(0, 8192), (9 * 4096, 4096)]
    assert trackers[0].collect() == []
    space.write(10 * 4096 + 4, 1, 1)
    assert trackers[0].collect() == [(10 * 4096, 5)]
    assert trackers[1].collect() == [(0, 8192), (9 * 4096, 4096 + 5)]
    trackers[1].close()
    space.write(0, 1, 1)
    assert trackers[1].collect() == []
    assert trackers[0].collect() == [(0, 4096)]


def test_memory_is_shared_with_whoever_maps_it() -> None:
    import ctypes
    import mmap

    ram = RAM("ram", 8192)
    space = AddressSpace("space", ram, bits=32)
    with mmap.mmap(ram.memory.fd, 8192) as other:
        space.write(100, 4, 0xCAFE)
        assert other[100:104] == b"\xfe\xca\0\0"
        other[200] = 9
        assert space.read(200, 1) == 9
    ctypes.memset(ram.memory.address() + 300, 0x5A, 2)
    assert space.read(300, 2) == 0x5A5A
    ram.memory.close()


def test_impossible_declarations_say_why() -> None:
    with pytest.raises(MapError, match="the smaller one first"):
        AccessSizes((4, 2))
    with pytest.raises(MapError, match="sizes are 1, 2, 4 and 8"):
        AccessSizes((1, 3))
    with pytest.raises(MapError, match="byte order"):
        AccessSizes(order="middle")
    with pytest.raises(MapError, match="split into bytes"):
        AccessSizes((1, 4), (4, 4), unaligned=True)
    with pytest.raises(MapError, match="no multiple"):
        MMIO("odd", 6, Bytes(), AccessSizes((4, 4), (4, 4)))
    with pytest.raises(MapError, match="size 0x0"):
        Container("none", 0)
    with pytest.raises(MapError, match="host gives no"):
        RAM("huge", 1 << 62)
    assert CPU0.requester == "cpu"
