"""The board `pc`: QEMU's map, firmware's work on PCI, interrupts from ISA, PCI and messages to both controllers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from dbt.machine.ata import AtaDisk
from dbt.machine.block import Disk, open_image
from dbt.machine.boards import BoardMachine, Options, Plugged, load
from dbt.machine.command import plugged
from dbt.machine.devices.apic import LocalApic
from dbt.machine.devices.ich9_ahci import Ich9Ahci
from dbt.machine.errors import MapError
from dbt.machine.net.backend import MemoryNet
from dbt.machine.pci import PciFunction
from dbt.machine.power import PowerKind

from dbt.errors import UsageError
from tests.machine.pci import Config
from tests.machine.qtest import Bus, Ours, agree, qemu
from tests.machine.test_boards import theirs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Command

MIB, GIB = 1 << 20, 1 << 30
PC = ("qemu-system-x86_64", "-machine", "pc", "-nodefaults", "-serial", "null", "-serial", "null")
# Our names of what is on the board, and QEMU's of the same.
NAMES = {
    "pic0.WINDOW": "pic", "pic1.WINDOW": "pic", "pit.WINDOW": "pit", "pit.PORTB": "pcspk", "rtc": "rtc-index",
    "keyboard.DATA_PORT": "i8042-data", "keyboard.COMMAND_PORT": "i8042-cmd", "port92": "port92", "com1": "serial",
    "com2": "serial", "pic0.ELCR_WINDOW": "elcr", "pic1.ELCR_WINDOW": "elcr", "fw_cfg.IO": "fwcfg",
    "fw_cfg.IO_DMA": "fwcfg.dma", "pci-config.ADDRESS": "pci-conf-idx", "pci-config.DATA": "pci-conf-data",
    "pm.GPE0": "acpi-gpe0", "pm.APM": "apm-io", "bios": "pc.bios", "ioapic": "ioapic", "hpet": "hpet", "ram": "pc.ram",
    "option-roms": "pc.rom",
}  # fmt: skip


def build(ram: int = 64 * MIB, **more: object) -> BoardMachine:
    board = load("pc")
    return board.build(Options(ram=ram, **more))  # type: ignore[arg-type]


@pytest.mark.needs("qemu-system-x86_64")
@pytest.mark.parametrize("ram", [64 * MIB, 3583 * MIB, 4 * GIB])
def test_pc_has_qemus_addresses(ram: int) -> None:
    ranges = theirs((*PC, "-m", str(ram // MIB)))
    machine = build(ram)
    names = set()
    for section in (*machine.memory.view.sections, *machine.ports.view.sections):
        name = section.region.name
        if name in NAMES:
            same = [first for n, first, _ in ranges if n == NAMES[name]]
            assert section.start in same or name == "ram", (name, section)
            names.add(name)
    assert names == NAMES.keys()
    ours = {(s.start, s.end - 1) for s in machine.memory.view.sections if s.region.name == "ram" and s.start >= MIB}
    qemus = {(first, last) for name, first, last in ranges if name == "pc.ram" and first >= MIB}
    assert ours == qemus


@pytest.mark.needs("qemu-system-x86_64")
def test_firmwares_probe_agrees_with_qemu() -> None:
    """What a BIOS reads of the chip set: functions, sizes of memory, levels, the reset control."""

    def script(bus: Bus) -> None:
        config = Config(bus)
        for place, _ in config.scan():
            for offset in (0x00, 0x04, 0x08, 0x0C, 0x10, 0x20, 0x2C, 0x34, 0x3C):
                config.read(place, offset)
        for index in (0x15, 0x16, 0x17, 0x18, 0x30, 0x31, 0x34, 0x35, 0x5B, 0x5C, 0x5D, 0x5F):
            bus.out(0x70, index)
            bus.inp(0x71)
        for port in (0x4D0, 0x4D1, 0xCF9):
            bus.inp(port)
        bus.out(0x4D1, 0x0C)
        bus.inp(0x4D1)

    for ram in (64 * MIB, 4 * GIB):
        with qemu(*PC, "-m", str(ram // MIB)) as other:
            assert agree(script, build(ram), other) > 40


def test_firmware_places_everything() -> None:
    devices = (
        Plugged("pci_bridge", "near", slot=4), Plugged("pci_bridge", "far", slot=2, bus="near"),
        Plugged("virtio_rng", "a"), Plugged("virtio_rng", "b", bus="far", slot=7),
        Plugged("virtio_rng", "c", bus="near"),
    )  # fmt: skip
    for ram in (64 * MIB, 4 * GIB):
        machine = build(ram, devices=devices)
        machine.board.assign(machine)
        shown = [section.region.name for section in machine.memory.view.sections]
        for name in "abc":
            function = machine.devices[f"{name}.pci"]
            assert isinstance(function, PciFunction)
            assert all(base.at is not None for base in function.bars.values())
            assert f"{name}.pci.COMMON" in shown
            assert f"{name}.pci.msix-table" in shown
            assert function.dma.enabled
        config = Config(Ours(machine))
        assert [place for number in range(4) for place, _ in config.scan(number) if place[0]] == [
            (1, 0, 0), (1, 2, 0), (2, 7, 0),
        ]  # fmt: skip
        saved = json.loads(json.dumps(machine.save()))
        other = build(ram, devices=devices)
        other.restore(saved)
        assert [s.region.name for s in other.memory.view.sections] == shown
        assert other.save() == saved


def start_pics(machine: BoardMachine) -> None:
    for base, vector, cascade in ((0x20, 0x20, 4), (0xA0, 0x28, 2)):
        for offset, value in ((0, 0x11), (1, vector), (1, cascade), (1, 1), (1, 0)):
            machine.ports.write(base + offset, 1, value)


def test_interrupts_reach_both_controllers() -> None:
    machine = build(devices=(Plugged("virtio_rng", "rng", slot=3),))
    machine.board.assign(machine)
    start_pics(machine)
    ioapic, space = machine.devices["ioapic"], machine.spaces[0]
    apic = machine.devices["apic0"]
    assert isinstance(apic, LocalApic)
    write = machine.memory.write
    space.write(0xFEE0_00F0, 4, 0x1FF)  # on

    def redirect(pin: int, entry: int) -> None:
        for half in range(2):
            write(0xFEC0_0000, 4, 0x10 + 2 * pin + half)
            write(0xFEC0_0010, 4, entry >> 32 * half & 0xFFFFFFFF)

    redirect(11, 0x8000 | 0x51)  # a level
    redirect(4, 0x54)
    function = machine.devices["rng.pci"]
    assert isinstance(function, PciFunction)
    assert function.config.data[0x3C] == 11  # slot 3: PIRQC#
    function.intx.set(True)
    assert machine.ports.read(0x20, 1) == 0x04  # cascade
    assert apic.intr.level
    assert apic.acknowledge() == 0x51
    function.intx.set(False)
    space.write(0xFEE0_00B0, 4, 0)
    machine.ports.write(0x3F9, 1, 2)  # com1: the transmitter is empty
    machine.ports.write(0x3FC, 1, 8)
    assert apic.acknowledge() == 0x54
    space.write(0xFEE0_00B0, 4, 0)
    assert machine.msi.send(0xFEE0_0000, 0x61, 0x18)
    assert apic.acknowledge() == 0x61
    assert ioapic.name == "ioapic"


def test_the_timer_is_at_input_2_and_event_timers_take_its_place() -> None:
    machine = build()
    start_pics(machine)
    machine.ports.write(0x43, 1, 0x34)
    machine.ports.write(0x40, 1, 0x9C)
    machine.ports.write(0x40, 1, 0x2E)
    machine.advance(11_000_000)
    assert machine.ports.read(0x20, 1) & 1
    machine.ports.write(0x20, 1, 0x0B)
    machine.memory.write(0xFED0_0010, 8, 3)  # legacy replacement: the 8254 is cut off
    machine.ports.write(0x21, 1, 0xFF)
    machine.reset()
    start_pics(machine)
    machine.memory.write(0xFED0_0010, 8, 3)
    machine.memory.write(0xFED0_0108, 8, 1_000_000)  # 10 ms
    machine.memory.write(0xFED0_0100, 8, 4)
    machine.advance(9_000_000)
    assert not machine.ports.read(0x20, 1) & 1
    machine.advance(2_000_000)
    assert machine.ports.read(0x20, 1) & 1


def test_drives_disks_and_the_power() -> None:
    image = f"driver=raw,file.driver=memory,file.size={MIB}"
    disks = tuple(Disk(open_image(image, writable=True)) for _ in range(2))
    machine = build(disks=disks, cds=(None,))
    assert {"hd0", "hd1", "cd0"} <= machine.devices.keys()
    machine.board.assign(machine)
    machine.ports.write(0x1F6, 1, 0xA0)
    machine.ports.write(0x1F7, 1, 0xEC)
    machine.advance(1_000_000)
    assert machine.ports.read(0x1F7, 1) & 0x08
    machine.ports.write(0xCF9, 1, 6)
    request = machine.power.take()
    assert request is not None
    assert request.kind is PowerKind.RESET
    machine.ports.write(0x604, 2, 0x2000)
    request = machine.power.take()
    assert request is not None
    assert request.kind is PowerKind.OFF
    ahci = Plugged("ich9_ahci", "sata", arguments=lambda made: {"drives": [AtaDisk("sda", made, disks[0])]})
    controller = build(devices=(ahci,)).devices["sata"]
    assert isinstance(controller, Ich9Ahci)
    assert controller.ports[0].drive is not None
    with pytest.raises(UsageError, match="room for 4"):
        build(cds=(None,) * 5)
    for disk in disks:
        disk.close()


def test_network_cards_and_firmware() -> None:
    nets = (MemoryNet(), MemoryNet())
    machine = build(nets=nets, firmware=bytes(16) + b"reset vector    ")
    config = Config(Ours(machine))
    assert [place for place, found in config.scan() if found == 0x100E_8086] == [(0, 2, 0), (0, 3, 0)]
    assert machine.memory.read(0xFFFF_FFF0, 8) == int.from_bytes(b"reset ve", "little")
    assert machine.memory.read(0xF_FFF8, 8) == int.from_bytes(b"ctor    ", "little")
    arm = load("virt").build(Options(nets=(MemoryNet(),), firmware=b"\x01\x02"))
    assert (arm.memory.read(0, 4), arm.memory.read(0x0A00_3E08, 4)) == (0x0201, 1)
    for name in ("isapc", "pc", "virt"):
        with pytest.raises(UsageError, match="there is room for"):
            load(name).build(Options(firmware=bytes(65 * MIB)))
    with pytest.raises(UsageError, match="no network cards"):
        load("isapc").build(Options(nets=nets))


def test_what_cannot_be_plugged() -> None:
    for device, says in (
        (Plugged("virtio_rng", bus="nowhere"), "no PCI bridge"),
        (Plugged("pl011"), "pl011 cannot be plugged in\ncan be: e1000, "), (Plugged("toaster"), "no device 'toaster'"),
        (Plugged("pci_bridge", arguments={"colour": 1}), "colour"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=says):
            build(devices=(device,))
    with pytest.raises(UsageError, match="no PCI bus"):
        load("isapc").build(Options(devices=(Plugged("pci_bridge"),)))


def test_the_command_shows_pci(dragoman: Command, tmp_path: Path) -> None:
    words = ("machine", "pc", "--device", "pci_bridge,slot=5,name=br", "--device", "virtio_rng,bus=br")
    shown = dragoman(*words).stdout.decode()
    assert "  00:01.0  8086:7000 class 0601  piix3" in shown
    assert "01:00.0  1af4:1005" in shown
    assert "BAR 4 prefetchable    16 KiB  c0100000-c0103fff" in shown
    found = json.loads(dragoman(*words, "--json").stdout)
    assert [row["behind"] for row in found["pci"] if row["device"] == "VirtioPci"] == ["br"]
    files = ("--svg", f"{tmp_path}/pc.svg", "--dump-acpi", f"{tmp_path}/acpi")
    assert dragoman(*words, *files).stdout == b""
    text = (tmp_path / "pc.svg").read_text()
    assert text.startswith("<svg")
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert text.count("<rect") == text.count("<title>") + 4  # the picture itself has a title, too
    assert "br · PciBridge" in text
    assert (tmp_path / "acpi").read_text().startswith("RSD PTR  @ 0x")
    traced = dragoman(*words, "--trace", "ide.COMMAND").stdout.decode()
    assert traced == "ide: config COMMAND <- 0x0007 IO MEMORY MASTER\n"
    done = dragoman("machine", "isapc", "--dump-acpi", f"{tmp_path}/none")
    assert (done.returncode, b"no ACPI" in done.stderr) == (2, True)


def test_what_the_command_refuses() -> None:
    for text, says in (("rng,slot", "KEY=VALUE"), ("rng,slot=x", "is no number"), ("rng,slot=1.y", "is no number")):
        with pytest.raises(UsageError, match=says):
            plugged(text)
    assert plugged("rng,slot=0x1f.2,bus=b,name=n,queues=3") == Plugged("rng", "n", 31, 2, "b", {"queues": 3})
    for options, says in (
        (Options(gic=4), "no GIC of version 4"),
        (Options(devices=(Plugged("pl011", bus="mmio"),)), "no virtio device"),
        (Options(cds=(None,)), "no CD-ROM"),
        (Options(devices=(Plugged("virtio_rng", bus="mmio", slot=3),)), "no slots"),
        (Options(devices=(Plugged("virtio_console", arguments={"ports": 40}),)), "ports is not a number, but"),
        (Options(devices=(Plugged("e1000", arguments={"net": 1}),)), "net is not a number, but"),
    ):
        with pytest.raises(UsageError, match=says):
            load("virt").build(options)
    for arguments, says in (
        ({"queues": 0}, "0 queues"), ({"queues": 5000}, "5000 queues"), ({"queue_size": 7}, "queue of 7 entries"),
        ({"queue_size": 1 << 16}, "queue of 65536 entries"),
    ):  # fmt: skip
        with pytest.raises(MapError, match=says):
            load("virt").build(Options(devices=(Plugged("virtio_blk", arguments=arguments),)))
