"""The ITS, driven as a kernel does: LPIs of made-up PCI functions; pending tables against QEMU's."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.machine import memory
from dbt.machine.devices.gicv3 import GICv3
from dbt.machine.devices.gicv3_its import TRANSLATER, GICv3Its
from dbt.machine.log import GUEST_ERROR
from dbt.machine.machine import Machine

from tests.machine import icc
from tests.machine.fuzzing import fuzz, value
from tests.machine.gicv3 import ARM3, GICR, GITS, MIB, Cpu, build, masked, start
from tests.machine.its import (
    CLEAR,
    DEVICES,
    DISCARD,
    EVENTS,
    INT,
    INV,
    INVALL,
    ITTS,
    LPIS,
    MAPI,
    MAPTI,
    MOVALL,
    MOVI,
    QUEUE,
    RAM,
    VALID,
    Its,
    encoded,
    event,
    mapc,
    mapd,
    sync,
)  # fmt: skip
from tests.machine.qtest import Bus, Ours, agree, qemu

if TYPE_CHECKING:
    from dbt.machine.device import Device

REQUESTER = 0x0018  # bus 0, slot 3
SPURIOUS = 1023


def play(seed: int, steps: int, bus: Bus) -> None:
    """Random commands that are mostly right; pending tables show what they did."""
    random = Random(seed)
    for offset, size in ((0, 4), (4, 4), (0x80, 8), (0x88, 8), (0x90, 8), *((0x100 + 8 * n, 8) for n in range(8))):
        bus.read(GITS + offset, size)
    masked(bus, GITS + 8, 8, ~0xF0)  # the size of translations
    its = Its(bus)
    its.start()
    for offset in (0, 0x80, 0x88, 0x90, 0x100, 0x108):
        bus.read(GITS + offset, 8 if offset else 4)
    for number in range(16):  # not more than are looked at without waiting
        its.configure(LPIS + number, 0xA0, enabled=bool(number & 1))
    its.do(*(mapc(collection, collection & 1) for collection in range(3)))
    its.do(*(mapd(device, ITTS + 0x1000 * device) for device in range(3)))
    for _ in range(steps):
        for _ in range(random.randrange(1, 6)):
            device, number = random.randrange(4), random.choice((0, 1, 2, 3, 31, 31, 32))
            collection = random.choice((0, 0, 1, 1, 2, 3))
            match random.randrange(12):
                case 0 | 1 | 2:
                    its.put(event(MAPTI, device, number, collection, LPIS + random.randrange(16)))
                case 3 | 4 | 5:
                    its.put(event(INT, device, number))
                case 6:
                    its.put(event(CLEAR, device, number))
                case 7:
                    its.put(event(MOVI, device, number, collection))
                case 8:
                    its.put(event(random.choice((DISCARD, INV)), device, number))
                case 9:
                    its.put(
                        random.choice(((INVALL, 0, collection, 0), (MOVALL, 0, 0, 1 << 16), (MOVALL, 0, 1 << 16, 0)))
                    )
                case 10:
                    its.put(random.choice((mapc(collection & 1, random.randrange(2)), event(MAPI, device, number))))
                case 11:
                    its.put(sync(random.randrange(2)))
        its.kick()
        if random.random() < 0.5:
            bus.write(GITS + TRANSLATER, random.choice((0, 1, 2, 3, 31, 32, 77)))
        bus.read(GITS + 0x90, 8)
        its.lpis(enable=False)
        for cpu in (0, 1):
            bus.read(GICR + 0x2_0000 * cpu)
            bus.read(its.pending(cpu) + LPIS // 8, 8)
        its.lpis(enable=True)


@pytest.mark.needs("qemu-system-aarch64")
def test_random_commands_agree_with_qemu() -> None:
    for seed in range(4):
        with qemu(*ARM3) as theirs:
            assert agree(lambda bus, seed=seed: play(seed, 150, bus), build(2)[0], theirs) > 500  # type: ignore[misc]


def begin(cpus: int = 2, indirect: int = 0) -> tuple[Machine, GICv3, list[Cpu], Its]:
    machine, gic = build(cpus)
    its = Its(Ours(machine), cpus)
    its.start(indirect)
    for cpu in range(cpus):
        its.do(mapc(cpu, cpu), sync(cpu))
    return machine, gic, start(machine, gic), its


def message(machine: Machine, number: int, requester: int = REQUESTER) -> None:
    assert machine.msi.send(GITS + TRANSLATER, number, requester)


def test_messages_become_lpis() -> None:
    machine, _, (cpu, other), its = begin()
    its.configure(LPIS, 0xA0)
    its.configure(LPIS + 1, 0x80)
    its.configure(LPIS + 2, 0x60, enabled=False)
    its.do(mapd(REQUESTER, ITTS), *(event(MAPTI, REQUESTER, n, 0, LPIS + n) for n in range(3)), sync(0))
    for number in (2, 0, 1, 1):
        message(machine, number)
    assert (cpu.lines, other.lines) == ((True, False), (False, False))
    assert [cpu[icc.HPPIR1], cpu[icc.IAR1], cpu[icc.RPR], cpu[icc.IAR1]] == [LPIS + 1, LPIS + 1, 0x80, SPURIOUS]
    message(machine, 1)  # while it is served: LPIs are never active
    cpu[icc.EOIR1] = LPIS + 1
    assert [cpu[icc.IAR1], cpu[icc.RPR]] == [LPIS + 1, 0x80]
    its.configure(LPIS + 2, 0x40)
    assert cpu[icc.HPPIR1] == LPIS
    its.do(event(INV, REQUESTER, 2), sync(0))
    assert [cpu[icc.IAR1], cpu[icc.RPR]] == [LPIS + 2, 0x40]
    cpu[icc.EOIR1] = LPIS + 2
    cpu[icc.EOIR1] = LPIS + 1
    its.do(event(MOVI, REQUESTER, 0, 1), sync(0), sync(1))
    assert (cpu.lines, other.lines) == ((False, False), (True, False))
    message(machine, 0)
    assert other[icc.IAR1] == LPIS
    assert other[icc.IAR1] == SPURIOUS
    other[icc.EOIR1] = LPIS
    its.do(event(INT, REQUESTER, 0), event(CLEAR, REQUESTER, 0), event(INT, REQUESTER, 1), (MOVALL, 0, 0, 1 << 16))
    assert (cpu.lines, other[icc.IAR1], other[icc.IAR1]) == ((False, False), LPIS + 1, SPURIOUS)
    errors = machine.log.counts[GUEST_ERROR]
    message(machine, 3)
    message(machine, 0, 0x20)
    message(machine, 1 << EVENTS)
    its.do(event(DISCARD, REQUESTER, 0))
    message(machine, 0)
    its.do(mapd(REQUESTER, 0, valid=False))
    message(machine, 1)
    assert machine.log.counts[GUEST_ERROR] == errors + 5
    machine.memory.write(GITS, 4, 0)
    message(machine, 1)
    assert machine.log.counts[GUEST_ERROR] == errors + 6


def test_device_tables_of_two_levels() -> None:
    machine, _, (cpu, _), its = begin(indirect=1)
    its.configure(LPIS, 0xA0)
    its.do(mapd(0x208, ITTS))
    assert machine.log.counts[GUEST_ERROR] == 1
    machine.memory.write(DEVICES + 8, 8, VALID | DEVICES + 0x5000)
    its.do(mapd(0x208, ITTS), event(MAPI, 0x208, LPIS & 31), event(MAPTI, 0x208, 4, 0, LPIS))
    message(machine, 4, 0x208)
    assert cpu[icc.IAR1] == LPIS
    assert machine.memory.read(DEVICES + 0x5000 + 8 * 8, 8) == ITTS | EVENTS - 1 << 1 | 1
    assert machine.log.counts[GUEST_ERROR] == 2  # MAPI of an event that is no LPI


def test_queues_take_their_time_and_go_on_elsewhere() -> None:
    machine, _, (cpu, _), its = begin()
    for number in range(100):
        its.configure(LPIS + number, 0xA0)
    its.put(mapd(REQUESTER, ITTS, 7))
    for number in range(100):
        its.put(event(MAPTI, REQUESTER, number, 0, LPIS + number))
        its.put(event(INT, REQUESTER, number))
    before = machine.memory.read(GITS + 0x90, 8)
    its.kick()
    assert machine.memory.read(GITS + 0x90, 8) == before + 16 * 32
    assert machine.memory.read(GITS, 4) == 1  # not quiescent
    saved = json.loads(json.dumps(machine.save()))
    content = machine.memory.peek(RAM, 8 * MIB)
    other, copy = build(2)
    for at in range(0, len(content), 8):
        if any(content[at : at + 8]):
            other.memory.write(RAM + at, 8, int.from_bytes(content[at : at + 8], "little"))
    other.restore(saved)
    for each, first in ((machine, cpu), (other, Cpu(copy.interfaces[0]))):
        each.advance(0)
        assert each.memory.read(GITS + 0x90, 8) == its.at
        assert each.memory.read(GITS, 4) == 1 << 31 | 1
        for number in range(100):
            assert first[icc.IAR1] == LPIS + number
            first[icc.EOIR1] = LPIS + number
        assert first[icc.IAR1] == SPURIOUS


def turns(machine: Machine) -> None:
    """As many as it takes to read all configurations: more than the rounds of one."""
    for _ in range(4):
        machine.advance(0)


def test_synchronisation_waits_for_configurations() -> None:
    """All LPIs that there can be are pending in the table, and each has to be looked at."""
    machine, gic, (cpu, other), its = begin()
    lpis = 65536 - LPIS
    its.lpis(enable=False)
    port = gic.redistributors[0].lpis.dma
    port.dma_write(its.pending(0) + LPIS // 8, b"\xff" * (lpis // 8))
    for number in (LPIS + 5, 65535):
        its.configure(number, 0x80)
    its.lpis(enable=True)
    assert cpu[icc.IAR1] == LPIS + 5
    turns(machine)
    cpu[icc.EOIR1] = LPIS + 5
    assert cpu[icc.IAR1] == 65535
    cpu[icc.EOIR1] = 65535
    its.configure(65000, 0x40)
    its.do((INVALL, 0, 0, 0), sync(0))
    assert machine.memory.read(GITS + 0x90, 8) == its.at - 32
    saved = json.loads(json.dumps(machine.save()))
    again, copy = build(2)
    again.restore(saved)
    assert again.save() == saved
    assert copy.redistributors[0].lpis.pending == gic.redistributors[0].lpis.pending
    turns(machine)
    assert (machine.memory.read(GITS + 0x90, 8), cpu[icc.HPPIR1]) == (its.at, 65000)
    its.do((MOVALL, 0, 0, 1 << 16), sync(1))
    turns(machine)
    assert (cpu[icc.HPPIR1], other[icc.IAR1]) == (SPURIOUS, 65000)
    its.lpis(enable=False)
    assert port.dma_read(its.pending(0) + LPIS // 8, lpis // 8) == bytes(lpis // 8)
    table = int.from_bytes(port.dma_read(its.pending(1) + LPIS // 8, lpis // 8), "little")
    assert table.bit_count() == lpis - 3


def test_queues_stall_where_there_is_no_memory() -> None:
    machine, _, _, its = begin()
    bus = machine.memory
    its.do(mapd(REQUESTER, 0xFFFF_0000_0000), event(MAPTI, REQUESTER, 0, 0, LPIS), sync(0))
    stalled = bus.read(GITS + 0x90, 8)
    assert (stalled & 1, stalled >> 5) == (1, its.at // 32 - 2)
    its.kick()
    assert bus.read(GITS + 0x90, 8) == stalled
    bus.write(QUEUE + (stalled & ~1), 8, sync(0)[0])  # software takes it away
    bus.write(GITS + 0x88, 8, its.at | 1)
    assert bus.read(GITS + 0x90, 8) == its.at
    errors = machine.log.counts[GUEST_ERROR]
    for words in ((0x2A, 0, 0, 0), (0x77, 0, 0, 0), mapc(0, 9), sync(7), mapd(1 << 20, ITTS), mapd(1, ITTS, 17)):
        its.do(words)
    bus.write(GITS + 0x88, 8, 0x1_0000)
    bus.write(GITS + 0x100, 8, 0)
    bus.write(GITS + 0x80, 8, 0)
    bus.write(GICR + 0x70, 8, 0)
    assert machine.log.counts[GUEST_ERROR] == errors + 10


def test_random_traffic() -> None:
    def make(machine: Machine) -> Device:
        return GICv3Its("its", machine, GICv3("gic", machine, affinities=range(2), interrupts=64))

    fuzz(make, 401)


def test_random_tables_and_commands() -> None:
    """Registers that are nearly right, memory of which anything may be there."""
    random = Random(6)
    machine = Machine()
    gic = GICv3("gic", machine, affinities=range(2), interrupts=64)
    its = GICv3Its("its", machine, gic)
    machine.place(memory.RAM("ram", MIB), RAM)
    machine.place(its, GITS)
    for number, redistributor in enumerate(gic.redistributors):
        machine.place(redistributor, GICR + 0x2_0000 * number)
    machine.reset()
    bus = machine.memory
    port = its.dma

    def place() -> int:
        """Mostly within memory, at its end, or beyond."""
        return RAM + random.choice((0, 0x1_0000, 0x8_0000, 0xF_0000, MIB - 0x1000, MIB, random.randrange(MIB) & ~0xFFF))

    def word() -> int:
        return random.choice((0, place(), place() | VALID, random.randrange(8), value(random, 8)))

    commands = 0
    for step in range(100_000):
        match random.randrange(14):
            case 0 if not step % 5:
                for base in (0, 0, 0x70, 0x78):
                    bus.write(GICR + base, 4 if not base else 8, place() | 15 if base else 0)
                bus.write(GITS, 4, 0)
                bus.write(GITS + 0x80, 8, VALID | place() | random.choice((0, 0, 3, 255)))
                for table in (0x100, 0x108):
                    bus.write(GITS + table, 8, VALID | place() | random.randrange(4) << 8 | random.randrange(2) << 62)
                bus.write(GITS, 4, 1)
                for cpu in (0, 1):
                    bus.write(GICR + 0x2_0000 * cpu, 4, 1)
            case 0 | 1 | 2:
                port.dma_write(RAM + (random.randrange(MIB) & ~7), word().to_bytes(8, "little"))
            case 3 | 4 | 5 | 6 | 7:
                base = its.GITS_CBASER & 0xF_FFFF_FFFF_F000
                opcode = random.choice((1, 3, 4, 5, 8, 9, 10, 10, 11, 12, 13, 14, 15, random.randrange(64)))
                device, number, cpu = random.randrange(4), random.randrange(8), random.randrange(3)
                words = (opcode | device << 32, number | random.randrange(8190, 8300) << 32, word() | cpu << 16, word())
                if RAM <= base + its.GITS_CWRITER <= RAM + MIB - 32:
                    port.dma_write(base + its.GITS_CWRITER, encoded(words))
                    commands += 1
                bus.write(GITS + 0x88, 8, its.GITS_CWRITER + 32 | random.randrange(2))
            case 8:
                bus.write(GITS + 0x88, 8, random.choice((0, 32, 0xFE0, value(random, 8) & 0xFFFFF)))
            case 9 | 10:
                its.message(0, random.randrange(10), random.randrange(5))
            case 11:
                interface = random.choice(gic.interfaces)
                interface.write(icc.EOIR1, interface.read(icc.IAR1) or 0)
            case 12:
                machine.run_timers()
            case _:
                bus.write(GICR + 0x2_0000 * random.randrange(2), 4, random.randrange(2))
    assert commands > 5000
    assert len(its.commands._known) <= 4096
    saved = machine.save()
    machine.restore(json.loads(json.dumps(saved)))
