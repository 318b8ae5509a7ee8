"""The board `pc` with drivers of its chip set, also on QEMU's; keys, address line 20; snapshots of full boards."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from dbt.machine.block import Disk, create_image, open_image
from dbt.machine.boards import BoardMachine, Options, Plugged, load
from dbt.machine.input import Input
from dbt.machine.net.backend import MemoryNet

from tests.machine.devices import test_hpet, test_i8042, test_ioapic, test_piix4_pm
from tests.machine.i8042 import KEY_A
from tests.machine.qtest import Bus, Ours, agree, qemu
from tests.machine.test_pc import PC, build
from tests.machine.test_snapshot import MIB, contents, traffic


@pytest.mark.needs("qemu-system-x86_64")
def test_drivers_of_the_chip_set_agree_with_qemu() -> None:
    def script(bus: Bus) -> None:
        test_ioapic.play(5, 30, bus, {0x3F8: 4, 0x2F8: 3})
        test_hpet.play(5, 30, bus)
        test_i8042.play(5, 60, bus)
        test_piix4_pm.play(5, bus)

    with qemu(*PC) as theirs:
        assert agree(script, build(), theirs) > 4000


def test_keys_are_interrupts_and_line_20_is_let_through_by_either() -> None:
    user = Input()
    machine = build(user=user)
    bus = Ours(machine)
    for base, vector, cascade in ((0x20, 0x20, 4), (0xA0, 0x28, 2)):
        for offset, value in ((0, 0x11), (1, vector), (1, cascade), (1, 1), (1, 0)):
            bus.out(base + offset, value)
    bus.out(0x64, 0x60)
    bus.out(0x60, 0x43)
    user.key(KEY_A, True)
    bus.out(0x20, 0x0A)
    assert (bus.inp(0x20) & 2, bus.inp(0x60)) == (2, 0x1E)
    levels = [machine.a20.level]
    for port, value in ((0x64, 0xDD), (0x92, 2), (0x92, 0)):
        bus.out(port, value)
        levels.append(machine.a20.level)
    assert levels == [True, False, True, False]


KINDS = ("virtio_rng", "virtio_blk", "e1000", "virtio_net", "virtio_console", "ich9_ahci", "pci_bridge")


def full(name: str, seed: int, folder: Path) -> tuple[BoardMachine, list[Disk]]:
    """A board with a device of each kind, in any state."""
    disks = []
    for number in range(2):
        path = folder / f"{seed}-{number}.qcow2"
        create_image(str(path), "qcow2", 4 * MIB)
        disks.append(Disk(open_image(str(path), "qcow2", writable=True)))
    devices = [
        Plugged(kind, kind, arguments={"disk": disks[1]} if kind == "virtio_blk" else {}) for kind in KINDS
    ]  # fmt: skip
    options = Options(ram=4 * MIB, cpus=2, epoch=seed, disks=(disks[0],), nets=(MemoryNet(),), devices=tuple(devices))
    machine = load(name).build(options)
    machine.board.assign(machine)
    traffic(machine, Random(seed), 4000)
    return machine, disks


@pytest.mark.parametrize("name", ["pc", "virt"])
def test_boards_with_everything_come_back(name: str, tmp_path: Path) -> None:
    machine, disks = full(name, 1, tmp_path)
    other, more = full(name, 2, tmp_path)
    saved = json.loads(json.dumps(machine.save()))
    other.restore(saved)
    assert other.save() == saved
    path = str(tmp_path / "snapshot")
    machine.save_file(path)
    state, bytes_ = machine.save(), contents(machine)
    traffic(machine, Random(3), 500)
    machine.restore_file(path)
    assert (machine.save(), contents(machine)) == (state, bytes_)
    for disk in (*disks, *more):
        disk.close()
