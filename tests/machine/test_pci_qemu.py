"""Configuration spaces as QEMU has them: what drivers read, size and set in the headers of its i440FX, PIIX3, generic
host, bridge and e1000, by ports and by ECAM; and the same addresses decoded."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.machine.boards import BoardMachine, Options, Plugged, load

from tests.machine.pci import ECAM, Config, Function
from tests.machine.qtest import X86, Bus, agree, qemu

if TYPE_CHECKING:
    from collections.abc import Callable

ARM64 = ("qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a57", "-nodefaults")
E1000 = (0x8086, 0x100E)
DEVICES = (
    "-device", "e1000,romfile=,addr=2", "-device", "pci-bridge,chassis_nr=1,shpc=off,msi=off,addr=3,id=b",
    "-device", "e1000,romfile=,bus=b,addr=4",
)  # fmt: skip


def board(name: str) -> BoardMachine:
    cards = (Plugged("e1000", slot=2), Plugged("pci_bridge", "b", slot=3), Plugged("e1000", bus="b", slot=4))
    return load(name).build(Options(devices=cards))


def header(config: Config, place: tuple[int, int, int], seed: int) -> None:
    """Read all of a header in all sizes; write what drivers write, and then anything, and read it again."""
    random = Random(seed)

    def look(step: int = 4) -> None:
        for offset in range(0, 0x40, step):
            config.read(place, offset, step)

    look()
    look(1)
    look(2)
    if config.ecam:  # none of these is PCI Express
        config.read(place, 0x100)
        config.read(place, 0xFFC)
    for value in (0xFFFFFFFF, 0, 0x55555555, 0xAAAAAAAA):
        for offset in range(0, 0x40, 4):
            if offset == 0x3C:  # not a reset of the bus
                config.write(place, offset, value, 1)
            elif offset == 0x18 and place[1] == 3 and value:
                config.write(place, offset, value & 0xFF0000FF | 0x00100800)  # others than bus 0 below
            else:
                config.write(place, offset, value)
        look()
    for _ in range(150):
        size = random.choice((1, 2, 4))
        offset = random.randrange(0x3C // size) * size
        config.write(place, offset, random.getrandbits(8 * size), size)
        config.read(place, offset & ~3)
        config.read(place, offset, size)
    config.write(place, 4, 0, 2)
    config.write(place, 6, 0xFFFF, 2)
    look()


def pc_headers(bus: Bus) -> None:
    config = Config(bus)
    for slot in range(4):  # not IDE and power management in slot 1: they have tests of their own
        header(config, (0, slot, 0), slot)


def virt_headers(bus: Bus) -> None:
    config = Config(bus, ECAM)
    for place, _ in config.scan():
        header(config, place, place[1])
    for place, _ in config.scan(1):
        header(config, place, place[1])


def chipset(bus: Bus) -> None:
    """The registers that firmware sets: attributes of memory, routing of interrupts."""
    config = Config(bus)
    for offset, mask in (*((0x59 + n, 0x33) for n in range(7)), (0x72, 0x08)):
        for value in (0x33, 0x11, 0x00, mask):
            config.write((0, 0, 0), offset, value & mask | (0x02 if offset == 0x72 else 0), 1)
            config.read((0, 0, 0), offset, 1)
    for offset in (0x4C, 0x4E, 0x60, 0x61, 0x62, 0x63, 0x69, 0x70, 0x76, 0x77, 0x78, 0xA0, 0xA8):
        config.read((0, 1, 0), offset, 1)
        if 0x60 <= offset < 0x64:
            for value in (0x80, 5, 10, 11, 0x80):
                config.write((0, 1, 0), offset, value, 1)
                config.read((0, 1, 0), offset, 1)
    bus.inp(0xCF9)
    bus.out(0xCF9, 2)
    bus.inp(0xCF9)
    bus.inp(0xCF8, 4)


def decoded(config: Config, bus: Bus, pio: int) -> None:
    """BARs on both sides of a bridge, moved, disabled, overlapping with nothing, within and beyond windows."""

    def look() -> None:
        for address in (0x2000_0000, 0x2002_0000, 0x2100_0000, 0x2120_0000):
            for offset in (0x2800, 0x5200, 0x5204):
                value = bus.read(address + offset)
                if not pio and value == 0xFFFFFFFF:  # a master abort, which QEMU's pc reads as zero
                    bus.log[-1] = ("read", address + offset, 4, 0)
        for port in (0xC000, 0xD000):
            bus.read(pio + port) if pio else bus.inp(port, 4)

    near, bridge = Function(config, (0, 2, 0)), Function(config, (0, 3, 0))
    near.write(0x10, 0x2000_0000)
    near.write(0x14, 0xC000)
    near.enable()
    bus.write(0x2000_2800, 0x1234_5670)
    bus.write(0x2000_5200, 0x1111_1111)
    look()
    bridge.write(0x18, 0x00050500)
    bridge.write(0x1C, 0xD0D0, 2)
    bridge.write(0x20, 0x2110_2100)
    bridge.write(0x24, 0x0000FFF0)
    far = Function(config, config.find(*E1000, number=5))
    far.write(0x10, 0x2100_0000)
    far.write(0x14, 0xD000)
    far.enable()
    look()
    bridge.enable()
    bus.write(0x2100_2800, 0x4444_4440)
    bus.write(0x2100_5204, 0x2222_2222)
    look()
    for base in (0x2120_0000, 0x2002_0000, 0x2000_0000, 0xFFFE_0000, 0x2100_0000):
        far.write(0x10, base)
        if base != 0x2000_0000:
            look()
    for limits in (0x2120_2100, 0x2100_2120, 0x2110_2110, 0x2100_2100):
        bridge.write(0x20, limits)
        look()
    near.write(0x10, 0x2002_0000)
    look()
    for command in (5, 6, 0, 7):
        near.write(4, command, 2)
        look()
        near.write(4, 7, 2)
        bridge.write(4, command, 2)
        look()
    bridge.write(0x19, 6, 1)
    config.read((5, 4, 0), 0)
    config.read((6, 4, 0), 0)
    bridge.write(0x1A, 6, 1)
    config.read((6, 4, 0), 0)
    config.read((6, 4, 0), 0x10)
    bridge.write(0x3E, 0x40, 2)
    bridge.write(0x3E, 0, 2)
    config.read((6, 4, 0), 0x10)
    look()


def decoded_pc(bus: Bus) -> None:
    decoded(Config(bus), bus, 0)


def decoded_virt(bus: Bus) -> None:
    decoded(Config(bus, ECAM), bus, 0x3EFF_0000)


@pytest.mark.needs("qemu-system-x86_64")
@pytest.mark.parametrize("script", [pc_headers, chipset, decoded_pc])
def test_pc_agrees_with_qemu(script: Callable[[Bus], None]) -> None:
    with qemu(*X86, "-m", "128", *DEVICES) as theirs:
        assert agree(script, board("pc"), theirs) > 40


@pytest.mark.needs("qemu-system-aarch64")
@pytest.mark.parametrize("script", [virt_headers, decoded_virt])
def test_virt_agrees_with_qemu(script: Callable[[Bus], None]) -> None:
    with qemu(*ARM64, "-m", "128", *DEVICES) as theirs:
        assert agree(script, board("virt"), theirs) > 100
