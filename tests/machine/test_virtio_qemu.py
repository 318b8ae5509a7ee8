"""The same driver on our virtio devices and on QEMU's, by MMIO and PCI: registers and answers have to agree."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dbt.machine.block import Disk, open_image
from dbt.machine.chardev import CharBackend
from dbt.machine.devices.virtio_balloon import VirtioBalloon
from dbt.machine.devices.virtio_blk import VirtioBlk
from dbt.machine.devices.virtio_console import Port, VirtioConsole
from dbt.machine.devices.virtio_rng import VirtioRng
from dbt.machine.machine import Machine
from dbt.machine.memory import RAM, Unassigned
from dbt.machine.pci import ConfigPorts, PciBus
from dbt.machine.virtio.device import RINGS
from dbt.machine.virtio.mmio import VirtioMmio
from dbt.machine.virtio.pci import VirtioPci
from dbt.machine.virtio.spec import ANY_LAYOUT, NOTIFY_ON_EMPTY, RING_PACKED

from tests.machine.pci import Config, Function
from tests.machine.qtest import ARM, X86, Bus, agree, qemu
from tests.machine.virtio import UNUSED, Guest, Mmio, PciLegacy, PciModern, Pool, Transport

if TYPE_CHECKING:
    from dbt.machine.virtio import VirtioDevice

SIZE = 4 << 20
ARM_RAM, PC_RAM = 0x4000_0000, 0x10_0000
# Of legacy interfaces, the last is VIRTIO_BLK_F_SCSI; and what only one side's consoles and balloons have.
LEFT_OUT = NOTIFY_ON_EMPTY | ANY_LAYOUT | UNUSED | 1 << 7
OWN = {3: 1 << 0, 5: 1 << 2 | 1 << 5}
SLOT = 0x0A00_0000 + 31 * 0x200  # the one that QEMU fills first
Build = Callable[[Machine], "VirtioDevice"]
Script = Callable[[Guest], object]


def note(bus: Bus, what: str, value: int) -> None:
    """A result that is compared as reads are."""
    bus.log.append((what, 0, 0, value))


def blk_script(guest: Guest) -> None:
    """Probe, negotiation, configuration, queue, and one request of each kind."""
    transport, bus = guest.transport, guest.bus
    for offset, size in ((0, 8), (8, 4), (12, 4), (0x10, 2), (0x12, 1), (0x13, 1), (0x14, 4), (0x18, 1), (0x19, 1)):
        transport.config(offset, size)
    for offset, size in (
        (0x1A, 2),
        (0x1C, 4),
        (0x20, 1),
        (0x22, 2),
        *((at, 4) for at in range(0x24, 0x38, 4)),
        (0x38, 1),
    ):
        transport.config(offset, size)
    for wanted in (~0, 0):
        guest.begin(wanted)
        transport.status()
        queue = guest.queue(0, 256)
        guest.go()
        transport.status()
        for kind, sector, out, into in (
            (0, 0, [], [512]), (1, 3, [b"\x5a" * 512, b"\xa5" * 1024], []), (0, 2, [], [1024, 1024, 512]),
            (4, 0, [], []), (8, 0, [], [5]), (0, SIZE // 512, [], [512]), (0, 0, [], [700]),
            (1, 1 << 40, [bytes(512)], []), (77, 0, [], []), (0, 3, [], [1024]),
            (13, 0, [struct.pack("<QII", 3, 1, 0)], []), (0, 3, [], [1024]),
            (11, 0, [struct.pack("<QII", 0, 1, 1)], []), (13, 0, [struct.pack("<QII", 0, 1 << 30, 0)], []),
            (13, 0, [struct.pack("<QII", 0, 8, 6)], []),
        ):  # fmt: skip
            if kind in {11, 13} and not guest.accepted >> 13 & 3:
                continue
            written, data = guest.request(queue, [struct.pack("<IIQ", kind, 0, sector), *out], [*into, 1])
            note(bus, "written", written)
            note(
                bus, "data" if data[-1] == 0 else "status", int.from_bytes(data if data[-1] == 0 else data[-1:], "big")
            )
            note(bus, "reasons", transport.interrupt())
        transport.set_config(0x20, 0, 1)
        if wanted:
            transport.config(0x20, 1)
        transport.status()
    guest.reset()


def rng_script(guest: Guest) -> None:
    guest.begin()
    queue = guest.queue(0, 8)
    guest.go()
    for length in (1, 64, 200):
        written, data = guest.request(queue, [], [length])
        note(guest.bus, "written", written)
        assert len(data) == length
    assert guest.request(queue, [], [64])[1] != guest.request(queue, [], [64])[1]
    guest.reset()


def console_script(guest: Guest) -> None:
    """What the device says about its ports, and some output."""
    transport, bus = guest.transport, guest.bus
    for offset, size in ((0, 2), (2, 2), (4, 4)):
        transport.config(offset, size)
    guest.begin(1 << 1)
    queues = [guest.queue(index, 32) for index in range(6)]
    guest.go()
    buffers = {queues[2].add(place): place for place in (guest.buffers([], [64]) for _ in range(12))}
    queues[2].kick()

    def say(*message: int) -> None:
        note(bus, "written", guest.request(queues[3], [struct.pack("<IHH", *message)])[0])
        for chain, written in queues[2].used():
            note(bus, "said", int.from_bytes(bus.load(buffers[chain][0][0], written).rstrip(b"\0"), "big"))

    say(0, 0, 1)  # DEVICE_READY
    for port in range(2):
        say(port, 3, 1)  # PORT_READY
        say(port, 6, 1)  # PORT_OPEN
    for queue in (queues[1], queues[5]):
        note(bus, "written", guest.request(queue, [b"some ", b"text"])[0])
    transport.status()
    guest.reset()


def balloon_script(guest: Guest) -> None:
    transport, bus = guest.transport, guest.bus
    for offset in range(0, 16, 4):
        transport.config(offset, 4)
    guest.begin(1 << 4)
    queues = [guest.queue(index, 64) for index in range(2)]
    guest.go()
    page = guest.pool.take(8192, 4096)
    bus.store(page, b"\x55" * 8192)
    for queue in queues:
        note(bus, "written", guest.request(queue, [struct.pack("<I", page >> 12)])[0])
        bus.read(page)
        bus.read(page + 4096)
    transport.set_config(4, 7, 4)
    transport.config(4, 4)
    transport.status()
    guest.reset()


def image(folder: Path, name: str) -> str:
    path = folder / name
    path.write_bytes(bytes(range(256)) * (SIZE // 256))
    return str(path)


def by_mmio(script: Script, *, legacy: bool = False) -> Callable[[Bus], None]:
    def run(bus: Bus) -> None:
        transport = Mmio(bus, SLOT, legacy=legacy)
        transport.known &= ~LEFT_OUT
        transport.sizes = False  # QEMU says 1024 for all
        transport.known &= ~OWN.get(transport.identity()[2], 0)
        transport.config(0, 4)
        for offset in () if legacy else (0xB0, 0xB4, 0xFC):  # QEMU gives regions that are not there the address 0
            transport.read(offset)
        if legacy:
            transport.write(0x28, 4096)
        script(Guest(transport, Pool(ARM_RAM + 0x10_0000, 8 << 20)))

    return run


def arm(build: Build, *, legacy: bool = False) -> Machine:
    machine = Machine()
    machine.place(RAM("ram", 16 << 20), ARM_RAM)
    machine.place(VirtioMmio("mmio", machine, device=build(machine), legacy=legacy), SLOT)
    machine.reset()
    return machine


def blk(path: str, rings: int = RINGS) -> Build:
    disk = Disk(open_image(path, "raw", writable=True))
    return lambda machine: VirtioBlk("disk", machine, disk, serial="SN-1", rings=rings)


def drive(path: str, device: str) -> list[str]:
    return ["-drive", f"if=none,id=d,file={path},format=raw,discard=unmap", "-device", f"{device},drive=d,serial=SN-1"]


@pytest.mark.needs("qemu-system-aarch64")
@pytest.mark.parametrize(("legacy", "packed"), [(False, False), (False, True), (True, False)])
def test_blk_by_mmio(legacy: bool, packed: bool, tmp_path: Path) -> None:
    theirs = drive(image(tmp_path, "theirs"), "virtio-blk-device" + (",packed=on" if packed else ""))
    force = ["-global", f"virtio-mmio.force-legacy={str(legacy).lower()}"]
    machine = arm(blk(image(tmp_path, "ours"), RINGS | (RING_PACKED if packed else 0)), legacy=legacy)
    with qemu(*ARM, "-nodefaults", *force, *theirs) as other:
        assert agree(by_mmio(blk_script, legacy=legacy), machine, other) > 100
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.needs("qemu-system-aarch64")
def test_rng_by_mmio() -> None:
    options = ["-global", "virtio-mmio.force-legacy=false", "-device", "virtio-rng-device"]
    with qemu(*ARM, "-nodefaults", *options, running=True) as other:
        machine = arm(lambda machine: VirtioRng("rng", machine))
        assert agree(by_mmio(rng_script), machine, other) > 15


@pytest.mark.needs("qemu-system-aarch64")
@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
def test_console_by_mmio(packed: bool) -> None:
    options = ["-global", "virtio-mmio.force-legacy=false", "-chardev", "null,id=a", "-chardev", "null,id=b"]
    options += ["-device", "virtio-serial-device,max_ports=2,emergency-write=on" + (",packed=on" if packed else "")]
    options += ["-device", "virtconsole,chardev=a", "-device", "virtconsole,chardev=b,name=org.example.port"]
    rings = RINGS | (RING_PACKED if packed else 0)
    ports = (Port(CharBackend(), "org.example.port", console=True),)
    machine = arm(lambda machine: VirtioConsole("console", machine, ports=ports, rings=rings))
    with qemu(*ARM, "-nodefaults", *options, running=True) as other:
        assert agree(by_mmio(console_script), machine, other) > 30


@pytest.mark.needs("qemu-system-aarch64")
def test_balloon_by_mmio() -> None:
    options = ["-global", "virtio-mmio.force-legacy=false", "-device", "virtio-balloon-device"]
    machine = arm(lambda machine: VirtioBalloon("balloon", machine))
    with qemu(*ARM, "-nodefaults", *options, running=True) as other:
        assert agree(by_mmio(balloon_script), machine, other) > 20


def pc(build: Build, slot: int, *, transitional: bool) -> Machine:
    machine = Machine(unassigned=Unassigned.ONES)
    bus = PciBus("pci", machine)
    machine.system.place(bus.memory, 0)
    machine.system.place(RAM("ram", 16 << 20), 0, 1)
    ports = ConfigPorts("config", machine, bus)
    machine.place(ports, 0xCF8, "ports", "ADDRESS")
    machine.place(ports, 0xCFC, "ports", "DATA")
    machine.io.place(bus.io, 0, -1)
    VirtioPci("virtio", machine, build(machine), bus=bus, slot=slot, transitional=transitional)
    machine.reset()
    return machine


def by_pci(script: Script, slot: int, kind: type[PciModern | PciLegacy]) -> Callable[[Bus], None]:
    def run(bus: Bus) -> None:
        function = Function(Config(bus), (0, slot, 0))
        for offset in range(0, 0xB0, 4):
            function.read(offset)
        function.place(0xE000_0000, 0xC000)
        transport: Transport = kind(function)
        transport.known &= ~LEFT_OUT
        if isinstance(transport, PciModern):
            for offset, size in (
                (0x10, 2),
                (0x12, 2),
                (0x14, 1),
                (0x15, 1),
                (0x16, 2),
                (0x18, 2),
                (0x1A, 2),
                (0x1C, 2),
            ):
                transport.read(offset, size)
            transport.read(0x1E, 2)
            transport.set_vector(None, 1)
            transport.set_vector(0, 9)
            transport.most(5)
        script(Guest(transport, Pool(PC_RAM, 8 << 20)))

    return run


@pytest.mark.needs("qemu-system-x86_64")
@pytest.mark.parametrize("kind", [PciModern, PciLegacy])
@pytest.mark.parametrize("transitional", [True, False], ids=["transitional", "modern"])
def test_blk_by_pci(kind: type[PciModern | PciLegacy], transitional: bool, tmp_path: Path) -> None:
    if kind is PciLegacy and not transitional:
        return
    model = "virtio-blk-pci,addr=5" + ("" if transitional else ",disable-legacy=on")
    machine = pc(blk(image(tmp_path, "ours")), 5, transitional=transitional)
    with qemu(*X86, *drive(image(tmp_path, "theirs"), model)) as other:
        assert agree(by_pci(blk_script, 5, kind), machine, other) > 150
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.needs("qemu-system-x86_64")
def test_rng_by_pci() -> None:
    with qemu(*X86, "-device", "virtio-rng-pci,addr=6") as other:
        machine = pc(lambda machine: VirtioRng("rng", machine), 6, transitional=True)
        assert agree(by_pci(lambda guest: guest.begin() and guest.queue(0, 8), 6, PciModern), machine, other) > 50
