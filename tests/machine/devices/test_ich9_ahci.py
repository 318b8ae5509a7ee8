"""AHCI: NCQ, errors and recovery, messages, resets, saved states, random traffic."""

from __future__ import annotations

import json
import struct
from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.machine.ata import identify
from dbt.machine.block import READ, Disk
from dbt.machine.devices.ich9_ahci import Ich9Ahci
from dbt.machine.memory import RAM, DmaPort
from dbt.machine.pci import PciBus

from tests.machine import pci
from tests.machine.ahci_driver import CI, CMD, FB, GHC, HBA_IS, IS, SACT, SERR, SIG, SSTS, TFD, TFES, Ahci
from tests.machine.ahci_machine import ABAR, ALL, AT, build, start
from tests.machine.ata_driver import settle
from tests.machine.ata_machines import DATA, DISK, FaultyDisk, cd_rom, drained, hard_disk, memory_disk, ours
from tests.machine.fuzzing import fuzz

if TYPE_CHECKING:
    from dbt.machine.device import Device
    from dbt.machine.machine import Machine


def ready() -> tuple[Machine, Ich9Ahci, FaultyDisk, Ahci]:
    machine, ahci, disk = build()
    return machine, ahci, disk, start(ours(machine))


def test_identify_and_signatures() -> None:
    _, _, _, driver = ready()
    assert driver.run(0xEC, [(AT, 512)]) == 0x50
    found = identify.parse(driver.bus.load(AT, 512))
    assert (found["queue depth"], found["SATA capabilities"], found["LBA48 sectors"]) == (31, 0x102, DISK // 512)
    assert sum(driver.bus.load(AT, 512)) & 255 == 0
    disc = start(driver.bus, 1)
    assert (driver.read(SIG), disc.read(SIG), disc.read(SSTS)) == (0x101, 0xEB140101, 0x113)
    assert disc.run(0xEC, [(AT, 512)]) == 0x441
    disc.recover()
    assert disc.run(0xA1, [(AT, 512)]) == 0x50
    assert identify.parse(driver.bus.load(AT, 512))["general configuration"] == 0x85C0
    empty = Ahci(driver.bus, ABAR, 3)
    assert (empty.read(SIG), empty.read(TFD), empty.read(SSTS)) == (ALL, 0x7F, 0)


def test_a_full_queue() -> None:
    """32 commands at once, reads and writes; the disk answers from its threads, in any order."""
    _, _, disk, driver = ready()
    bus = driver.bus
    news = Random(5).randbytes(16 * 4096)
    bus.store(AT, news)
    for slot in range(16):
        driver.put(slot, 0x61, [(AT + 4096 * slot, 4096)], feature=8, count=slot << 3, lba=1000 + 8 * slot, write=True)
        lba = 8 * (37 * slot % 101)
        driver.put(16 + slot, 0x60, [(AT + 0x2_0000 + 4096 * slot, 4096)], feature=8, count=16 + slot << 3, lba=lba)
    driver.write(SACT, ALL)
    driver.write(CI, ALL)
    settle(bus, lambda: bool(driver.read(CI) | driver.read(SACT)))
    assert (driver.read(IS), driver.read(TFD)) == (0x8, 0x50)
    disk.drain()
    assert disk.read(512_000, 65536) == news
    for slot in range(16):
        at = 4096 * (37 * slot % 101)
        assert bus.load(AT + 0x2_0000 + 4096 * slot, 4096) == DATA[at : at + 4096]


def test_a_queued_command_fails_and_the_driver_recovers() -> None:
    _, _, disk, driver = ready()
    bus = driver.bus
    disk.bad = frozenset({(READ, 105)})
    for slot in range(3):
        driver.put(slot, 0x60, [(AT + 4096 * slot, 4096)], feature=8, count=slot << 3, lba=100 * slot)
    driver.write(SACT, 7)
    driver.write(CI, 7)
    settle(bus, lambda: not driver.read(IS) & TFES)
    assert (driver.read(SACT), driver.read(TFD)) == (2, 0x4041)
    assert bus.load(AT + 4096, 5 * 512) == DATA[51200 : 51200 + 5 * 512]
    driver.recover()
    assert (driver.read(SACT), driver.read(CI)) == (0, 0)
    driver.put(0, 0x60, [(AT, 4096)], feature=8)
    driver.go(1, queued=True)
    assert driver.read(TFD) == 0x441  # nothing but reading the log now
    driver.recover()
    assert driver.run(0x2F, [(AT, 512)], lba=0x10, count=1) == 0x50
    log = bus.load(AT, 512)
    assert (log[0], log[2], log[3], log[4], sum(log) & 255) == (1, 0x41, 0x40, 105, 0)
    driver.put(0, 0x60, [(AT, 4096)], feature=8, lba=200)
    driver.go(1, queued=True)
    assert (driver.read(TFD), bus.load(AT, 4096)) == (0x50, DATA[102400 : 102400 + 4096])


def test_errors_stop_the_port() -> None:
    _, _, disk, driver = ready()
    bus = driver.bus
    assert driver.run(0x25, [(AT, 512)], count=1, lba=1 << 30) == 0x1041
    driver.put(1, 0xEA)
    driver.write(CI, 2)
    assert driver.read(CI) == 3  # the one that failed, and one that waits
    driver.recover()
    assert driver.run(0xEA, slot=1) == 0x50
    for pieces, cause in (([(AT, 512)], 1 << 24), ([(0x9000_0000, 1024)], 1 << 29), ([(ABAR, 1024)], 1 << 29)):
        driver.put(0, 0x25, pieces, count=2)
        driver.write(CI, 1)
        assert driver.read(IS) & 0xFF00_0000 == cause
        assert driver.read(TFD) & 0x80
        driver.reset()
    disk.bad = frozenset({(READ, 3)})
    assert driver.run(0x25, [(AT, 4096)], count=8) == 0x4041
    assert bus.load(AT, 1536) == DATA[:1536]
    assert int.from_bytes(bus.load(driver.list + 4, 4), "little") == 1536
    driver.recover()
    driver.write(FB, 0)  # where no memory is
    driver.write(FB + 4, 1)
    driver.put(0, 0xEA)
    driver.write(CI, 1)
    settle(bus, lambda: bool(driver.read(CI)))
    assert driver.read(IS) & 1 << 29


def test_messages_and_the_pin() -> None:
    machine, ahci, _, driver = ready()
    driver.put(0, 0xEA)
    driver.go()
    settle(driver.bus, lambda: not ahci.intx.level)
    driver.write(IS, ALL)
    assert ahci.intx.level
    driver.bus.write(ABAR + HBA_IS, ALL)
    assert not pci_level(ahci)
    messages = pci.Messages()
    machine.msi.add(0xFEE0_0000, 0x10_0000, messages)
    pci.Function(pci.Config(driver.bus), (0, 4, 0)).enable_msi(0xFEE0_1000, 0x41)
    for expected in (1, 2):
        driver.run(0x25, [(AT, 512)], count=1)
        assert [(offset, data) for offset, data, _ in messages.seen] == [(0x1000, 0x41)] * expected
    assert not pci_level(ahci)


def pci_level(ahci: Ich9Ahci) -> bool:
    return ahci.intx.level


def test_software_resets_while_requests_are_in_flight() -> None:
    _, _, disk, driver = ready()
    with disk.drained():
        driver.put(0, 0x60, [(AT, 4096)], feature=8)
        driver.put(1, 0x60, [(AT + 4096, 4096)], feature=8, count=1 << 3)
        driver.write(SACT, 3)
        driver.write(CI, 3)
        driver.write(CMD, driver.read(CMD) & ~1)
        assert driver.read(CMD) & 0x8000  # CR stays: the host's memory is still in use
        assert driver.read(SACT) == 0
        driver.write(0x2C, 0x301)
        driver.write(0x2C, 0x300)
        assert driver.read(TFD) & 0x80
        driver.bus.write(ABAR + GHC, 1)
        assert driver.bus.read(ABAR + GHC) & 1
    settle(driver.bus, lambda: bool(driver.bus.read(ABAR + GHC) & 1))
    driver = start(driver.bus)
    assert driver.run(0x25, [(AT, 512)], count=1, lba=9) == 0x50
    assert driver.bus.load(AT, 512) == DATA[9 * 512 : 10 * 512]


@pytest.mark.parametrize("queued", [False, True])
def test_saved_between_steps(queued: bool) -> None:
    """More descriptors than a step takes: the rest waits for timers, and all begins again in a restored machine."""
    machine, _, _, driver = ready()
    other, _, _ = build()
    pieces = [(AT + 0x200 * n, 0x100) for n in range(600)]
    driver.put(3, 0x60 if queued else 0x25, pieces, feature=300, count=3 << 3 if queued else 300, lba=11)
    if queued:
        driver.write(SACT, 8)
    driver.write(CI, 8)
    assert (driver.read(SACT), driver.read(CI)) == ((8, 0) if queued else (0, 8))
    saved = json.loads(json.dumps(machine.save()))
    other.restore(saved)
    copy = Ahci(ours(other), ABAR)
    copy.bus.store(driver.list, driver.bus.load(driver.list, 0x8000))
    settle(copy.bus, lambda: bool(copy.read(SACT) | copy.read(CI)))
    assert copy.read(TFD) == 0x50
    assert b"".join(copy.bus.load(*piece) for piece in pieces) == DATA[11 * 512 : 311 * 512]


def test_discs() -> None:
    machine, _, _, _ = ready()
    disc = start(ours(machine), 1)
    assert disc.run(0xA0, packet=bytes(12)) == 0x6041  # unit attention
    disc.recover()
    packet = struct.pack(">BBIBHxxx", 0x28, 0, 17, 0, 200)
    pieces = [(AT + 0x1100 * n, 0x1000) for n in range(100)]
    disc.put(0, 0xA0, pieces[:50], packet=packet, feature=1)
    disc.write(CI, 1)
    assert disc.read(IS) & 1 << 24  # too little memory
    disc.reset()
    disc.run(0xA0, packet=bytes(12))
    disc.recover()
    pieces = [(AT + 0x2000 * n, 0x2000) for n in range(50)]
    assert disc.run(0xA0, pieces, packet=packet, feature=1) == 0x50
    assert disc.bus.load(AT, 50 * 0x2000) == DATA[17 * 2048 : 217 * 2048]


def test_random_traffic() -> None:
    """Any register; command lists and tables of anything in memory."""
    disks: list[Disk] = []
    base = 0x7F00_0000

    def made(machine: Machine) -> Device:
        bus = PciBus("pci", machine)
        machine.system.place(RAM("ram", 1 << 20), base)
        disk, disc = memory_disk(1 << 20), memory_disk(1 << 20, writable=False)
        disks.extend((disk, disc))
        return Ich9Ahci("ahci", machine, bus=bus, slot=1, drives=(hard_disk(machine, disk), cd_rom(machine, disc)))

    def also(device: Device, random: Random) -> None:
        assert isinstance(device, Ich9Ahci)
        memory = DmaPort("test", device.machine.memory)
        if random.randrange(50) == 0:
            pci.poke(device, random)
        device.config_write(4, 2, 7)
        port = random.randrange(2)
        bank, who = device.banks["ABAR"], device.attributes
        at = 0x100 + 0x80 * port
        for register, value in ((0x00, base), (0x04, 0), (0x08, base + 0x400), (0x0C, 0)):
            bank.write(at + register, 4, value, who)
        slot = random.randrange(32)
        opcodes = (0x60, 0x61, 0x60, 0x25, 0x35, 0x24, 0x34, 0xEC, 0xEA, 0x06, 0x2F, 0xA0, random.getrandbits(8))
        opcode = random.choice(opcodes) if port == 0 else random.choice((0xA0, 0xA0, 0xA1, 0xEC))
        count = random.choice((0, 1, 8, slot << 3))
        frame = bytes((0x27, random.choice((0x80, 0x80, 0x80, 0, 1)), opcode, random.choice((1, 8, 0)))) + bytes((
            random.getrandbits(8), random.choice((0, 0, 255)), 0, 0x40, 0, 0, 0, random.choice((0, 0, 1)),
            count & 255, 0, 0, random.choice((0, 4)),
        ))  # fmt: skip
        packet = bytes(
            (random.choice((0x28, 0x12, 0x43, 0xBE, 0x5A, random.getrandbits(8))), 0, 0, 0, 0, 1, 0, 0, 2, 16)
        )
        places = (base + 0x8000, base + 0x8000, base + 0x9000, base + 0xF_FF00, random.getrandbits(33))
        lengths = (511, 1, 0x1FFF, random.getrandbits(32))
        rows = b"".join(struct.pack("<QII", random.choice(places), 0, random.choice(lengths)) for _ in range(6))
        table = base + 0x1000 + 0x100 * random.randrange(64)
        memory.dma_write(table, frame.ljust(64, b"\0") + packet.ljust(64, b"\0") + rows)
        flags = random.choice((5, 5, 5, 1, 0x45, 0x425, random.getrandbits(16)))
        where = random.choice((table, table, table, random.getrandbits(40)))
        memory.dma_write(base + 32 * slot, struct.pack("<HHIQ", flags, random.choice((0, 6, 6, 0xFFFF)), 0, where))
        bank.write(at + CMD, 4, random.choice((0x11, 0x11, 0x11, 0x10, 0x19)), who)
        bank.write(at + SACT, 4, 1 << slot, who)
        bank.write(at + CI, 4, 1 << slot, who)
        device.machine.advance(0)
        if random.randrange(3) == 0:
            bank.write(at + CMD, 4, 0, who)
            if random.randrange(2):
                bank.write(at + 0x2C, 4, 1, who)
                bank.write(at + 0x2C, 4, 0, who)
            bank.write(at + SERR, 4, ALL, who)

    fuzz(made, 2922, also=also, settle=lambda machine: drained(machine, *disks))
