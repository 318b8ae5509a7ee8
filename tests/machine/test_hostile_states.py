"""Saved states and drivers that were once too much: what random traffic found, or a reading of the devices."""

from __future__ import annotations

import json
import struct
from threading import Thread
from time import sleep
from typing import TYPE_CHECKING, Any

from dbt.machine.ata import AtaDisk, AtapiDrive
from dbt.machine.ata.atapi import RAW
from dbt.machine.ata.codes import Op
from dbt.machine.ata.drive import BUSY
from dbt.machine.block import FLUSH, Request
from dbt.machine.clock import SECOND
from dbt.machine.device import Device
from dbt.machine.devices.apic import LocalApic
from dbt.machine.devices.apic_bus import ApicBus
from dbt.machine.devices.cfi_flash import BUFFER_BITS, NEXT_CONFIRM, NEXT_WORDS, CfiFlash
from dbt.machine.devices.e1000 import E1000
from dbt.machine.devices.e1000_receive import NULLS
from dbt.machine.devices.fw_cfg import READ, SELECT, FwCfg
from dbt.machine.devices.gicv3 import GICv3
from dbt.machine.devices.gicv3_its import GICv3Its
from dbt.machine.devices.i8042 import I8042
from dbt.machine.devices.i8254 import I8254
from dbt.machine.devices.ide import IdeChannel
from dbt.machine.devices.virtio_blk import VirtioBlk
from dbt.machine.log import GUEST_ERROR
from dbt.machine.machine import Machine
from dbt.machine.memory import CPU0, RAM, Unassigned
from dbt.machine.virtio.mmio import VirtioMmio
from dbt.machine.virtio.pci import VirtioPci
from dbt.machine.virtio.spec import (
    ACKNOWLEDGE,
    DRIVER,
    DRIVER_OK,
    FEATURES_OK,
    INDIRECT,
    INDIRECT_DESC,
    NEXT,
    RING_PACKED,
    VERSION_1,
    WRITE,
)  # fmt: skip

from tests.machine.ata_machines import memory_disk
from tests.machine.pci import ECAM, RAM_AT, Config, Function, machine
from tests.machine.qtest import Ours
from tests.machine.virtio_echo import ALL, Echo

if TYPE_CHECKING:
    from pathlib import Path


def changed(device: Device, **values: Any) -> None:
    """Restore a device with such values in its saved state."""
    saved = json.loads(json.dumps(device.save()))
    saved["state"] |= values
    device.restore(saved)
    device.check(json.loads(json.dumps(device.save())))


def test_a_mouse_without_a_rate() -> None:
    host = Machine()
    mouse = I8042("keyboard", host).mouse
    changed(mouse, rate=0, enabled=1)
    mouse.move(1, 0, 0, 0)
    host.advance(SECOND)
    assert mouse.waiting()


def test_flash_blocks_are_within_it() -> None:
    host = Machine()
    flash = CfiFlash("flash", host, 1 << 20)
    host.place(flash, 0)
    host.reset()
    full = bytes(1 << BUFFER_BITS).hex()
    changed(flash, block=1 << 40, expects=NEXT_CONFIRM, command=0x20)
    host.memory.write(0, 1, 0xD0)
    changed(flash, start=(1 << 20) - 2, expects=NEXT_CONFIRM, command=0xE8, buffer=full, touched="01" * len(full[::2]))
    host.memory.write(0, 1, 0xD0)
    changed(flash, expects=NEXT_WORDS, words_left=0)
    host.memory.write(0, 4, 0)
    flash.check(flash.save())


def test_times_to_come() -> None:
    host = Machine()
    timer = I8254("pit", host)
    host.place(timer, 0, "ports", "WINDOW")
    host.place(timer, 0x61, "ports", "PORTB")
    changed(timer, started=[1 << 63] * 3, held=[0xFFFF_FFFF] * 3, loaded=[1] * 3, running=[0] * 3, mode=[0] * 3)
    host.ports.write(0x61, 1, 1)
    timer.check(timer.save())
    apic = LocalApic("apic", host, number=0, bus=ApicBus())
    changed(apic, count=0xFFFF_FFFF, counted=1 << 63)
    apic.write(0x3E0, 4, 0xB, apic.attributes)
    apic.check(apic.save())


def test_drives_with_impossible_geometry_and_replies() -> None:
    host = Machine()
    disk, disc = AtaDisk("hd", host, memory_disk()), AtapiDrive("cd", host, memory_disk())
    IdeChannel("ide", host, drives=(disk, disc))
    host.reset()
    changed(disk, heads=9, sectors=0, left=1, phase=3, command=int(Op.WRITE_SECTORS), buffer="00" * 65536, select=0xE0)
    assert len(disk.identity()) == 512
    for _ in range(32768):
        disk.write_data(2, 0)
    host.advance(0)
    disk.settle()
    disk.check(disk.save())
    changed(disc, kind=RAW, parts=0, phase=BUSY, command=int(Op.PACKET), packet="", length=1 << 40, sent=1 << 41)
    host.advance(0)
    disc.check(disc.save())


def test_a_queue_of_commands_that_never_ends() -> None:
    host = Machine()
    host.place(RAM("ram", 1 << 20), 0)
    its = GICv3Its("its", host, GICv3("gic", host))
    changed(its, GITS_CTLR=1, GITS_CBASER=1 << 63, GITS_CWRITER=0x20, GITS_CREADR=6)
    host.advance(0)
    assert its.GITS_CREADR == 0x20


class Card:
    """A virtio device on PCI."""

    def __init__(self) -> None:
        self.machine, bus = machine()
        self.device = Echo("echo", self.machine, rings=ALL)
        self.pci = VirtioPci("echo.pci", self.machine, self.device, bus=bus, slot=3)
        self.machine.reset()
        self.function = Function(Config(Ours(self.machine), ECAM), (0, 3, 0))


def test_a_ring_whose_kind_the_driver_has_changed_is_saved() -> None:
    card = Card()
    device, queue = card.device, card.device.queues[0]
    device.set_status(ACKNOWLEDGE | DRIVER)
    assert queue.enable()
    device.accept_word(1, RING_PACKED >> 32)
    saved = json.loads(json.dumps(card.machine.save()))
    other = Card()
    other.machine.restore(saved)
    assert json.loads(json.dumps(other.machine.save())) == saved


def test_configuration_access_to_bytes_of_the_msix_table() -> None:
    card = Card()
    card.function.place()
    card.machine.memory.unassigned = Unassigned.ERROR
    at = 0x84
    for offset, number, size in ((4, 1, 1), (8, 0, 4), (12, 1, 4)):  # BAR 1, offset 0, one byte
        card.function.write(at + offset, number, size)
    card.function.read(at + 16, 1)
    card.function.write(at + 16, 5, 1)
    assert card.machine.log.counts[GUEST_ERROR] == 2


def test_long_chains_count_for_more() -> None:
    host = Machine()
    ram = RAM("ram", 16 << 20)
    host.place(ram, 0)
    device = VirtioBlk("disk", host)
    VirtioMmio("transport", host, device=device)
    host.reset()
    view, table = ram.memory.view, 1 << 20
    for number in range(1024):
        descriptor = struct.pack("<QIHH", 0, 1, WRITE if number == 1023 else NEXT, number + 1)
        view[table + 16 * number : table + 16 * number + 16] = descriptor
    for number in range(256):
        view[16 * number : 16 * number + 16] = struct.pack("<QIHH", table, 16 << 10, INDIRECT, 0)
    view[0x4000 : 0x4000 + 516] = struct.pack("<258H", 0, 256, *range(256))
    device.set_status(ACKNOWLEDGE | DRIVER)
    device.accept_word(0, INDIRECT_DESC)
    device.accept_word(1, VERSION_1 >> 32)
    device.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK)
    queue = device.queues[0]
    queue.driver, queue.device = 0x4000, 0x8000
    assert queue.enable()
    device.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
    assert queue.save()["ring"]["next_avail"] == 1
    host.advance(0)
    assert queue.save()["ring"]["next_avail"] == 256


def test_a_ring_without_buffers() -> None:
    made, bus = machine()
    card = E1000("card", made, bus=bus, slot=3)
    made.reset()
    card.dma.enabled = True
    bank = card.banks["REGS"]
    for offset, number in ((0x2800, RAM_AT), (0x2808, 0x8_0000), (0x2818, 0x7FFF), (0x100, 0x8002)):
        bank.write(offset, 4, number, CPU0)
    assert card.receive(b"\xff" * 60)
    assert (card.RDH, card.MPC) == (NULLS + 1, 1)


class Hasty(Device):
    """A device whose disk gets a request when everybody believes that there is none."""

    def __init__(self, name: str, machine: Machine) -> None:
        super().__init__(name, machine)
        self.disk = memory_disk()

    def settle(self) -> None:
        def completed(request: Request) -> None:
            del request
            sleep(0.2)  # until who saves has got further
            with self.machine.lock:
                pass

        assert self.disk is not None
        self.disk.submit(Request(FLUSH, completion=completed))


def test_saving_waits_for_those_that_wait_for_the_lock(tmp_path: Path) -> None:
    host = Machine()
    Hasty("hasty", host)
    saving = Thread(target=lambda: host.save_file(str(tmp_path / "saved"), include_disks=True), daemon=True)
    saving.start()
    saving.join(20)
    assert not saving.is_alive()


def test_firmware_may_ask_for_more_than_there_is() -> None:
    host = Machine()
    ram = RAM("ram", 1 << 30)
    host.place(ram, 0)
    device = FwCfg("fw_cfg", host)
    host.place(device, 1 << 40, window="REGISTERS_WINDOW")
    host.reset()
    ram.memory.view[0x1000:0x1008] = b"\xff" * 8
    ram.memory.view[0:16] = b"".join(
        number.to_bytes(size, "big") for number, size in ((SELECT | READ, 4), ((1 << 30) - 0x1000, 4), (0x1000, 8))
    )
    host.memory.write((1 << 40) + 0x14, 4, 0)
    assert bytes(ram.memory.view[0x1000:0x1008]) == b"QEMU\0\0\0\0"
    assert sum(end - start for start, end in ram.memory.extents()) < 1 << 20
