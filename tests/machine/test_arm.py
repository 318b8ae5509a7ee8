"""What Arm boards have in common: interrupts of both GIC versions reach CPUs that sleep, device tree nodes."""

from __future__ import annotations

import json

import pytest
from dbt.machine.boards import Options, load
from dbt.machine.boards.arm import GICD, GICR, GITS, V2M, add_controller, add_power_key, add_psci, interrupts
from dbt.machine.boards.board import BoardMachine, Plugged
from dbt.machine.boards.devicetree import Node
from dbt.machine.devices.gicv3 import GICv3
from dbt.machine.devices.psci import Function as PsciFunction
from dbt.machine.devices.psci import Psci
from dbt.machine.machine import Machine
from dbt.machine.memory import RAM
from dbt.machine.pci import PciFunction
from dbt.machine.power import CpuState, RecordedCpu

from dbt.errors import UsageError
from tests.machine import icc
from tests.machine.devices.test_gicv2 import IAR, setup
from tests.machine.gic_inputs import GPIO
from tests.machine.gicv3 import MEMORY, MIB, start
from tests.machine.its import ITTS, LPIS, MAPTI, Its, event, mapc, mapd
from tests.machine.pci import ECAM, Config, Function
from tests.machine.qtest import Ours


def psci(machine: Machine) -> Psci:
    found = machine.devices["psci"]
    assert isinstance(found, Psci)
    return found


def states(machine: Machine) -> list[CpuState]:
    return [cpu.power_state for cpu in machine.cpus]


def test_interrupts_wake_cpus_version_2() -> None:
    machine = Machine()
    spi = interrupts(machine, 2, 2)
    machine.place(RAM("ram", MIB), MEMORY)
    machine.reset()
    setup(machine, 2)
    machine.memory.write(GICD + 0x104, 4, 1 << 5)
    machine.memory.write(GICD + 0x825, 1, 2)
    line = spi(5)
    assert psci(machine).call(0, PsciFunction.CPU_ON, 1, MEMORY, 0) == 0
    second = machine.cpus[1]
    assert isinstance(second, RecordedCpu)
    second.begin()
    psci(machine).call(1, PsciFunction.CPU_SUSPEND)
    psci(machine).call(0, PsciFunction.CPU_SUSPEND)
    assert states(machine) == [CpuState.STANDBY, CpuState.STANDBY]
    line.set(True)
    assert states(machine) == [CpuState.STANDBY, CpuState.ON]
    assert machine.msi.send(V2M + 0x40, 80, 0)


def test_messages_wake_cpus_version_3() -> None:
    machine = Machine()
    interrupts(machine, 3, 18)
    machine.place(RAM("ram", 128 * MIB), MEMORY)
    machine.reset()
    gic = machine.devices["gic"]
    assert isinstance(gic, GICv3)
    assert [cpu.affinity for cpu in machine.cpus][15:] == [0xF, 0x100, 0x101]
    cpus = start(machine, gic)
    psci(machine).call(0, PsciFunction.CPU_SUSPEND, 1 << 16, MEMORY)
    its = Its(Ours(machine), 18)
    its.start()
    its.configure(LPIS + 7, 0x80)
    its.do(mapc(0, 17), mapc(1, 0), mapd(0x10, ITTS), event(MAPTI, 0x10, 3, 1, LPIS + 7))
    assert machine.memory.read(GITS, 4) == 1 << 31 | 1
    assert machine.msi.send(GITS + 0x1_0040, 3, 0x10)
    assert states(machine)[0] == CpuState.PENDING
    assert cpus[0][icc.IAR1] == LPIS + 7
    assert machine.msi.send(GICD + 0x40, 40, 0)
    assert machine.memory.read(GICR + 17 * 0x2_0000 + 8, 8) == 0x101 << 32 | 1 << 24 | 17 << 8 | 1 << 5 | 1 << 4 | 1


def test_device_tree_nodes() -> None:
    names = []
    for version in (2, 3):
        machine = Machine()
        interrupts(machine, version, 2)
        root = Node("")
        add_controller(machine, root, 1, 2)
        add_psci(root)
        add_power_key(root, 3, 3)
        names.append([child.name for node in root.children for child in (node, *node.children)])
        assert root.flatten()
    assert names == [
        ["intc@8000000", "v2m@8020000", "psci", "gpio-keys", "poweroff"],
        ["intc@8000000", "its@8080000", "psci", "gpio-keys", "poweroff"],
    ]


def test_limits() -> None:
    for version, cpus, says in ((1, 1, "versions: 2, 3"), (2, 9, "up to 8"), (3, 124, "up to 123")):
        with pytest.raises(UsageError, match=says):
            interrupts(Machine(), version, cpus)


def plugged(gic: int) -> tuple[BoardMachine, Ours, PciFunction, int]:
    """A `virt` with a PCI function whose first vector is set up: machine, bus, function, requester ID."""
    board = load("virt")
    machine = board.build(Options(ram=128 * MIB, gic=gic, devices=(Plugged("virtio_rng", "rng", slot=3),)))
    board.assign(machine)
    bus = Ours(machine)
    place = next(place for place, found in Config(bus, ECAM).scan() if found & 0xFFFF == 0x1AF4)
    function = Function(Config(bus, ECAM), place)
    function.place()
    function.enable_msix([(GITS + 0x1_0040, 5) if gic == 3 else (V2M + 0x40, 90)])
    device = machine.devices["rng.pci"]
    assert isinstance(device, PciFunction)
    return machine, bus, device, place[1] << 3 | place[2]


def test_vectors_of_pci_functions_reach_the_cpu_version_2() -> None:
    machine, bus, device, _ = plugged(2)
    setup(machine)
    bus.write(GICD + 0x108, 1 << 90 - 64)
    bus.write(GICD + 0xC14, 0xAAAA_AAAA)
    device.interrupt(0)
    assert [bus.read(IAR), bus.read(IAR)] == [90, 1023]


def test_vectors_of_pci_functions_reach_the_cpu_version_3() -> None:
    machine, bus, device, requester = plugged(3)
    gic = machine.devices["gic"]
    assert isinstance(gic, GICv3)
    (cpu,) = start(machine, gic)
    its = Its(bus, 1)
    its.start()
    its.configure(LPIS + 9, 0xA0)
    its.do(mapc(0, 0), mapd(requester, ITTS), event(MAPTI, requester, 5, 0, LPIS + 9))
    device.interrupt(0)
    assert [cpu[icc.IAR1], cpu[icc.IAR1]] == [LPIS + 9, 1023]


def test_the_power_button_is_a_pin() -> None:
    machine = load("virt").build(Options(ram=128 * MIB))
    setup(machine)
    bus = machine.memory
    bus.write(GICD + 0x104, 4, 1 << 7)
    bus.write(GPIO + 0x40C, 1, 8)  # rising edges of pin 3
    bus.write(GPIO + 0x410, 1, 8)
    machine.power.button.pulse()
    assert (bus.read(IAR, 4), bus.read(GPIO + 0x418, 4)) == (39, 8)


def test_a_virt_with_version_3_is_saved_and_comes_back() -> None:
    machines = [load("virt").build(Options(ram=128 * MIB, gic=3, cpus=3)) for _ in range(2)]
    gic = machines[0].devices["gic"]
    assert isinstance(gic, GICv3)
    cpus = start(machines[0], gic)
    cpus[0][icc.SGI1R] = 4 << 24 | 0b110
    assert cpus[2][icc.IAR1] == 4
    saved = json.loads(json.dumps(machines[0].save()))
    machines[1].restore(saved)
    assert machines[1].save() == saved
    other = machines[1].devices["gic"]
    assert isinstance(other, GICv3)
    assert [irq.level for irq in other.irq] == [False, True, False]
