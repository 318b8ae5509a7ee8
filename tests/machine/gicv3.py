"""A machine with a GICv3 for tests, where QEMU's virt has one, and what a driver does with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.devices.gicv3 import GICv3
from dbt.machine.devices.gicv3_its import TRANSLATER, GICv3Its
from dbt.machine.machine import Machine
from dbt.machine.memory import RAM

from tests.machine import icc
from tests.machine.gic_inputs import place_inputs
from tests.machine.qtest import ARM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbt.machine.devices.gicv3_cpu import GICv3CpuInterface

    from tests.machine.qtest import Bus

GICD, GITS, GICR, MEMORY = 0x0800_0000, 0x0808_0000, 0x080A_0000, 0x4000_0000
SGI = 0x1_0000  # the second frame of a redistributor
MIB = 1 << 20
# QEMU's words for the same.
ARM3 = (ARM[0], "-machine", "virt,gic-version=3", "-smp", "2", "-nodefaults", "-serial", "null")
ARM3_RTC = ("-rtc", "base=2020-01-01T00:00:00,clock=vm")


def build(
    cpus: int = 1, *, affinities: Sequence[int] = (), interrupts: int = 288, native: bool = True
) -> tuple[Machine, GICv3]:
    """With the devices that tests of the GICv2 have as well."""
    machine = Machine(epoch=1_577_836_800, native=native)
    gic = GICv3("gic", machine, affinities=affinities or range(cpus), interrupts=interrupts)
    machine.place(gic, GICD)
    for number, redistributor in enumerate(gic.redistributors):
        machine.place(redistributor, GICR + 0x2_0000 * number)
    place_inputs(machine, gic)
    machine.place(RAM("ram", 128 * MIB), MEMORY)
    its = GICv3Its("its", machine, gic)
    machine.place(its, GITS)
    machine.msi.add(GITS + TRANSLATER, 4, its.message)
    machine.reset()
    return machine, gic


def masked(bus: Bus, address: int, size: int, mask: int) -> None:
    """A read of which some bits are not compared."""
    bus.read(address, size)
    kind, where, width, got = bus.log[-1]
    bus.log[-1] = kind, where, width, got & mask


class Cpu:
    """MRS and MSR of one CPU."""

    def __init__(self, interface: GICv3CpuInterface) -> None:
        self.interface = interface

    def __getitem__(self, register: int) -> int:
        value = self.interface.read(register)
        assert value is not None
        return value

    def __setitem__(self, register: int, value: int) -> None:
        assert self.interface.write(register, value)

    @property
    def lines(self) -> tuple[bool, bool]:
        return self.interface.irq.level, self.interface.fiq.level


def start(machine: Machine, gic: GICv3) -> list[Cpu]:
    """What a kernel does first: all is of group 1, every CPU is awake and takes everything."""
    bus = machine.memory
    bus.write(GICD, 4, 3)
    for word in range(1, gic.words):
        bus.write(GICD + 0x80 + 4 * word, 4, 0xFFFF_FFFF)
    cpus = []
    for number, interface in enumerate(gic.interfaces):
        frame = GICR + 0x2_0000 * number
        bus.write(frame + 0x14, 4, 0)
        bus.write(frame + SGI + 0x80, 4, 0xFFFF_FFFF)
        bus.write(frame + SGI + 0x100, 4, 0xFFFF)
        cpu = Cpu(interface)
        cpu[icc.SRE] = 7
        cpu[icc.PMR] = 0xFF
        cpu[icc.IGRPEN0] = cpu[icc.IGRPEN1] = 1
        cpus.append(cpu)
    return cpus
