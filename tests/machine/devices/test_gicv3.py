"""Drivers for the GICv3 from IHI 0069; random traffic."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.machine.devices.gicv3 import GICv3
from dbt.machine.devices.gicv3_cpu import GICv3CpuInterface, encoding
from dbt.machine.document import document
from dbt.machine.errors import MapError
from dbt.machine.log import GUEST_ERROR
from dbt.machine.machine import Machine

from tests.machine import icc
from tests.machine.fuzzing import fuzz, value
from tests.machine.gicv3 import GICD, GICR, SGI, build, start

if TYPE_CHECKING:
    from dbt.machine.device import Device

SPURIOUS = 1023


def test_priorities_preemption_and_the_end_of_interrupts() -> None:
    machine, gic = build()
    bus = machine.memory
    (cpu,) = start(machine, gic)
    inputs = {number: gic.spi(number) for number in (40, 41, 42)}
    bus.write(GICD + 0x108, 4, 0x700)
    for number, priority in ((40, 0xA0), (41, 0x80), (42, 0x40)):
        bus.write(GICD + 0x400 + 32 + number, 1, priority)
    inputs[40].set(True)
    assert cpu.lines == (True, False)
    assert (cpu[icc.HPPIR0], cpu[icc.HPPIR1], cpu[icc.IAR0], cpu[icc.IAR1]) == (SPURIOUS, 72, SPURIOUS, 72)
    assert (cpu.lines, cpu[icc.RPR], cpu[icc.IAR1]) == ((False, False), 0xA0, SPURIOUS)
    inputs[41].set(True)
    inputs[42].set(True)
    assert [cpu[icc.IAR1], cpu[icc.RPR], cpu[icc.IAR1]] == [74, 0x40, SPURIOUS]
    assert [cpu[icc.AP1R + n] for n in range(4)] == [0, 1 << 0x40 // 2 - 32, 1 << 0xA0 // 2 - 64, 0]
    inputs[42].set(False)
    saved = json.loads(json.dumps(machine.save()))
    cpu[icc.EOIR0] = 74  # nothing of group 0 runs
    assert cpu[icc.RPR] == 0x40
    cpu[icc.EOIR1] = 74
    assert [cpu[icc.IAR1], cpu[icc.RPR]] == [73, 0x80]
    inputs[41].set(False)
    cpu[icc.EOIR1] = 73
    cpu[icc.EOIR1] = 72
    cpu[icc.EOIR1] = SPURIOUS
    assert cpu[icc.RPR] == 0xFF
    assert cpu[icc.IAR1] == 72  # its level is still up
    other, copy = build()
    other.restore(saved)
    (again,) = (type(cpu)(interface) for interface in copy.interfaces)
    assert (again[icc.RPR], again[icc.IAR1], again.lines) == (0x40, SPURIOUS, (False, False))
    again[icc.EOIR1] = 74
    assert again.lines == (True, False)
    assert again[icc.IAR1] == 73


def test_the_binary_point_says_what_preempts() -> None:
    machine, gic = build()
    bus = machine.memory
    (cpu,) = start(machine, gic)
    bus.write(GICD + 0x108, 4, 0x700)
    for number, priority in ((40, 0x9C), (41, 0x98), (42, 0x80)):
        bus.write(GICD + 0x400 + 32 + number, 1, priority)
    inputs = [gic.spi(number) for number in (40, 41, 42)]
    cpu[icc.BPR1] = 4
    inputs[0].set(True)
    assert (cpu[icc.IAR1], cpu[icc.RPR]) == (72, 0x90)
    inputs[1].set(True)
    assert (cpu[icc.HPPIR1], cpu[icc.IAR1]) == (73, SPURIOUS)
    cpu[icc.BPR1] = 0  # the least is 1
    assert cpu[icc.BPR1] == 1
    inputs[2].set(True)
    assert (cpu[icc.IAR1], cpu[icc.RPR]) == (74, 0x80)
    cpu[icc.BPR0] = 5
    cpu[icc.CTLR] = 1  # one binary point for both groups
    assert cpu[icc.BPR1] == 6
    cpu[icc.BPR1] = 2
    assert (cpu[icc.BPR0], cpu[icc.BPR1]) == (5, 6)
    cpu[icc.CTLR] = 0
    assert (cpu[icc.BPR1], cpu[icc.CTLR]) == (1, 0x8700)
    cpu[icc.PMR] = 0x80
    assert [cpu[icc.HPPIR1], cpu[icc.PMR]] == [73, 0x80]
    cpu[icc.AP1R + 2] = 0
    assert cpu[icc.RPR] == 0xFF
    assert cpu.lines == (False, False)
    cpu[icc.PMR] = 0x99
    assert cpu.lines == (True, False)


def test_groups_are_fast_and_ordinary_interrupts() -> None:
    machine, gic = build(2)
    bus = machine.memory
    cpu, other = start(machine, gic)
    bus.write(GICR + SGI + 0x80, 4, 0xFFFF_FFFE)  # SGI 0 is of group 0
    cpu[icc.SGI0R] = 0x1
    assert (cpu.lines, cpu[icc.HPPIR0], cpu[icc.HPPIR1]) == ((False, True), 0, SPURIOUS)
    assert (cpu[icc.IAR1], cpu[icc.IAR0]) == (SPURIOUS, 0)
    assert [cpu[icc.AP0R], cpu[icc.AP1R]] == [1, 0]
    cpu[icc.EOIR1] = 0
    assert cpu[icc.RPR] == 0
    cpu[icc.EOIR0] = 0
    assert cpu[icc.RPR] == 0xFF
    cpu[icc.SGI1R] = 0x1  # is not of group 1
    assert cpu.lines == (False, False)
    cpu[icc.ASGI1R] = 0x3  # is of group 0 here only
    assert (cpu.lines, other.lines) == ((False, True), (False, False))
    bus.write(GICD, 4, 2)
    assert cpu.lines == (False, False)


def test_ends_may_be_split() -> None:
    machine, gic = build(2)
    bus = machine.memory
    cpu, other = start(machine, gic)
    line = gic.spi(3)
    bus.write(GICD + 0x104, 4, 1 << 3)
    bus.write(GICD + 0xC08, 4, 2 << 6)  # an edge
    cpu[icc.DIR] = 35
    assert machine.log.counts[GUEST_ERROR] == 1
    cpu[icc.CTLR] = other[icc.CTLR] = 2
    line.pulse()
    assert cpu[icc.IAR1] == 35
    line.pulse()
    cpu[icc.EOIR1] = 35
    assert (cpu[icc.RPR], cpu.lines, bus.read(GICD + 0x304, 4)) == (0xFF, (False, False), 8)
    other[icc.DIR] = 35  # any CPU may do so
    assert (cpu.lines, bus.read(GICD + 0x304, 4)) == ((True, False), 0)


def test_software_interrupts_reach_clusters() -> None:
    affinities = [0x000, 0x001, 0x00F, 0x100, 0x1_0002, 0x2_0000_0000]
    machine, gic = build(affinities=affinities)
    cpus = start(machine, gic)
    types = [machine.memory.read(GICR + 0x2_0000 * n + 8, 8) for n in range(6)]
    assert [kind >> 32 for kind in types] == [0, 1, 0xF, 0x100, 0x1_0002, 0x200_0000]
    assert [kind >> 8 & 0xFFFF for kind in types] == list(range(6))
    assert [kind >> 4 & 1 for kind in types] == [0, 0, 0, 0, 0, 1]

    def reached(write: int) -> list[int]:
        cpus[1][icc.SGI1R] = write
        found = [number for number, cpu in enumerate(cpus) if cpu.lines[0]]
        for number in found:
            assert cpus[number][icc.IAR1] == write >> 24 & 15
            cpus[number][icc.EOIR1] = write >> 24 & 15
        return found

    assert reached(5 << 24 | 0x8003) == [0, 1, 2]
    assert reached(1 << 16 | 15 << 24 | 0xFFFF) == [3]
    assert reached(1 << 32 | 0xFFFF) == [4]
    assert reached(2 << 48 | 7 << 24 | 1) == [5]
    assert reached(1 << 40 | 7 << 24) == [0, 2, 3, 4, 5]
    assert reached(9 << 16 | 1) == []


def test_shared_interrupts_go_where_they_are_sent_and_move() -> None:
    machine, gic = build(4)
    bus = machine.memory
    cpus = start(machine, gic)
    line = gic.spi(8)
    bus.write(GICD + 0x104, 4, 1 << 8)
    router = GICD + 0x6000 + 8 * 40
    bus.write(router, 8, 2)
    line.set(True)
    assert [cpu.lines[0] for cpu in cpus] == [False, False, True, False]
    bus.write(router, 8, 1)
    assert [cpu.lines[0] for cpu in cpus] == [False, True, False, False]
    bus.write(router, 8, 9)  # there is no such CPU
    assert not any(cpu.lines[0] for cpu in cpus)
    bus.write(router, 8, 3)
    assert cpus[3][icc.IAR1] == 40
    bus.write(router, 8, 0)
    assert not any(cpu.lines[0] for cpu in cpus)  # it is active
    cpus[3][icc.EOIR1] = 40
    assert [cpu.lines[0] for cpu in cpus] == [True, False, False, False]
    ppi = gic.ppi(2, 11)
    frame = GICR + 2 * 0x2_0000 + SGI
    bus.write(frame + 0x100, 4, 1 << 27)
    ppi.set(True)
    assert [cpu.lines[0] for cpu in cpus] == [True, False, True, False]
    assert (cpus[2][icc.IAR1], bus.read(frame + 0x300, 4), bus.read(frame + 0x200, 4)) == (27, 1 << 27, 1 << 27)
    cpus[1][icc.EOIR1] = 27
    assert bus.read(frame + 0x300, 4) == 1 << 27


def test_some_interrupts_go_to_any_cpu() -> None:
    machine, gic = build(3)
    bus = machine.memory
    cpus = start(machine, gic)
    bus.write(GICD + 0x104, 4, 0xF00)
    for number in range(40, 44):
        bus.write(GICD + 0x6000 + 8 * number, 8, 1 << 31)
    inputs = [gic.spi(number) for number in range(8, 12)]
    for line in inputs:
        line.set(True)
    assert [cpu.lines[0] for cpu in cpus] == [True, False, False]
    assert cpus[1][icc.IAR1] == SPURIOUS
    assert cpus[0][icc.IAR1] == 40  # the busy one is left alone
    assert [cpu.lines[0] for cpu in cpus] == [False, True, False]
    bus.write(GICR + 0x2_0000, 4, 1 << 25)  # DPG1NS
    assert [cpu.lines[0] for cpu in cpus] == [False, False, True]
    assert cpus[2][icc.IAR1] == 41
    assert not any(cpu.lines[0] for cpu in cpus)
    bus.write(GICR + 0x2_0000, 4, 0)
    cpus[1][icc.CTLR] = 0x40  # PMHE: its mask is a hint
    cpus[1][icc.PMR] = 0
    assert cpus[1][icc.HPPIR1] == SPURIOUS
    cpus[1][icc.PMR] = 0xF0
    saved = json.loads(json.dumps(machine.save()))
    assert cpus[1][icc.IAR1] == 42
    other, copy = build(3)
    other.restore(saved)
    assert [irq.level for irq in copy.irq] == [False, True, False]
    cpus[2][icc.IGRPEN1] = 0
    cpus[0][icc.EOIR1] = 40
    inputs[0].set(False)
    assert cpus[0][icc.IAR1] == 43


def test_sleeping_cpus_are_woken() -> None:
    machine, gic = build(2)
    bus = machine.memory
    cpus = start(machine, gic)
    frame = GICR + 0x2_0000
    bus.write(frame + 0x14, 4, 2)
    assert bus.read(frame + 0x14, 4) == 6
    cpus[0][icc.SGI1R] = 3 << 24 | 2
    asleep = gic.redistributors[1]
    assert (cpus[1].lines, cpus[1][icc.HPPIR1], asleep.wake_request.level) == ((False, False), SPURIOUS, True)
    bus.write(frame + 0x14, 4, 0)
    assert (cpus[1].lines, bus.read(frame + 0x14, 4)) == ((True, False), 0)
    woken = bool(asleep.wake_request.level)
    assert not woken


def test_messages_become_shared_interrupts() -> None:
    machine, gic = build()
    bus = machine.memory
    (cpu,) = start(machine, gic)
    machine.msi.add(GICD + 0x40, 4, gic.message)
    bus.write(GICD + 0x108, 4, 0b11)
    bus.write(GICD + 0xC10, 4, 0b10)  # 64 is an edge, 65 a level
    assert machine.msi.send(GICD + 0x40, 64, 0x10)
    assert cpu[icc.IAR1] == 64
    bus.write(GICD + 0x40, 2, 64)
    bus.write(GICD + 0x48, 4, 64)
    cpu[icc.EOIR1] = 64
    assert cpu.lines == (False, False)
    bus.write(GICD + 0x40, 4, 65)
    for _ in range(2):
        assert cpu[icc.IAR1] == 65
        cpu[icc.EOIR1] = 65
    bus.write(GICD + 0x48, 4, 65)
    assert cpu.lines == (False, False)
    errors = machine.log.counts[GUEST_ERROR]
    bus.write(GICD + 0x40, 4, 31)
    bus.write(GICD + 0x40, 4, 500)
    assert machine.log.counts[GUEST_ERROR] == errors + 2


def test_what_is_no_register() -> None:
    _, gic = build()
    interface = gic.interfaces[0]
    assert "| S3_0_C12_C12_0 | ICC_IAR1_EL1 | 8 | RO |" in document(GICv3CpuInterface)
    assert interface.read(icc.SGI1R) is None
    assert not interface.write(icc.IAR1, 0)
    assert interface.read(encoding(3, 4, 12, 8, 0)) is None  # ICH_AP0R0_EL2
    assert (interface.read(icc.SRE), interface.write(icc.SRE, 7), interface.read(icc.SRE)) == (7, True, 7)
    for affinities, interrupts in (((), 64), ((0, 0), 64), ((0,), 65), ((0,), 32), ((0,), 1056)):
        with pytest.raises(MapError, match="gic: "):
            GICv3("gic", Machine(), affinities=affinities, interrupts=interrupts)


@pytest.mark.parametrize("name", ["gic", "gic.redistributor1"])
def test_random_traffic(name: str) -> None:
    def make(machine: Machine) -> Device:
        GICv3("gic", machine, affinities=range(3), interrupts=96)
        return machine.devices[name]

    def also(device: Device, random: Random) -> None:
        gic = device.machine.devices["gic"]
        assert isinstance(gic, GICv3)
        if not gic._wires:
            for number in (0, 5, 63):
                gic.spi(number)
            gic.ppi(1, 3)
        random.choice([*gic._wires, *gic.redistributors[1]._wires])[2].set(random.random() < 0.5)
        interface = random.choice(gic.interfaces)
        register = random.choice(GICv3CpuInterface.LAYOUTS["ICC"].registers).offset // 8
        interface.read(register)
        interface.write(register, random.choice((0, 1, 0xFF, value(random, 8))))

    fuzz(make, 400, also=also, cpus=3)


def test_random_traffic_on_the_cpu_interface() -> None:
    random = Random(5)
    machine, gic = build(3, interrupts=96)
    start(machine, gic)
    registers = [offset // 8 for offset, _ in GICv3CpuInterface.LAYOUTS["ICC"].every()]
    wires = [gic.spi(0), gic.spi(40), gic.ppi(1, 3)]
    machine.memory.write(GICD + 0x104, 4, 0xFFFF_FFFF)
    machine.memory.write(GICD + 0x108, 4, 0xFFFF_FFFF)
    for _ in range(100_000):
        interface = random.choice(gic.interfaces)
        register = random.choice(registers)
        if random.random() < 0.5:
            result = interface.read(register)
            assert result is None or 0 <= result < 1 << 32
        else:
            interface.write(register, random.choice((0, 1, 2, 7, 0xFF, 35, random.getrandbits(64))))
        if random.random() < 0.1:
            random.choice(wires).set(random.random() < 0.5)
    saved = json.loads(json.dumps(machine.save()))
    other, _ = build(3, interrupts=96)
    other.restore(saved)
    assert other.save() == saved
    for state in (saved["devices"][f"gic.cpu{number}"]["state"] for number in range(3)):
        state["ICC_BPR0_EL1"] = state["ICC_BPR1_EL1"] = 1 << 63
    other.restore(saved)
