"""PIIX3's IDE: decoding, interrupts, bus master errors, saved states, resets, hostile traffic."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.machine.ata import mmc
from dbt.machine.block import READ, Disk
from dbt.machine.devices.piix3_ide import Piix3Ide
from dbt.machine.devices.piix4_ide import Piix4Ide
from dbt.machine.memory import RAM, DmaPort
from dbt.machine.pci import PciBus

from tests.machine import pci
from tests.machine.ata_driver import BLOCK, CONTROL, PRD, SECOND, Ata, reset
from tests.machine.ata_machines import AT, DATA, MASTER, TABLE, cd_rom, drained, hard_disk, memory_disk, ours, pc, start
from tests.machine.fuzzing import fuzz

if TYPE_CHECKING:
    from dbt.machine.device import Device
    from dbt.machine.machine import Machine


def test_ports_are_decoded_when_software_says_so() -> None:
    machine, _, _, _ = pc()
    bus = ours(machine)
    assert bus.inp(BLOCK + 7) == 0xFF
    function = start(bus)
    assert bus.inp(BLOCK + 7) == 0x50
    function.write(0x42, 0, 2)
    assert (bus.inp(BLOCK + 7), bus.inp(SECOND[0] + 7)) == (0x50, 0xFF)
    function.enable(io=False)
    assert bus.inp(BLOCK + 7) == 0xFF
    assert function.read(8) == 0x0101_8000 | function.read(8, 1)


def test_interrupts() -> None:
    machine, ide, _, _ = pc()
    bus = ours(machine)
    start(bus)

    def up() -> bool:
        return ide.channels[0].irq.level

    ata = Ata(bus, master=MASTER)
    ata.command(0x20, count=2)
    assert up()
    bus.inp(CONTROL)
    assert up()
    assert ata.status() == 0x58
    assert not up()
    bus.out(CONTROL, 2)  # nIEN
    ata.take(512)
    assert ata.wait() == 0x58
    assert not up()
    bus.out(CONTROL, 0)
    assert up()
    assert bus.inp(MASTER + 2) & 4
    ata.take(512)  # the status has not been read, so the interrupt stays
    assert up()
    bus.out(CONTROL, 4)
    assert (bus.inp(CONTROL), up()) == (0x80, False)
    bus.out(CONTROL, 0)
    assert ata.wait() == 0x50


def test_dma_errors() -> None:
    machine, ide, disk, _ = pc()
    bus = ours(machine)
    start(bus)
    ata = Ata(bus, master=MASTER)
    # No memory there: the bus master's error bit, and the drive gives up.
    assert ata.dma(0xC8, TABLE, [(0x8000_0000, 0x1000)], to_memory=True, count=8) == 0x06
    assert ata.registers()[0] == 0x04
    # A table outside memory.
    bus.out(MASTER + 4, 0x8000_0000, 4)
    ata.put(count=1)
    bus.out(BLOCK + 7, 0xC8)
    assert ata.run_dma(to_memory=True) == 0x06
    # A bad sector: what precedes it arrives, the registers name it.
    assert isinstance(disk.disk, type(memory_disk()))
    disk.disk.bad = frozenset({(READ, 13)})
    assert ata.dma(0xC8, TABLE, [(AT, 0x2000)], to_memory=True, count=16, lba=3) & 6 == 4
    assert ata.registers()[:3] == [0x40, 6, 13]
    assert bus.load(AT, 10 * 512) == DATA[3 * 512 : 13 * 512]
    # A bus master that may not.
    disk.disk.bad = frozenset()
    pci.Function(pci.Config(bus), (0, 1, 1)).enable(memory=False, master=False)
    assert ata.dma(0xC8, TABLE, [(AT, 0x1000)], to_memory=True, count=8) == 0x06
    assert not ide.channels[0].irq.level


@pytest.mark.parametrize("again", [False, True])
def test_an_error_after_the_bus_master_was_stopped(again: bool) -> None:
    """The piece that failed is tried again in parts, from the table that is there by then."""
    machine, _, disk, _ = pc()
    bus = ours(machine)
    start(bus)
    ata = Ata(bus, master=MASTER)
    assert isinstance(disk.disk, type(memory_disk()))
    with disk.disk.drained():
        ata.table(TABLE, [(AT, 0x400)])
        bus.out(MASTER, 9)
        ata.put(count=2, lba=20)
        bus.out(BLOCK + 7, 0xC8)
        disk.disk.bad = frozenset({(READ, 21)})
        bus.out(MASTER, 0)
        if again:
            bus.out(MASTER, 9)
    if not again:
        disk.disk.drain()
        bus.out(MASTER, 9)
    assert ata.wait() == 0x41
    assert ata.registers()[:3] == [0x40, 1, 21]
    assert bus.load(AT, 512) == DATA[20 * 512 : 21 * 512]


def test_dma_of_many_pieces_goes_on_in_steps() -> None:
    """More descriptors than one step takes, the largest transfer of LBA28 by words, and one that starts late."""
    machine, _, _, _ = pc()
    bus = ours(machine)
    start(bus)
    ata = Ata(bus, master=MASTER)
    pieces = [(0x12_0000 + 0x30 * n, 0x20) for n in range(4096)]
    assert ata.dma(0xC8, TABLE, pieces, to_memory=True, count=0, lba=5) == 0x04
    data = b"".join(bus.load(address, length) for address, length in pieces)
    assert data == DATA[5 * 512 : 5 * 512 + 0x20000]
    ata.table(TABLE, [(AT, 0x400)])
    bus.out(MASTER, 9)  # started before the drive asks
    ata.put(count=2, lba=9)
    bus.out(BLOCK + 7, 0xC8)
    assert ata.wait() == 0x50
    assert bus.load(AT, 0x400) == DATA[9 * 512 : 11 * 512]


def test_saved_in_the_middle() -> None:
    """PIO in and out go on word for word; DMA that is between two steps starts again."""
    machine, _, _, _ = pc()
    bus = ours(machine)
    start(bus)
    ata = Ata(bus, master=MASTER)
    ata.command(0x20, count=2, lba=4)
    first = ata.take(100)
    other, _, _, _ = pc()
    again = Ata(ours(other), master=MASTER)
    other.restore(json.loads(json.dumps(machine.save())))
    assert first + again.take(412) == DATA[2048:2560]
    assert again.wait() == 0x58
    assert again.take(512) == DATA[2560:3072]
    reset(bus, CONTROL)
    ata.command(0x30, count=2, lba=400)
    ata.push(DATA[:512])
    assert ata.wait() == 0x58
    ata.push(DATA[512:600])
    other.restore(json.loads(json.dumps(machine.save())))
    again.push(DATA[600:1024])
    assert again.wait() == 0x50
    assert again.pio_in(0x20, 1, lba=401) == DATA[512:1024]
    reset(bus, CONTROL)
    pieces = [(0x12_0000 + 0x30 * n, 0x20) for n in range(4096)]
    ata.table(TABLE, pieces)
    bus.out(MASTER, 9)
    ata.put(count=0, lba=5)
    bus.out(BLOCK + 7, 0xC8)
    assert bus.inp(CONTROL) & 0x80
    saved = json.loads(json.dumps(machine.save()))
    again.bus.store(TABLE, bus.load(TABLE, 8 * len(pieces)))
    other.restore(saved)
    assert again.wait() == 0x50
    assert b"".join(again.bus.load(*piece) for piece in pieces) == DATA[5 * 512 : 5 * 512 + 0x20000]
    assert again.bus.inp(MASTER + 2) == 4


def test_a_reset_waits_for_what_is_in_flight() -> None:
    machine, _, disk, _ = pc()
    bus = ours(machine)
    start(bus)
    ata = Ata(bus, master=MASTER)
    assert disk.disk is not None
    with disk.disk.drained():
        ata.table(TABLE, [(AT, 0x400)])
        bus.out(MASTER, 9)
        ata.put(count=2, lba=20)
        bus.out(BLOCK + 7, 0xC8)
        bus.out(CONTROL, 4)
        bus.out(CONTROL, 0)
        assert bus.inp(CONTROL) == 0x80
    assert ata.wait() == 0x50
    assert ata.registers() == [1, 1, 1, 0, 0, 0xA0, 0x50]
    assert ata.pio_in(0x20, 1, lba=20) == DATA[20 * 512 : 21 * 512]


def test_piix4() -> None:
    """The same with registers for Ultra DMA, whose reserved bits stay clear."""
    machine, bus = pci.machine()
    Piix4Ide("ide", machine, bus=bus, slot=1, function=1, drives=(hard_disk(machine, memory_disk()),))
    machine.reset()
    function = start(ours(machine))
    function.write(0x40, 0xFFFF_FFFF)
    function.write(0x44, 0xFFFF_FFFF)
    function.write(0x48, 0xFFFF_FFFF)
    assert [function.read(offset) for offset in (0, 0x40, 0x44, 0x48)] == [0x7111_8086, 0xF3FF_F3FF, 0xFF, 0x3333_000F]
    assert Ata(ours(machine)).pio_in(0x20, 1, lba=4) == DATA[2048:2560]


OPCODES = (0x20, 0x24, 0x25, 0x30, 0x34, 0x35, 0x39, 0x42, 0xC4, 0xC5, 0xC8, 0xCA, 0xEC, 0xC6, 0x06, 0xB0, 0xE7, 0xEF)
FUZZ_RAM = 0x7F00_0000


def provoke(device: Device, random: Random) -> None:
    """A command with any registers, any packet, any table; then mostly what brings it to an end."""
    assert isinstance(device, Piix3Ide)
    ports = device.machine.ports
    if random.randrange(50) == 0:
        pci.poke(device, random)
    device.config_write(4, 2, 5)
    device.config_write(0x40, 4, 0x8000_8000)
    number = random.randrange(2)
    block, control = ((BLOCK, CONTROL), SECOND)[number]
    for register in (1, 2, 3, 4, 5, 6):
        if random.randrange(2):
            choice = random.choice((0, 0, 1, 8, random.getrandbits(8)))
            ports.write(block + register, 1, choice | (0xE0 if register == 6 else 0))
    opcode = random.choice(OPCODES) if number == 0 else 0xA0
    ports.write(block + 7, 1, random.getrandbits(8) if random.randrange(10) == 0 else opcode)
    if number == 1:
        for word in (
            random.choice(tuple(mmc.COMMANDS)),
            0,
            random.randrange(4),
            0,
            random.choice((0, 1, 0x1000)),
            0x10,
        ):
            ports.write(block, 2, word)
    table = b"".join(
        PRD.pack(
            random.choice((FUZZ_RAM, FUZZ_RAM + 0xF_FF00, random.getrandbits(32))) + random.randrange(64),
            random.choice((0, 2, 512, 0x1000)) | random.choice((0, 0, 1 << 31)),
        )
        for _ in range(8)
    )
    base = FUZZ_RAM + random.randrange((1 << 20) - 64) // 8 * 8
    DmaPort("test", device.machine.memory).dma_write(base, table)
    ports.write(MASTER + 8 * number, 1, 0)
    device.BMIDTPX[number] = base
    device.banks["BMIDE"].write(8 * number, 1, random.choice((1, 9, 9, 0)), device.attributes)
    size = random.choice((2, 4))
    for _ in range(random.choice((0, 10, 300))):
        if not ports.read(control, 1) & 8:
            break
        if random.randrange(2):
            ports.read(block, size)
        else:
            ports.write(block, size, 0)
    device.machine.advance(0)
    if random.randrange(4) == 0:
        ports.write(control, 1, 4)
        ports.write(control, 1, 0)


@pytest.mark.parametrize("kind", [Piix3Ide, Piix4Ide])
def test_random_traffic(kind: type[Piix3Ide]) -> None:
    """Any register, tables of any content, packets; disks answer from their threads meanwhile."""
    disks: list[Disk] = []

    def build(machine: Machine) -> Device:
        bus = PciBus("pci", machine)
        machine.system.place(RAM("ram", 1 << 20), FUZZ_RAM)
        machine.io.place(bus.io, 0)
        disk, disc = memory_disk(1 << 20), memory_disk(1 << 20, writable=False)
        disks.extend((disk, disc))
        drives = (hard_disk(machine, disk), None, cd_rom(machine, disc))
        return kind("ide", machine, bus=bus, slot=1, drives=drives)

    fuzz(build, 7010, also=provoke, settle=lambda machine: drained(machine, *disks))
