"""PIIX3: a driver routes PCI's wires to ISA interrupts, and resets the machine (Intel 290550)."""

from __future__ import annotations

from random import Random

from dbt.machine.devices.i8259 import PicPair
from dbt.machine.devices.piix3 import Piix3
from dbt.machine.lines import OrGate
from dbt.machine.log import Log
from dbt.machine.machine import PORTS, Machine
from dbt.machine.memory import Unassigned
from dbt.machine.pci import ConfigPorts, PciBus
from dbt.machine.power import PowerKind, PowerRequest

from tests.machine.pci import Config, poke
from tests.machine.qtest import Ours

PIIX3 = (0, 1, 0)


def build() -> tuple[Machine, Config, PciBus, PicPair]:
    machine = Machine(unassigned=Unassigned.ONES, log=Log(lambda _kind, _line: None))
    bus = PciBus("pci", machine, io=machine.io)
    pair = PicPair(machine)
    for number, (chip, at) in enumerate(((pair.master, 0x20), (pair.slave, 0xA0))):
        machine.place(chip, at, PORTS, "WINDOW")
        machine.place(chip, 0x4D0 + number, PORTS, "ELCR_WINDOW")
    piix3 = Piix3("piix3", machine, bus=bus, irqs=[OrGate(line).input() for line in pair.inputs])
    ports = ConfigPorts("config", machine, bus, piix3.banks["RESET"])
    machine.place(ports, 0xCF8, PORTS, "ADDRESS")
    machine.place(ports, 0xCFC, PORTS, "DATA")
    machine.reset()
    return machine, Config(Ours(machine)), bus, pair


def test_wires_reach_the_8259_pair_as_levels() -> None:
    machine, config, bus, pair = build()
    out = machine.ports.write
    for base, vector, cascade in ((0x20, 0x20, 4), (0xA0, 0x28, 2)):
        for offset, value in ((0, 0x11), (1, vector), (1, cascade), (1, 1), (1, 0)):
            out(base + offset, 1, value)
    out(0x4D1, 1, 0x0C)  # 10 and 11 are levels
    config.write(PIIX3, 0x60, 0x0B0A0A80)
    bus.intx[0].set(True)
    assert [line.level for line in pair.inputs] == [False] * 16  # not routed
    bus.intx[1].set(True)
    bus.intx[2].set(True)
    assert [n for n, line in enumerate(pair.inputs) if line.level] == [10]
    assert pair.acknowledge() == 0x2A
    out(0xA0, 1, 0x62)
    out(0x20, 1, 0x62)
    bus.intx[1].set(False)
    assert pair.acknowledge() == 0x2A  # the other is still up
    bus.intx[2].set(False)
    out(0xA0, 1, 0x62)
    out(0x20, 1, 0x62)
    bus.intx[3].set(True)
    assert pair.acknowledge() == 0x2B
    config.write(PIIX3, 0x63, 0x0A, 1)
    assert [n for n, line in enumerate(pair.inputs) if line.level] == [10]
    for reserved in (0x00, 0x01, 0x02, 0x08, 0x0D, 0x8B):
        config.write(PIIX3, 0x63, reserved, 1)
        assert not any(line.level for line in pair.inputs)
    config.write(PIIX3, 0x60, 0x05, 1)
    saved = machine.save()
    machine.reset()
    assert not any(line.level for line in pair.inputs)
    machine.restore(saved)
    assert [n for n, line in enumerate(pair.inputs) if line.level] == [5]


def test_the_reset_control_is_a_byte_at_the_address_port() -> None:
    machine, config, _, _ = build()
    config.read(PIIX3, 0)
    machine.ports.write(0xCF9, 1, 2)
    assert (machine.ports.read(0xCF9, 1), machine.ports.read(0xCF8, 4), machine.power.request) == (2, 0x80000800, None)
    machine.ports.write(0xCF9, 1, 6)
    assert machine.power.take() == PowerRequest(PowerKind.RESET, "piix3")
    assert machine.ports.read(0xCF9, 1) == 2


def test_random_traffic() -> None:
    machine, _, bus, pair = build()
    random = Random(3)
    piix3 = bus.functions[8]
    for number in range(100_000):
        poke(piix3, random)
        if not number % 4:
            machine.ports.write(0xCF8 + random.randrange(8), random.choice((1, 2, 4)), random.getrandbits(32))
            bus.intx[random.randrange(4)].set(bool(random.randrange(2)))
    levels = [line.level for line in pair.inputs]
    saved = machine.save()
    machine.restore(saved)
    assert ([line.level for line in pair.inputs], machine.save()) == (levels, saved)
