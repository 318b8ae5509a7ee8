"""PCI on the board `virt`: the windows, ports in memory, and interrupts of functions at GICs of both versions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dbt.machine.boards import BoardMachine, Options, Plugged, load
from dbt.machine.devices.virtio_rng import VirtioRng
from dbt.machine.errors import MapError
from dbt.machine.pci import PciFunction
from dbt.machine.pci.assign import assign

from dbt.errors import UsageError
from tests.machine.pci import ECAM, ECAM_LOW, Config, Function
from tests.machine.qtest import Ours

MIB = 1 << 20
V2M, GITS = 0x0802_0000, 0x0808_0000
ISPENDR, ISENABLER = 0x0800_0200, 0x0800_0100
RNG = (0x1AF4, 0x1005)


def build(gic: int = 2) -> tuple[BoardMachine, Config]:
    devices = (
        Plugged("pci_bridge", "br", slot=4),
        Plugged("virtio_rng", "far", bus="br", slot=2),
        Plugged("virtio_rng", "near"),
    )
    machine = load("virt").build(Options(16 * MIB, gic=gic, devices=devices))
    return machine, Config(Ours(machine), ECAM)


def function(machine: BoardMachine, name: str) -> PciFunction:
    found = machine.devices[f"{name}.pci"]
    assert isinstance(found, PciFunction)
    return found


def test_windows_are_where_the_device_tree_says() -> None:
    machine, config = build()
    near = config.function(*RNG)
    assert near.at == (0, 1, 0)
    assert near.place(memory=0x80_0000_0000, ports=0x2000, bars=4)[0] == (0x2000, 0x20)
    near.write(0x20, 0x0000_000C)
    near.write(0x24, 0x81)
    read = machine.memory.read
    # The legacy registers, by ports and by the window of ports; the structures of version 1 above 4 GiB.
    assert read(0x3EFF_2000, 4) == machine.ports.read(0x2000, 4) != 0xFFFF_FFFF
    assert read(0x81_0000_0012, 2) == 1  # num_queues
    assert read(0x82_0000_0000, 4) == read(0x1000_0000, 4) == read(0x3EFF_0000, 4) == 0xFFFF_FFFF
    near.write(0x24, 0)
    near.write(0x20, 0x3000_000C)
    assert read(0x3000_0012, 2) == 1
    machine.board.assign(machine)
    assert [place for number in range(2) for place, _ in config.scan(number)] == [
        (0, 0, 0), (0, 1, 0), (0, 4, 0), (1, 2, 0),
    ]  # fmt: skip
    assert all(base.at for base in function(machine, "far").bars.values())


def test_all_of_it_may_be_below_4_gib() -> None:
    machine = load("virt").build(Options(16 * MIB, highmem=False, devices=(Plugged("virtio_rng"),)))
    machine.board.assign(machine)
    config = Config(Ours(machine), ECAM_LOW)
    assert [place for place, _ in config.scan()] == [(0, 0, 0), (0, 1, 0)]
    assert max(section.end for section in machine.memory.view.sections) == 0x4000_0000 + 16 * MIB
    assert machine.board.acpi(machine)["MCFG"][44:52] == ECAM_LOW.to_bytes(8, "little")
    device = machine.devices["virtio_rng0.pci"]
    assert isinstance(device, PciFunction)
    assert all(base.at and base.at < 1 << 32 for base in device.bars.values())
    with pytest.raises(UsageError, match="below 4 GiB"):
        load("virt").build(Options(4 << 30, highmem=False))


def test_a_bridges_reset_reaches_the_virtio_device() -> None:
    machine, config = build()
    machine.board.assign(machine)
    near, far = function(machine, "near").bars[4].at, function(machine, "far").bars[4].at
    assert near
    assert far
    for base in (near, far):
        machine.memory.write(base + 0x14, 1, 1)
    config.write((0, 4, 0), 0x3E, 0x40, 2)
    config.write((0, 4, 0), 0x3E, 0, 2)
    assert machine.memory.read(far + 0x14, 1) == 0xFF  # the BAR is gone
    machine.board.assign(machine)
    assert (machine.memory.read(near + 0x14, 1), machine.memory.read(far + 0x14, 1)) == (1, 0)


@pytest.mark.parametrize("gic", [2, 3])
def test_pins_are_shared_interrupts(gic: int) -> None:
    machine, config = build(gic)
    machine.board.assign(machine)
    pending = []
    for name, slot in (("near", 1), ("far", 4 + 2)):
        device = function(machine, name)
        device.intx.set(True)
        pending.append(machine.memory.read(ISPENDR + 4, 4))
        device.intx.set(False)
        assert device.config.data[0x3C] == 32 + 3 + slot % 4
    assert pending == [1 << 3 + 1, 1 << 3 + 2]
    assert machine.memory.read(ISPENDR + 4, 4) == 0
    assert config.ecam


def test_messages_reach_the_frame_of_a_gicv2() -> None:
    machine, config = build()
    machine.board.assign(machine)
    far = Function(config, (1, 2, 0))
    far.bars[1] = far.read(0x14) & ~0xF, 4096
    typer = machine.memory.read(V2M + 8, 4)
    first = typer >> 16
    assert (first, typer & 0x3FF) == (80, 64)
    machine.memory.write(0x0800_0C00 + 4 * (first // 16), 4, 0xA)  # edges
    far.enable_msix([(V2M + 0x40, first), (V2M + 0x40, first + 1)])
    device = machine.devices["far"]
    assert isinstance(device, VirtioRng)
    function(machine, "far").interrupt(1)
    assert machine.memory.read(ISPENDR + 4 * (first // 32), 4) == 1 << (first + 1) % 32
    far.write(far.capability(0x11) + 2, 0xC000, 2)  # all masked
    function(machine, "far").interrupt(0)
    assert machine.memory.read(ISPENDR + 4 * (first // 32), 4) == 1 << (first + 1) % 32
    far.write(far.capability(0x11) + 2, 0x8000, 2)
    assert machine.memory.read(ISPENDR + 4 * (first // 32), 4) == 3 << first % 32


def test_messages_of_a_function_have_its_requester_id_at_the_its() -> None:
    machine, config = build(3)
    machine.board.assign(machine)
    seen: list[tuple[int, int]] = []
    its = machine.devices["its"]
    its.commands.deliver = lambda device, event: seen.append((device, event))  # type: ignore[attr-defined]
    machine.memory.write(GITS, 4, 1)
    for place, name, bar in (((0, 1, 0), "near", 1), ((1, 2, 0), "far", 1)):
        driver = Function(config, place)
        driver.bars[bar] = driver.read(0x10 + 4 * bar) & ~0xF, 4096
        driver.enable_msix([(GITS + 0x1_0040, 7)])
        function(machine, name).interrupt(0)
    assert seen == [(1 << 3, 7), (1 << 8 | 2 << 3, 7)]


def test_what_does_not_fit_below_goes_above() -> None:
    big = tuple(Plugged("virtio_rng", f"rng{n}") for n in range(3))
    machine = load("virt").build(Options(16 * MIB, devices=big))
    assert machine.pci is not None
    ranges = machine.board.ranges(machine)
    assign(machine.pci, ranges)
    low = [function(machine, f"rng{n}").bars[4].at or 0 for n in range(3)]
    assert max(low) < 1 << 32
    small = replace(ranges, memory=(ranges.memory[0], 0x4000))
    assign(machine.pci, small)
    assert [function(machine, f"rng{n}").bars[4].at for n in range(3)] == [
        0x80_0000_0000 + 0x4000 * n for n in range(3)
    ]
    with pytest.raises(MapError, match="no room"):
        assign(machine.pci, replace(small, high=None))
