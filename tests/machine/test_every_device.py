"""Every device that has registers gets 100,000 random accesses: by a test of its own, or here."""

from __future__ import annotations

import ast
import pkgutil
from importlib import import_module
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import dbt.machine
from dbt.machine.device import Device
from dbt.machine.devices.gpex import GpexRoot
from dbt.machine.devices.ide import IdeChannel
from dbt.machine.machine import Machine
from dbt.machine.pci import ConfigPorts, PciBus, PciFunction

from tests.machine.ata_machines import drained, hard_disk, memory_disk
from tests.machine.fuzzing import OPERATIONS, fuzz
from tests.machine.pci import poke

if TYPE_CHECKING:
    from collections.abc import Iterator

OTHERWISE = {  # what is in configuration space or system registers only, with loops of as many accesses
    "I440fx": "test_hostile_configuration",
    "Piix3": "test_random_traffic",
    "PciBridge": "test_hostile_bridges",
    "GICv3CpuInterface": "test_random_traffic_on_the_cpu_interface",
    "GICv3Redistributor": "test_random_traffic",  # a device of the GIC, by its name
    "GpexRoot": "test_the_root_of_a_generic_host",
}


def kinds(of: type[Device]) -> Iterator[type[Device]]:
    """All classes of ours that derive from one: tests have some of their own."""
    for kind in of.__subclasses__():
        if kind.__module__.startswith("dbt."):
            yield kind
            yield from kinds(kind)


def functions() -> Iterator[tuple[str, set[str]]]:
    """The tests of machines: their names, and the names in them and in what they use of their file."""
    for path in Path(__file__).parent.rglob("test_*.py"):
        tree = ast.parse(path.read_text())
        defined = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        for name, node in defined.items():
            if name.startswith("test_"):
                found: set[str] = set()
                left: list[ast.AST] = [node]
                while left:
                    for inner in ast.walk(left.pop()):
                        used = inner.id if isinstance(inner, ast.Name) else ""
                        if used not in found and used in defined:
                            left.append(defined[used])
                        found.add(used)
                yield name, found


def test_every_device_is_fuzzed() -> None:
    for module in pkgutil.walk_packages(dbt.machine.__path__, "dbt.machine."):
        import_module(module.name)
    tests = list(functions())
    fuzzed = {name for _, names in tests if "fuzz" in names for name in names}
    names_of = {"GICv3Redistributor": "GICv3"}
    for name, test in OTHERWISE.items():
        assert any(test == each and names_of.get(name, name) in names for each, names in tests), name
    known = {
        kind.__name__
        for kind in kinds(Device)
        if (kind.REGISTERS or issubclass(kind, PciFunction)) and not any(kinds(kind))
    }
    assert known - fuzzed - OTHERWISE.keys() == set()
    assert len(known) > 30


def test_the_root_of_a_generic_host() -> None:
    random = Random(8)
    machine = Machine()
    root = GpexRoot("root", machine, bus=PciBus("pci", machine), slot=0)
    machine.reset()
    for _ in range(OPERATIONS // 2):  # each reads and writes
        poke(root, random)
    saved = machine.save()
    machine.restore(saved)
    assert machine.save() == saved
    assert root.config_read(0, 4) == 0x0008_1B36


def test_configuration_ports() -> None:
    def make(machine: Machine) -> Device:
        bus = PciBus("pci", machine)
        GpexRoot("root", machine, bus=bus, slot=0)
        return ConfigPorts("config", machine, bus)

    def also(device: Device, random: Random) -> None:
        offset, size = random.randrange(4), random.choice((1, 2, 4))
        region = device.regions["DATA"]
        region.write(offset & -size, size, random.getrandbits(8 * size), device.attributes)
        assert 0 <= region.read(offset & -size, size, device.attributes) < 1 << 8 * size

    fuzz(make, 0xCF8, also=also)


def test_a_channel_of_an_isa_bus() -> None:
    disks = []

    def make(machine: Machine) -> Device:
        disks.append(memory_disk(1 << 20))
        return IdeChannel("ide", machine, drives=(hard_disk(machine, disks[-1]),))

    fuzz(make, 0x1F0, settle=lambda machine: drained(machine, *disks))
