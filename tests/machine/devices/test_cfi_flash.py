"""Drivers for flash with the Intel command set, on our device and on QEMU's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dbt.machine.block import Disk, open_image
from dbt.machine.devices.cfi_flash import CfiFlash
from dbt.machine.errors import MapError
from dbt.machine.log import GUEST_ERROR
from dbt.machine.machine import Machine
from dbt.machine.memory import Memory

from tests.machine.fuzzing import fuzz
from tests.machine.qtest import ARM, Bus, agree, qemu

if TYPE_CHECKING:
    from dbt.machine.device import Device

BASE, SIZE, BLOCK = 0x0400_0000, 0x0400_0000, 0x40000
READY = 0x0080_0080


def build() -> tuple[Machine, CfiFlash]:
    machine = Machine()
    flash = CfiFlash("flash", machine, SIZE)
    machine.place(flash, BASE)
    machine.reset()
    return machine, flash


def both(command: int) -> int:
    return command | command << 16


def script(bus: Bus) -> None:
    def look(*offsets: int) -> None:
        for offset in offsets:
            bus.read(BASE + offset)

    look(0, 4, BLOCK)
    bus.write(BASE, both(0x90))
    look(0, 4, 8, 0x400)
    for size in (1, 2):
        bus.read(BASE, size)
    bus.write(BASE + 0x154, both(0x98))
    look(*range(0, 4 * 0x40, 4))
    bus.write(BASE, both(0xFF))
    for block in (0, 3 * BLOCK):
        bus.write(BASE + block, both(0x20))
        look(block)
        bus.write(BASE + block, both(0xD0))
        look(block)
        bus.write(BASE, both(0xFF))
        look(block, block + 4, block + BLOCK - 4, block + BLOCK)
    for offset, value in ((0, 0x11223344), (4, 0xFFFF0000), (3 * BLOCK + 8, 0x5555AAAA)):
        bus.write(BASE + offset, both(0x40))
        bus.write(BASE + offset, value)
        look(offset)
        bus.write(BASE, both(0x70))
        look(0)
        bus.write(BASE, both(0xFF))
        look(offset)
    bus.write(BASE + 0x100, both(0xE8))
    look(0x100)
    bus.write(BASE + 0x100, both(7))
    for offset in range(0x100, 0x120, 4):
        bus.write(BASE + offset, offset * 0x01010101)
    bus.write(BASE + 0x100, both(0xD0))
    look(0x100)
    bus.write(BASE, both(0xFF))
    look(*range(0xF8, 0x130, 4))
    bus.write(BASE, both(0x60))
    bus.write(BASE, both(0xD0))
    look(0)
    bus.write(BASE, both(0x50))
    look(0)


@pytest.mark.needs("qemu-system-aarch64")
def test_it_agrees_with_qemu() -> None:
    with qemu(*ARM, "-nodefaults") as theirs:
        assert agree(script, build()[0], theirs) > 100


def test_programming_clears_bits_and_erasing_takes_both_cycles() -> None:
    machine, flash = build()
    bus = machine.memory
    bus.write(BASE, 4, both(0x20))
    assert flash.flash.memory.view[0] == 0
    bus.write(BASE, 4, both(0x12))  # no confirmation
    assert bus.read(BASE, 4) == 0x00B0_00B0
    assert flash.flash.memory.view[0] == 0
    for command in (0x50, 0x20, 0xD0):
        bus.write(BASE, 4, both(command))
    assert bus.read(BASE, 4) == READY
    for value in (0xFFFF00FF, 0x0FFFFFFF):
        bus.write(BASE, 4, both(0x40))
        bus.write(BASE, 4, value)
    bus.write(BASE, 4, both(0xFF))
    assert (bus.read(BASE, 4), bus.read(BASE + 4, 4)) == (0x0FFF00FF, 0xFFFFFFFF)


def test_buffers_end_where_they_end() -> None:
    machine, flash = build()
    bus = machine.memory
    bus.write(BASE, 4, both(0xE8))
    bus.write(BASE, 4, both(0x200))
    assert bus.read(BASE, 4) == 0x00B0_00B0
    assert machine.log.counts[GUEST_ERROR] == 1
    for value in (0x50, 0x20, 0xD0, 0xE8, 1):
        bus.write(BASE, 4, both(value))
    bus.write(BASE, 4, 0x1234)
    bus.write(BASE + BLOCK, 4, 0x5678)  # another block
    bus.write(BASE, 4, both(0xD0))
    assert bus.read(BASE, 4) == 0x0090_0090
    bus.write(BASE, 4, both(0xFF))
    assert bus.read(BASE, 4) == 0x1234
    assert bus.read(BASE + BLOCK, 4) == 0
    flash.reset()
    assert bus.read(BASE, 4) == 0x1234


def banked(disk: Disk, size: int = 4 * BLOCK) -> tuple[Machine, CfiFlash]:
    machine = Machine()
    flash = CfiFlash("flash", machine, size)
    machine.place(flash, BASE)
    machine.reset()
    flash.attach(disk)
    return machine, flash


def test_what_is_programmed_is_in_the_file(tmp_path: Path) -> None:
    path, snapshot = tmp_path / "flash.img", str(tmp_path / "s")
    path.write_bytes(bytes(2 * BLOCK) + b"\xff" * 2 * BLOCK)
    with Disk(open_image(str(path), "raw", writable=True)) as disk:
        machine, flash = banked(disk)
        bus = machine.memory
        assert (bus.read(BASE, 4), bus.read(BASE + 2 * BLOCK, 4)) == (0, 0xFFFF_FFFF)
        for offset, value in ((2 * BLOCK, 0x1122_3344), (4 * BLOCK - 4, 0x5566_7788)):
            bus.write(BASE + offset, 4, both(0x40))
            bus.write(BASE + offset, 4, value)
        for command in (0x20, 0xD0, 0xFF):
            bus.write(BASE + BLOCK, 4, both(command))
        machine.save_file(snapshot)  # which settles
        assert not flash._dirty
        data = path.read_bytes()
        assert (data[BLOCK : BLOCK + 4], data[2 * BLOCK : 2 * BLOCK + 4]) == (b"\xff" * 4, b"\x44\x33\x22\x11")
        assert data[-4:] == b"\x88\x77\x66\x55"
        for command in (0x20, 0xD0, 0xFF):
            bus.write(BASE + 2 * BLOCK, 4, both(command))
        machine.restore_file(snapshot)
        with machine.settled():
            assert path.read_bytes() == data
    with Disk(open_image(str(path), "raw", writable=False)) as disk:
        machine, _ = banked(disk, 8 * BLOCK)
        bus = machine.memory
        for commands in ((0x20, 0xD0), (0x40, 0)):
            for command in commands:
                bus.write(BASE + BLOCK, 4, both(command))
            assert bus.read(BASE, 4) & READY == READY
            assert bus.read(BASE, 4) & both(0x30) == both(0x30)
            bus.write(BASE, 4, both(0x50))
        assert (bus.read(BASE + BLOCK, 4), bus.read(BASE + 5 * BLOCK, 4)) == (0xFFFF_FFFF, 0)
        assert machine.log.counts[GUEST_ERROR] == 2
        with pytest.raises(MapError, match="flash of"):
            banked(disk, BLOCK)
    with Disk(open_image(str(path), "raw", writable=True)) as disk:
        with pytest.raises(MapError, match="flash of"):
            banked(disk, 8 * BLOCK)
        machine, flash = banked(disk)
        disk.node.writable = False  # the host's disk is full, or so
        flash.flash.memory.written(0, 5)
        assert (flash._dirty, flash.status & 0x30, flash.busy) == ({0}, 0x30, False)
        disk.node.writable = True


def test_geometries_that_cannot_be() -> None:
    with pytest.raises(MapError, match="in blocks of"):
        CfiFlash("odd", Machine(), 0x50000)


def test_random_traffic() -> None:
    memory = Memory("flash", BLOCK)

    def make(machine: Machine) -> Device:
        return CfiFlash("flash", machine, BLOCK, block=0x1000, memory=memory)

    fuzz(make, 18)
