"""Hard disks: what comparing with QEMU's does not show. Errors, large disks, TRIM, SMART, power, an ISA channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from dbt.machine.ata import AtaDisk, identify
from dbt.machine.block import DISCARD, FLUSH, READ, WRITE, Disk, create_image, open_image
from dbt.machine.devices.ide import IdeChannel
from dbt.machine.machine import PORTS, Machine
from dbt.machine.memory import RAM

from tests.machine.ata_driver import BLOCK, CONTROL, Ata
from tests.machine.ata_machines import DATA, DISK, MASTER, RAM_AT, FaultyDisk, memory_disk, ours, pc, start
from tests.machine.qtest import Ours

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
TABLE, AT = 0x10_0000, 0x10_1000


def isa(disk: Disk) -> tuple[Ata, AtaDisk, IdeChannel]:
    """A channel without a bus master."""
    machine = Machine()
    machine.system.place(RAM("ram", 1 << 20), RAM_AT)
    drive = AtaDisk("hd", machine, disk)
    channel = IdeChannel("ide", machine, drives=(drive,))
    machine.place(channel, BLOCK, PORTS, "BLOCK")
    machine.place(channel, CONTROL, PORTS, "CONTROL_BLOCK")
    machine.reset()
    ata = Ata(Ours(machine))
    ata.select(0)
    return ata, drive, channel


def dma() -> tuple[Ata, AtaDisk, FaultyDisk]:
    """The same with one."""
    machine, _, drive, _ = pc()
    assert isinstance(drive.disk, FaultyDisk)
    bus = ours(machine)
    start(bus)
    ata = Ata(bus, master=MASTER)
    ata.select(0)
    return ata, drive, drive.disk


def test_a_channel_without_a_bus_master() -> None:
    ata, drive, channel = isa(memory_disk())
    found = identify.parse(ata.pio_in(0xEC, 1))
    assert isinstance(found["capabilities"], int)
    assert (found["capabilities"] & 0x100, found["multiword DMA"], found["Ultra DMA"]) == (0, 0, 0)
    assert (found["serial number"], found["model number"]) == ("DM-hd", "DRAGOMAN HARDDISK")
    assert ata.command(0xC8) == 0x41
    assert ata.command(0xEF, feature=3, count=0x45) == 0x41  # no Ultra DMA
    assert ata.command(0xEF, feature=3, count=0x0C) == 0x50  # PIO 4
    assert ata.pio_in(0x20, 2, count=2, lba=3) == DATA[1536:2560]
    assert channel.drives == [drive, None]


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_beyond_128_gib(tmp_path: Path, form: str) -> None:
    """LBA48, with its registers written two deep, on a disk of 200 GiB of which nearly nothing exists."""
    path = tmp_path / "disk"
    create_image(str(path), form, 200 * GIB)
    with Disk(open_image(str(path), form, writable=True)) as disk:
        ata, _, _ = isa(disk)
        found = identify.parse(ata.pio_in(0xEC, 1))
        assert (found["LBA28 sectors"], found["LBA48 sectors"]) == ((1 << 28) - 1, 200 * GIB // 512)
        far = (150 * GIB) // 512 + 5
        assert ata.pio_out(0x34, DATA[:2048], count=4, lba=far, ext=True) == 0x50
        assert ata.pio_in(0x24, 4, count=4, lba=far, ext=True) == DATA[:2048]
        assert ata.pio_in(0x20, 1, lba=far & 0xFFF_FFFF) == bytes(512)  # the same in 28 bits is elsewhere
        assert ata.command(0x24, lba=200 * GIB // 512, ext=True) == 0x41
        assert ata.registers()[0] == 0x10
        ata.command(0x27, ext=True)
        low = ata.registers()[2:5]
        ata.bus.out(CONTROL, 0x80)
        high = ata.registers()[2:5]
        ata.bus.out(CONTROL, 0)
        assert int.from_bytes(bytes(low + high), "little") == 200 * GIB // 512 - 1
        assert ata.command(0xEA) == 0x50
    with Disk(open_image(str(path), form)) as disk:
        assert disk.read(far * 512, 2048) == DATA[:2048]


def test_bad_sectors() -> None:
    """The good sectors before a bad one arrive, and the registers name it."""
    disk = memory_disk()
    ata, _, _ = isa(disk)
    disk.bad = frozenset({(READ, 12), (WRITE, 30)})
    ata.command(0xC6, count=8)
    assert ata.pio_in(0xC4, 4, length=4096, count=32) == DATA[:4096]  # the second block has it
    assert ata.registers()[:6] == [0x40, 20, 12, 0, 0, 0xE0]
    assert ata.command(0x40, count=100) == 0x41
    assert ata.registers()[:3] == [0x40, 88, 12]
    assert ata.pio_out(0x30, DATA[:4096], count=8, lba=27) & 0x21 == 0x21  # a device fault
    assert ata.registers()[:3] == [0x04, 5, 30]
    disk.bad = frozenset()
    assert ata.pio_in(0x20, 3, count=3, lba=27) == DATA[:1536]


def test_failed_flushes_and_disks_for_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = memory_disk(writable=False)
    ata, _, _ = isa(disk)
    assert ata.pio_out(0x30, bytes(512)) == 0x41
    assert ata.registers()[0] == 0x44  # aborted, write-protected
    assert ata.command(0xE7) == 0x50

    def fail() -> None:
        raise OSError(5, "")

    monkeypatch.setattr(disk.node, "flush", fail)
    assert ata.command(0xE7) == 0x61
    assert FLUSH == 2


def test_writes_through_when_the_cache_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = memory_disk()
    flushed: list[int] = []
    monkeypatch.setattr(disk.node, "flush", lambda: flushed.append(1))
    ata, _, _ = isa(disk)
    ata.pio_out(0x30, bytes(512), lba=8000)
    assert not flushed
    assert ata.command(0xEF, feature=0x82) == 0x50  # which flushes what is in the cache
    ata.pio_out(0x30, bytes(512), lba=8000)
    assert len(flushed) == 2
    found = identify.parse(ata.pio_in(0xEC, 1))
    assert isinstance(found["features enabled"], int)
    assert not found["features enabled"] & 1 << 5
    ata.command(0xEF, feature=0x02)
    ata.pio_out(0xCE, bytes(512), length=512, lba=8000, ext=True)  # forced unit access
    assert len(flushed) == 3


def test_trim() -> None:
    ata, _, disk = dma()
    ranges = ((8, 4), (100, 0), (1000, 16))
    ata.bus.store(
        AT, b"".join((start | count << 48).to_bytes(8, "little") for start, count in ranges).ljust(512, b"\0")
    )
    assert ata.dma(0x06, TABLE, [(AT, 512)], to_memory=False, feature=1, count=1, ext=True) == 4
    assert ata.registers()[6] == 0x50
    assert disk.read(0, 512 * 1020) == b"".join((
        DATA[:4096], bytes(2048), DATA[6144 : 512 * 1000], bytes(8192), DATA[512 * 1016 : 512 * 1020],
    ))  # fmt: skip
    ata.bus.store(AT, ((DISK // 512) | 1 << 48).to_bytes(8, "little"))
    assert ata.dma(0x06, TABLE, [(AT, 512)], to_memory=False, feature=1, count=1, ext=True) == 4
    assert ata.registers()[0] == 0x14
    assert ata.command(0x06, feature=1, count=2, ext=True) == 0x41
    disk.bad = frozenset({(DISCARD, 9)})  # a hint that cannot be followed is none
    ata.bus.store(AT, (8 | 4 << 48).to_bytes(8, "little").ljust(512, b"\0"))
    assert ata.dma(0x06, TABLE, [(AT, 512)], to_memory=False, feature=1, count=1, ext=True) == 4
    assert ata.registers()[6] == 0x50


def test_smart() -> None:
    ata, _, _ = isa(memory_disk())
    key = 0xC24F00

    def smart(feature: int, **more: int) -> int:
        return ata.command(0xB0, feature=feature, lba=key | more.pop("low", 0), **more)

    assert smart(0xDA) == 0x50
    assert ata.registers()[3:5] == [0x4F, 0xC2]  # nothing is wrong
    assert ata.command(0xB0, feature=0xDA, lba=0) == 0x41
    data = ata.pio_in(0xB0, 1, feature=0xD0, lba=key)
    limits = ata.pio_in(0xB0, 1, feature=0xD1, lba=key)
    assert sum(data) & 255 == sum(limits) & 255 == 0
    assert data[2::12][:7] == limits[2::12][:7] == bytes((1, 3, 4, 5, 9, 12, 190))
    assert all(value > limit for value, limit in zip(data[5::12][:7], limits[3::12][:7], strict=True))
    for log, first in ((0, 1), (1, 1), (6, 1)):
        assert ata.pio_in(0xB0, 1, feature=0xD5, count=1, lba=key | log)[0] == first
    assert smart(0xD5, low=0x33) == 0x41
    assert smart(0xD4, low=1) == 0x50
    assert smart(0xD2, count=0xF1) == 0x50
    assert smart(0xD9) == 0x50  # off
    assert smart(0xDA) == 0x41
    assert smart(0xD8) == 0x50
    assert smart(0xDA) == 0x50


def test_power() -> None:
    ata, _, _ = isa(memory_disk())

    def mode() -> int:
        ata.command(0xE5)
        return ata.bus.inp(BLOCK + 2)

    assert mode() == 0xFF
    ata.command(0xE0)
    assert mode() == 0x00
    ata.pio_in(0x20, 1)  # which wakes it
    assert mode() == 0xFF
    ata.command(0xE6)
    ata.put(count=1)
    ata.bus.out(BLOCK + 7, 0x20)
    assert ata.wait() == 0x50  # asleep: no data
    ata.bus.out(CONTROL, 4)
    ata.bus.out(CONTROL, 0)
    assert ata.wait() == 0x50
    assert ata.pio_in(0x20, 1) == DATA[:512]


def test_a_chs_translation() -> None:
    ata, _, _ = isa(memory_disk())
    ata.device = 0
    ata.bus.out(BLOCK + 2, 32)
    ata.bus.out(BLOCK + 6, 0xA0 | 7)
    ata.bus.out(BLOCK + 7, 0x91)  # 8 heads, 32 sectors
    assert ata.wait() == 0x50
    found = identify.parse(ata.pio_in(0xEC, 1))
    assert (found["current heads"], found["current sectors per track"], found["current cylinders"]) == (8, 32, 64)
    ata.bus.out(BLOCK + 2, 2)
    for register, value in ((3, 32), (4, 3), (5, 0), (6, 0xA0 | 7)):  # the last sector of cylinder 3
        ata.bus.out(BLOCK + register, value)
    ata.bus.out(BLOCK + 7, 0x20)
    assert ata.wait() == 0x58
    assert ata.take(512) == DATA[512 * (4 * 256 - 1) : 512 * 4 * 256]
    assert ata.wait() == 0x58
    ata.take(512)
    assert ata.registers()[2:6] == [2, 4, 0, 0xA0]
    ata.bus.out(BLOCK + 3, 0)  # there is no sector 0
    ata.bus.out(BLOCK + 7, 0x20)
    assert ata.wait() == 0x41
    assert ata.registers()[0] == 0x10


def test_logs() -> None:
    ata, _, _ = isa(memory_disk())
    directory = ata.pio_in(0x2F, 1, count=1, ext=True)
    assert (directory[0], directory[2 * 0x10]) == (1, 1)
    log = ata.pio_in(0x2F, 1, count=1, lba=0x10, ext=True)
    assert (log[0], sum(log) & 255) == (0x80, 0)  # no queued command has failed
    assert ata.command(0x2F, count=1, lba=0x22, ext=True) == 0x41
