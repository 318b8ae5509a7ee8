"""Local APIC: drivers from the SDM; random machines are in test_apic_model.py."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from dbt.machine.devices.apic import ALL, IA32_APIC_BASE, IA32_TSC_DEADLINE, OTHERS, SELF, LocalApic
from dbt.machine.devices.apic_bus import EXTINT, INIT, MSI_BASE, NMI, SMI, STARTUP, ApicBus
from dbt.machine.log import GUEST_ERROR

from tests.machine.apic import (
    APR,
    CURRENT,
    DFR,
    DIVIDE,
    ENABLE,
    EOI,
    ERROR,
    ESR,
    ID,
    INITIAL,
    IOAPIC,
    IRR,
    ISR,
    LDR,
    LEVEL,
    LINT0,
    LINT1,
    MASKED,
    PAGE,
    PPR,
    SVR,
    TIMER,
    TPR,
    VER,
    Cpus,
)
from tests.machine.fuzzing import fuzz

if TYPE_CHECKING:
    from dbt.machine.device import Device
    from dbt.machine.machine import Machine


def test_registers_after_reset_and_each_cpu_sees_its_own() -> None:
    cpus = Cpus(3)
    assert [cpus.get(n, ID) >> 24 for n in range(3)] == [0, 1, 2]
    assert {cpus.get(1, VER), cpus.get(1, SVR), cpus.get(1, DFR)} == {0x0105_0014, 0xFF, 0xFFFF_FFFF}
    assert [cpus.get(1, entry) for entry in (TIMER, 0x330, 0x340, LINT0, LINT1, ERROR)] == [MASKED] * 6
    cpus.put(1, TIMER, 0x30)
    assert cpus.get(1, TIMER) == MASKED | 0x30  # software disabled: entries stay masked
    cpus.put(1, SVR, ENABLE)
    cpus.put(1, TIMER, 0x30)
    assert cpus.get(1, TIMER) == 0x30
    assert cpus.get(0, TIMER) == MASKED
    cpus.put(1, SVR, 0xFF)
    assert cpus.get(1, TIMER) == MASKED | 0x30
    assert cpus.machine.memory.read(PAGE + ID, 4) == 0xFFFF_FFFF  # nobody's
    cpus.put(1, 0x40, 1)
    assert cpus.get(1, ESR) == 0
    cpus.put(1, ESR, 0)
    assert cpus.get(1, ESR) == 0x80
    assert cpus.machine.log.counts[GUEST_ERROR] >= 1


def test_nesting_by_priority_classes() -> None:
    cpus = Cpus(1)
    cpus.enable()
    apic = cpus.apics[0]
    for vector in (0x45, 0x41, 0x62):
        cpus.send(0, SELF << 18 | vector)
    assert apic.acknowledge() == 0x62
    assert (cpus.get(0, PPR), apic.intr.level) == (0x60, False)
    cpus.send(0, SELF << 18 | 0x6F)  # the same class waits
    assert not apic.intr.level
    cpus.send(0, SELF << 18 | 0x71)
    assert apic.acknowledge() == 0x71
    cpus.put(0, EOI, 0)
    assert (cpus.get(0, PPR), apic.intr.level) == (0x60, False)
    cpus.put(0, EOI, 0)
    assert apic.acknowledge() == 0x6F
    cpus.put(0, EOI, 0)
    cpus.put(0, TPR, 0x45)
    assert (cpus.get(0, PPR), cpus.get(0, APR), apic.intr.level) == (0x45, 0x45, False)
    assert apic.acknowledge() == 0xFF  # spurious, and nothing is in service
    assert cpus.bits(0, ISR) == set()
    apic.cr8 = 3
    assert (cpus.get(0, TPR), apic.acknowledge(), apic.cr8) == (0x30, 0x45, 3)
    other = Cpus(1)
    other.machine.restore(cpus.machine.save())
    assert (other.bits(0, ISR), other.bits(0, IRR), other.asked) == ({0x45}, {0x41}, [False])
    other.put(0, EOI, 0)
    assert other.apics[0].acknowledge() == 0x41


def test_levels_ask_again_and_move_to_another_cpu() -> None:
    cpus = Cpus(3)
    cpus.enable()
    line = cpus.ioapic.input(16)
    cpus.redirect(16, 1 << 56 | LEVEL | 0x51)
    line.set(True)
    assert cpus.asked == [False, True, False]
    assert cpus.apics[1].acknowledge() == 0x51
    assert cpus.redirection(16) & 1 << 14
    cpus.redirect(16, 2 << 56 | LEVEL | 0x51)  # to another CPU, while the first one serves it
    assert cpus.asked == [False] * 3
    cpus.put(1, EOI, 0)
    assert cpus.asked == [False, False, True]
    line.set(False)
    assert cpus.apics[2].acknowledge() == 0x51
    cpus.put(2, SVR, ENABLE | 0x1000)  # the end is told by hand
    cpus.put(2, EOI, 0)
    assert cpus.redirection(16) & 1 << 14
    line.set(True)
    assert cpus.asked == [False] * 3
    cpus.machine.memory.write(IOAPIC + 0x40, 4, 0x51)
    assert cpus.asked == [False, False, True]
    cpus.redirect(3, 0x62)
    cpus.put(0, TPR, 0x70)
    cpus.ioapic.input(3).pulse()
    assert (cpus.asked[0], cpus.bits(0, IRR)) == (False, {0x62})
    low = cpus.ioapic.input(20, low=True)
    cpus.redirect(20, 1 << 13 | LEVEL | 0x90)
    assert not cpus.asked[0]
    low.set(True)
    assert cpus.apics[0].acknowledge() == 0x90


def test_messages_start_and_stop_cpus() -> None:
    cpus = Cpus(4)
    cpus.enable()
    cpus.send(0, OTHERS << 18 | INIT << 8 | 0x4000)
    assert [events.seen for events in cpus.events] == [[], ["init"], ["init"], ["init"]]
    assert cpus.get(2, SVR) == 0xFF
    cpus.send(0, INIT << 8 | 0x8000, 2)  # de-assert: nothing
    for _ in range(2):  # the second one finds nobody waiting
        cpus.send(0, STARTUP << 8 | 0x4000 | 0x9A, 2)
    assert cpus.events[2].seen == ["init", "start 0x9a"]
    cpus.send(1, NMI << 8 | 0x4000, 0)
    cpus.send(1, SMI << 8 | 0x4000, 0xFF)
    assert [events.seen[-1] for events in cpus.events] == ["smi"] * 4
    assert cpus.events[0].seen == ["nmi", "smi"]
    cpus.send(0, INIT << 8 | 0x4000)
    assert (cpus.events[0].seen[-1], cpus.apics[0].waits) == ("init", 0)
    before = cpus.machine.log.counts[GUEST_ERROR]
    cpus.put(0, SVR, ENABLE)
    for command in (SELF << 18 | NMI << 8, ALL << 18 | INIT << 8 | 0x4000, EXTINT << 8, 3 << 8):
        cpus.send(0, command)
    assert cpus.machine.log.counts[GUEST_ERROR] == before + 4
    assert cpus.events[0].seen[-1] == "init"


def test_errors_ask_by_their_own_vector() -> None:
    cpus = Cpus(2)
    cpus.enable()
    cpus.put(0, ERROR, 0x33)
    cpus.send(0, 0x0F, 1)
    assert cpus.apics[0].acknowledge() == 0x33
    cpus.put(0, EOI, 0)
    cpus.put(0, ESR, 0)
    assert cpus.get(0, ESR) == 0x20
    cpus.bus.msi(1 << 12, 0x05, 0)
    cpus.put(1, ESR, 0)
    assert (cpus.get(1, ESR), cpus.bits(1, IRR)) == (0x40, set())
    cpus.put(0, ERROR, 0x05)  # errors whose vector is an error
    cpus.send(0, 0x0F, 1)
    cpus.put(0, ESR, 0)
    assert cpus.get(0, ESR) == 0x60


def test_messages_of_devices() -> None:
    cpus = Cpus(4)
    cpus.enable()
    assert cpus.bus.msi(2 << 12, 0x4055, 0)
    assert cpus.apics[2].acknowledge() == 0x55
    assert cpus.bus.msi(0xFF << 12, 0x0041, 0)
    assert cpus.asked == [True, True, False, True]  # CPU 2 serves 0x55
    for n in range(4):
        cpus.put(n, LDR, 1 << 24 + n)
    cpus.put(1, TPR, 0x80)
    assert cpus.bus.msi(0b1010 << 12 | 0xC, 0x0091, 0)  # redirection hint: the least busy of CPUs 1 and 3
    assert cpus.bits(3, IRR) == {0x41, 0x91}
    assert cpus.bus.msi(0b0010 << 12 | 0x4, 0x0400, 0)
    assert cpus.events[1].seen == ["nmi"]
    assert not cpus.bus.msi(9 << 12, 0x0041, 0)
    assert not cpus.bus.msi(0, 0x8041, 0)


def test_local_inputs() -> None:
    cpus = Cpus(1)
    apic, events = cpus.apics[0], cpus.events[0].seen
    apic.write_msr(IA32_APIC_BASE, PAGE | 0x100)  # disabled: the pins are INTR and NMI
    apic.lint0.set(True)
    apic.lint1.pulse()
    assert (apic.intr.level, events) == (True, ["nmi"])
    assert apic.acknowledge() == 0x77
    apic.lint0.set(False)
    assert not apic.intr.level
    apic.write_msr(IA32_APIC_BASE, PAGE | 0x900)
    cpus.enable()
    cpus.vectors.append(0x78)
    cpus.put(0, LINT0, EXTINT << 8)
    cpus.put(0, LINT1, NMI << 8)
    apic.lint0.set(True)
    apic.lint1.pulse()
    assert (apic.intr.level, events) == (True, ["nmi", "nmi"])
    assert apic.acknowledge() == 0x78
    apic.lint0.set(False)
    cpus.put(0, LINT0, LEVEL | 0x66)
    apic.lint0.set(True)
    assert (apic.acknowledge(), cpus.get(0, LINT0)) == (0x66, LEVEL | 1 << 14 | 0x66)
    cpus.put(0, EOI, 0)
    assert apic.acknowledge() == 0x66
    apic.lint0.set(False)
    cpus.put(0, EOI, 0)
    assert (apic.intr.level, cpus.get(0, LINT0)) == (False, LEVEL | 0x66)
    cpus.put(0, LINT1, 1 << 13 | 0x67)  # low active: the edge is the way down
    apic.lint1.set(True)
    assert not apic.intr.level
    apic.lint1.set(False)
    assert apic.acknowledge() == 0x67
    cpus.put(0, EOI, 0)
    cpus.put(0, 0x340, NMI << 8)
    apic.performance()
    assert (events[-1], cpus.get(0, 0x340) & MASKED) == ("nmi", MASKED)
    cpus.put(0, 0x330, 0x44)
    apic.thermal()
    assert apic.acknowledge() == 0x44
    apic.lint0.set(True)
    apic.reset()  # the wire stays as it is
    apic.write_msr(IA32_APIC_BASE, PAGE | 0x100)
    assert cpus.asked == [True]
    apic.lint0.set(False)
    apic.write_msr(IA32_APIC_BASE, PAGE | 0x900)
    cpus.enable()
    cpus.vectors.append(0x79)
    cpus.redirect(0, EXTINT << 8)
    cpus.ioapic.input(0).pulse()
    assert (apic.acknowledge(), apic.intr.level) == (0x79, False)


def test_the_timer_counts_once_and_again() -> None:
    cpus = Cpus(1)
    cpus.enable()
    apic, machine = cpus.apics[0], cpus.machine
    cpus.put(0, DIVIDE, 0b0011)  # by 16
    cpus.put(0, TIMER, 0x40)
    cpus.put(0, INITIAL, 1000)
    machine.advance(8000)
    assert (cpus.get(0, CURRENT), apic.intr.level) == (500, False)
    cpus.put(0, DIVIDE, 0b1011)  # by 1
    machine.advance(499)
    assert (cpus.get(0, CURRENT), apic.intr.level) == (1, False)
    machine.advance(1)
    assert (cpus.get(0, CURRENT), apic.acknowledge()) == (0, 0x40)
    machine.advance(10_000)
    assert cpus.asked == [False]
    cpus.put(0, EOI, 0)
    cpus.put(0, TIMER, 1 << 17 | 0x41)
    cpus.put(0, INITIAL, 300)
    got = []
    for _ in range(30):
        machine.advance(100)
        if apic.intr.level:
            got.append((machine.clock.now % 300, apic.acknowledge()))
            cpus.put(0, EOI, 0)
    assert got == [((machine.clock.now - 3000) % 300, 0x41)] * 10
    cpus.put(0, INITIAL, 1)
    machine.advance(10**12)  # a period that nobody sees costs nothing
    assert apic.acknowledge() == 0x41
    cpus.put(0, INITIAL, 100)
    cpus.put(0, EOI, 0)
    machine.advance(30)
    other = Cpus(1)
    other.machine.restore(machine.save())
    other.machine.advance(70)
    assert other.asked == [True]
    cpus.put(0, TIMER, MASKED | 1 << 17 | 0x41)
    machine.advance(1030)
    assert (apic.intr.level, cpus.get(0, CURRENT)) == (False, 40)
    cpus.put(0, INITIAL, 0)
    assert cpus.get(0, CURRENT) == 0


def test_the_timer_as_a_deadline() -> None:
    cpus = Cpus(1)
    cpus.enable()
    apic, machine = cpus.apics[0], cpus.machine
    apic.write_msr(IA32_TSC_DEADLINE, 500)
    assert apic.read_msr(IA32_TSC_DEADLINE) == 0  # another mode
    cpus.put(0, TIMER, 2 << 17 | 0x42)
    machine.advance(100)
    apic.tsc_offset = 1000
    apic.write_msr(IA32_TSC_DEADLINE, 1500)
    cpus.put(0, INITIAL, 5)
    machine.advance(399)
    assert (apic.read_msr(IA32_TSC_DEADLINE), apic.intr.level, cpus.get(0, CURRENT)) == (1500, False, 0)
    machine.advance(1)
    assert (apic.read_msr(IA32_TSC_DEADLINE), apic.acknowledge()) == (0, 0x42)
    cpus.put(0, EOI, 0)
    apic.write_msr(IA32_TSC_DEADLINE, 1)  # long ago
    assert apic.acknowledge() == 0x42
    apic.write_msr(IA32_TSC_DEADLINE, (1 << 64) - 1)
    machine.advance(1 << 62)
    apic.write_msr(IA32_TSC_DEADLINE, 0)
    assert apic.timer.deadline is None


def test_modes_and_registers_as_msrs() -> None:
    cpus = Cpus(3)
    apic = cpus.apics[2]
    assert apic.read_msr(IA32_APIC_BASE) == PAGE | 0x800
    assert cpus.apics[0].read_msr(IA32_APIC_BASE) == PAGE | 0x900
    assert apic.read_msr(0x802) is None
    for wrong in (PAGE | 0x400, PAGE | 0x801, 1 << 50 | 0x800):
        assert not apic.write_msr(IA32_APIC_BASE, wrong)
    assert apic.write_msr(IA32_APIC_BASE, 0x1234_5000 | 0x800)  # elsewhere
    assert cpus.spaces[2].read(0x1234_5020, 4) == 2 << 24
    assert cpus.spaces[2].read(PAGE + ID, 4) == 0xFFFF_FFFF
    assert apic.write_msr(IA32_APIC_BASE, PAGE | 0xC00)
    assert cpus.spaces[2].read(PAGE + ID, 4) == 0xFFFF_FFFF
    assert not apic.write_msr(IA32_APIC_BASE, PAGE | 0x800)
    assert [apic.read_msr(0x802), apic.read_msr(0x80D), apic.read_msr(0x80E), apic.read_msr(0x831)] == [
        2,
        4,
        None,
        None,
    ]
    assert apic.write_msr(0x80F, 0x1FF)
    for index, value in ((0x802, 0), (0x80A, 0), (0x80D, 1), (0x80B, 1), (0x808, 0x100), (0x828, 1), (0x83F, 0x100)):
        assert not apic.write_msr(index, value), hex(index)
    assert apic.write_msr(0x83F, 0x99)
    assert apic.acknowledge() == 0x99
    assert apic.read_msr(0x814) == 1 << 25
    assert apic.write_msr(0x80B, 0)
    cpus.put(0, SVR, ENABLE)
    assert apic.write_msr(0x830, 0 << 32 | 0x98)
    assert cpus.bits(0, IRR) == {0x98}
    assert apic.read_msr(0x830) == 0x98
    assert apic.write_msr(0x830, 0xFFFF_FFFF << 32 | 0x97)
    assert (cpus.bits(0, IRR), apic.acknowledge()) == ({0x97, 0x98}, 0x97)
    cpus.send(0, 0x800 | 0x96, 0b0100)  # logical: cluster 0, member 2
    assert apic.read_msr(0x824) == 1 << 22
    assert apic.write_msr(IA32_APIC_BASE, PAGE)
    assert not apic.write_msr(IA32_APIC_BASE, PAGE | 0xC00)
    assert apic.write_msr(IA32_APIC_BASE, PAGE | 0x800)
    assert cpus.get(2, SVR) == 0xFF


def test_random_traffic() -> None:
    def make(machine: Machine) -> Device:
        bus = ApicBus()
        apic = LocalApic("apic", machine, number=0, bus=bus)
        bus.on_end(lambda _: None)
        return apic

    def also(device: Device, random: Random) -> None:
        assert isinstance(device, LocalApic)
        match random.randrange(6):
            case 0:
                random.choice((device.lint0, device.lint1)).set(random.random() < 0.5)
            case 1:
                device.acknowledge()
            case 2:
                device.bus.msi(random.getrandbits(20), random.getrandbits(16), 0)
            case 3:
                index = random.choice((0x1B, 0x6E0, random.randrange(0x800, 0x900)))
                device.write_msr(index, random.choice((PAGE | 0xC00, PAGE | 0x800, random.getrandbits(64))))
            case 4:
                device.read_msr(random.randrange(0x800, 0x900))
            case _:
                device.write(SVR, 4, ENABLE, device.attributes)

    fuzz(make, 11, also=also)


def test_messages_reach_the_address_of_the_manual() -> None:
    assert MSI_BASE == PAGE
