"""Boards: the same map as QEMU's for what exists, all drivers on one board, the command."""

from __future__ import annotations

import json
import re
import struct
import subprocess
from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.machine.block import Disk, open_image
from dbt.machine.boards import BOARDS, BoardMachine, Options, Plugged, load
from dbt.machine.chardev import MemoryChar
from dbt.machine.memory import OK, Attributes, DirtyTracker, Transaction

from dbt.errors import UsageError
from tests.machine.devices import test_cfi_flash, test_gicv2, test_i8254, test_ns16550, test_pl011, test_pl031
from tests.machine.qtest import ARM, Bus, Ours, agree, qemu

if TYPE_CHECKING:
    from pathlib import Path

    from dbt.machine.machine import Machine

    from tests.conftest import Command

MIB = 1 << 20
EPOCH = 1_577_836_800
# Our names of what is on the board, and QEMU's of the same.
VIRT = {
    "flash0": "virt.flash0", "flash1": "virt.flash1", "gic.GICC": "gic_cpu", "uart": "pl011", "rtc": "pl031",
    "gpio": "pl061", "ram": "mach-virt.ram", "v2m": "gicv2m", "pcie.ecam": "pcie-mmcfg-mmio",
    "pcie.window0.abort": "gpex_mmio_window", "pcie.window1.abort": "gpex_mmio_window",
    "pcie.ports.abort": "gpex_ioport_window", "gic": "gicv3_dist", "gic.GICD": "gic_dist",
}  # fmt: skip
VIRT_STARTS = {"its": "control", "gic.redistributor0": "gicv3_redist_region"}
GICV2_ONLY, GICV3_ONLY = {"gic.GICC", "gic.GICD", "v2m"}, {"gic", "its", "gic.redistributor0"}
ISAPC = {
    "keyboard.DATA_PORT": "i8042-data", "keyboard.COMMAND_PORT": "i8042-cmd", "port92": "port92",
    "pic0.WINDOW": "pic", "pic0.ELCR_WINDOW": "elcr", "pit.WINDOW": "pit", "pit.PORTB": "pcspk", "rtc": "rtc-index",
    "com1": "serial", "fw_cfg.IO": "fwcfg", "fw_cfg.IO_DMA": "fwcfg.dma", "bios": "pc.bios", "ram": "pc.ram",
}  # fmt: skip


def build(name: str, ram: int = 128 * MIB) -> Machine:
    return load(name).build(Options(ram=ram, epoch=EPOCH, consoles=(MemoryChar(),)))


def theirs(command: tuple[str, ...]) -> set[tuple[str, int, int]]:
    """(name, first, last) of all flat ranges, by QEMU's monitor."""
    words = [*command, "-display", "none", "-S", "-monitor", "stdio"]
    done = subprocess.run(words, input="info mtree -f\nquit\n", capture_output=True, text=True, check=True, timeout=60)
    found = re.findall(r"^ +([0-9a-f]{16})-([0-9a-f]{16}) \(prio .*?\): ([\w.-]+)", done.stdout, re.MULTILINE)
    return {(name, int(first, 16), int(last, 16)) for first, last, name in found}


@pytest.mark.needs("qemu-system-aarch64")
@pytest.mark.parametrize("gic", [2, 3])
def test_virt_has_qemus_addresses(gic: int) -> None:
    machine = f"virt,gic-version={gic}"
    command = ("qemu-system-aarch64", "-machine", machine, "-cpu", "cortex-a57", "-nodefaults", "-m", "128")
    ranges = theirs((*command, "-serial", "null"))
    names = set()
    for section in load("virt").build(Options(gic=gic)).memory.view.sections:
        name = section.region.name
        if name.startswith("virtio"):
            assert ("virtio-mmio", section.start, section.end - 1) in ranges
        elif name in VIRT:
            assert (VIRT[name], section.start, section.end - 1) in ranges
        elif name in VIRT_STARTS:  # QEMU has the same room in one piece, or more of it
            assert any(n == VIRT_STARTS[name] and first == section.start for n, first, _ in ranges), name
        else:
            continue
        names.add(name)
    every = {*VIRT, *VIRT_STARTS, *(f"virtio{n}" for n in range(32))}
    assert names == every - (GICV3_ONLY if gic == 2 else GICV2_ONLY)


@pytest.mark.needs("qemu-system-x86_64")
def test_isapc_has_qemus_addresses() -> None:
    command = ("qemu-system-x86_64", "-machine", "isapc", "-cpu", "486", "-nodefaults", "-m", "64")
    ranges = theirs((*command, "-serial", "null", "-serial", "null"))
    machine = build("isapc", 64 * MIB)
    names = set()
    for section in (*machine.memory.view.sections, *machine.ports.view.sections):
        if section.region.name in ISAPC and section.start:
            name = ISAPC[section.region.name]
            assert any(n == name and first == section.start for n, first, _ in ranges), (name, section)
            names.add(name)
    assert len(names) == len(set(ISAPC.values()))
    assert ("pc.ram", 0, 0xBFFFF) in ranges  # without a display there is no hole for it
    assert machine.memory.view.sections[0].end == 0xA0000


def unflattened(blob: bytes) -> dict[str, dict[str, bytes]]:
    """Path: properties of a device tree's blob."""
    magic, total, at, texts, reserved, version, last, _, text_size, size = struct.unpack_from(">10I", blob)
    assert (magic, version, last, reserved % 8, at % 4) == (0xD00DFEED, 17, 16, 0, 0)
    assert max(at + size, texts + text_size) <= total <= len(blob)
    nodes: dict[str, dict[str, bytes]] = {}
    path: list[str] = []
    while True:
        (token,) = struct.unpack_from(">I", blob, at)
        at += 4
        if token == 1:
            end = blob.index(b"\0", at)
            path.append(blob[at:end].decode())
            nodes["/".join(path)] = {}
            at = end + 4 & ~3
        elif token == 2:
            path.pop()
        elif token == 3:
            length, name = struct.unpack_from(">2I", blob, at)
            key = blob[texts + name : blob.index(b"\0", texts + name)].decode()
            nodes["/".join(path)][key] = blob[at + 8 : at + 8 + length]
            at = at + 8 + length + 3 & ~3
        else:
            assert (token, path) == (9, [])
            return nodes


def words(data: bytes) -> list[int]:
    """The cells of a property."""
    return list(struct.unpack(f">{len(data) // 4}I", data))


@pytest.mark.needs("qemu-system-aarch64")
@pytest.mark.parametrize(("gic", "highmem"), [(2, "on"), (3, "on"), (2, "off")])
def test_the_device_tree_says_what_qemus_says(dragoman: Command, tmp_path: Path, gic: int, highmem: str) -> None:
    machine = f"virt,gic-version={gic},highmem={highmem},dumpdtb={tmp_path}/theirs"
    command = ["qemu-system-aarch64", "-machine", machine, "-cpu", "cortex-a57", "-nodefaults", "-m", "256"]
    subprocess.run([*command, "-serial", "null", "-display", "none"], check=True, capture_output=True, timeout=60)
    words_ = ["machine", "virt", "-m", "256M", "--gic", str(gic), "--dump-dtb", f"{tmp_path}/ours"]
    assert dragoman(*words_, *(["--no-highmem"] if highmem == "off" else [])).returncode == 0
    ours, qemus = (unflattened((tmp_path / name).read_bytes()) for name in ("ours", "theirs"))
    assert len(ours) == 15 + 32
    handles = {
        path: (nodes[0].get("phandle"), nodes[1].get("phandle"))
        for path in ours
        for nodes in [(ours[path], qemus[path])]
    }
    renamed = {words(mine)[0]: words(other)[0] for mine, other in handles.values() if mine and other}
    for path, properties in ours.items():
        for name, value in properties.items():
            other = qemus[path][name]
            if name in {"phandle", "clocks", "interrupt-parent", "msi-map", "interrupt-map", "gpios"}:
                assert [renamed.get(word, word) for word in words(value)] == words(other), (path, name)
            elif (path, name) == ("/chosen", "stdout-path"):
                assert value.rstrip(b"\0") == other.rstrip(b"\0")
            elif (path, name) == ("/intc@8000000", "reg"):  # QEMU's sizes are the room, ours what is there
                assert (value[:8], value[16:24]) == (other[:8], other[16:24])
            else:
                assert value == other, (path, name)
    done = dragoman("machine", "isapc", "--dump-dtb", f"{tmp_path}/none")
    assert (done.returncode, b"no device tree" in done.stderr) == (2, True)
    assert dragoman("machine", "virt", "--dump-dtb", f"{tmp_path}/no/folder").returncode == 2


@pytest.mark.needs("qemu-system-aarch64")
def test_all_drivers_agree_on_one_virt() -> None:
    def script(bus: Bus) -> None:
        test_pl011.script(bus)
        test_pl031.script(bus)
        test_cfi_flash.script(bus)
        bus.write(0x0900_0038, 0)
        test_gicv2.play(7, 60, bus)

    with qemu(*ARM, "-nodefaults", "-serial", "null", "-rtc", "base=2020-01-01T00:00:00,clock=vm") as other:
        assert agree(script, build("virt"), other) > 1500


def test_a_driver_on_isapc_gets_ticks_and_characters() -> None:
    console = MemoryChar()
    machine = load("isapc").build(Options(ram=16 * MIB, consoles=(console,)))
    test_ns16550.script(Ours(machine))
    assert console.take() == b"abc"
    bus = machine.ports
    for port, value in ((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0xFE)):
        bus.write(port, 1, value)
    test_i8254.start(machine, 0, 2, 11932)
    ticks = 0
    for _ in range(100):
        machine.advance(10_000_000)
        bus.write(0x20, 1, 0x0C)
        if bus.read(0x20, 1) == 0x80:
            ticks += 1
            bus.write(0x20, 1, 0x20)
    assert 98 <= ticks <= 100
    sizes = []
    for index in (0x15, 0x17, 0x30):
        parts = []
        for at in (index, index + 1):
            bus.write(0x70, 1, at)
            parts.append(bus.read(0x71, 1))
        sizes.append(parts[0] | parts[1] << 8)
    assert sizes == [640, 15 * 1024, 15 * 1024]


def test_drives_on_isapc() -> None:
    """A disk is the first master, a disc's drive the second one; there is room for four."""
    disk = Disk(open_image({"driver": "memory", "size": 8 << 20}, "raw", writable=True))
    machine = load("isapc").build(Options(ram=16 * MIB, disks=(disk,), cds=(None,)))
    ports = machine.ports
    assert (ports.read(0x1F7, 1), ports.read(0x177, 1)) == (0x50, 0)
    assert [ports.read(port, 1) for port in (0x174, 0x175)] == [0x14, 0xEB]
    ports.write(0x20, 1, 0x11)  # both 8259
    for port, words in ((0x21, (0x20, 4, 1, 0)), (0xA1, (0x28, 2, 1, 0))):
        if port == 0xA1:
            ports.write(0xA0, 1, 0x11)
        for word in words:
            ports.write(port, 1, word)
    ports.write(0x1F7, 1, 0xEC)
    ports.write(0xA0, 1, 0x0A)
    assert ports.read(0xA0, 1) == 1 << 6  # IRQ 14
    assert ports.read(0x1F7, 1) == 0x58
    with pytest.raises(UsageError, match="room for 4"):
        load("isapc").build(Options(cds=(None,) * 5))


def test_the_parts_of_isapcs_memory_are_one() -> None:
    machine = build("isapc", 2 * MIB)
    section = machine.memory.view.find(0x10_0000)
    assert section is not None
    assert section.memory is not None
    tracker = DirtyTracker(section.memory)
    machine.memory.write(0x9FFFF, 1, 1)
    machine.memory.write(0x10_0000, 1, 2)
    machine.memory.write(0xF_0000, 1, 3)  # ROM
    assert tracker.collect() == [(0x9F000, 4096), (0x10_0000, 4096)]
    assert machine.memory.read(0xA_0000, 4) == 0xFFFF_FFFF
    assert build("isapc", MIB).memory.read(0x10_0000, 1) == 0xFF


def test_saved_boards_come_back() -> None:
    for name in BOARDS:
        machine = build(name)
        machine.advance(123_456_789)
        saved = json.loads(json.dumps(machine.save()))
        other = build(name)
        other.restore(saved)
        assert other.save() == saved


@pytest.mark.parametrize("name", BOARDS)
def test_random_traffic_on_whole_boards(name: str) -> None:
    """Devices that are wired to each other, all sizes and places, both spaces; transfers into everything."""
    random = Random(5)

    def built() -> BoardMachine:
        added = (Plugged("pci_bridge", "br"), Plugged("virtio_rng", bus="br"), Plugged("ich9_ahci"))
        return load(name).build(Options(2 * MIB, epoch=EPOCH, devices=() if name == "isapc" else added))

    machine = built()
    machine.board.assign(machine)
    spaces = [(space, [(s.start, s.end) for s in space.view.sections]) for space in (machine.memory, machine.ports)]
    refused = 0
    for number in range(50_000):
        space, places = random.choice([pair for pair in spaces if pair[1]])
        start, end = random.choice(places)
        size = random.choice((1, 2, 4, 8))
        span = random.choice((end - start, min(end - start, 0x1100), min(end - start, 0x40)))
        access = Transaction(start - 2 + random.randrange(span + 4), size, write=random.random() < 0.6)
        access.address = max(access.address, 0)
        if random.random() < 0.7:
            access.address &= -size
        access.data = random.choice((0, 1, 0x20, 0xFF, random.getrandbits(8 * size), random.choice(places)[0]))
        access.attributes = Attributes(cpu=random.randrange(3))
        space.perform(access)
        refused += access.result != OK
        assert 0 <= access.data < 1 << 64
        if not number % 500:
            machine.advance(random.choice((1_000, 1_000_000, 20_000_000)))
    assert refused < 25_000
    saved = machine.save()
    other = built()
    other.restore(saved)
    assert other.save() == saved


def test_boards_have_limits() -> None:
    for name in BOARDS:
        board = load(name)
        for options in (Options(cpus=0), Options(cpus=124), Options(ram=0), Options(ram=1 << 50), Options(ram=MIB + 1)):
            with pytest.raises(UsageError, match=name):
                board.build(options)
    with pytest.raises(UsageError, match="boards: isapc, pc, virt"):
        load("toaster")


def test_the_command_shows_boards_maps_and_registers(dragoman: Command) -> None:
    assert dragoman("machine").stdout.decode().splitlines()[2].startswith("virt     Arm")
    shown = dragoman("machine", "virt", "--map", "-m", "2G").stdout.decode().splitlines()
    assert shown[0] == "memory, unassigned: error"
    lines = [line.split() for line in shown]
    assert ["0009000000-0009000fff", "4", "KiB", "mmio", "uart", "PL011", "interrupt", "1"] in lines
    assert ["0040000000-00bfffffff", "2", "GiB", "ram", "ram"] in lines
    found = json.loads(dragoman("machine", "isapc", "--json").stdout)
    traced = dragoman("machine", "pc", "--json", "--trace", "*")
    assert json.loads(traced.stdout)["pci"]
    assert b"COMMAND <-" in traced.stderr
    assert [row["interrupt"] for row in found["ports"] if row["name"] == "com1"] == [4]
    assert "    fffe0000-ffffffff rom bios" in dragoman("machine", "isapc", "--tree").stdout.decode().replace(
        "  f", "    f"
    )
    assert "| 0x000 | RTCDR | 4 | RO |" in dragoman("machine", "--registers", "pl031").stdout.decode()
    for words, says in (
        (["machine", "toaster"], b"boards: isapc, pc, virt"),
        (["machine", "virt", "-m", "lots"], b"is no size"),
        (["machine", "virt", "--cpus", "99"], b"up to 8 CPUs"),
        (["machine", "--registers", "toaster"], b"devices: "),
    ):
        done = dragoman(*words)
        assert (done.returncode, says in done.stderr) == (2, True)


def test_users_do_not_say_where_a_function_is_by_arguments() -> None:
    for arguments in ({"function": 1}, {"slots": 3}):
        plugged = Plugged("e1000", arguments=arguments)
        with pytest.raises(UsageError, match=f"no argument '{min(arguments)}'"):
            load("virt").build(Options(devices=(plugged,)))
    with pytest.raises(UsageError, match=r"no argument 'colour'\nits numbers: rings"):
        load("virt").build(Options(devices=(Plugged("virtio_rng", arguments={"colour": 3}),)))
