"""Drivers for the pair of 8259A: priorities, nesting, rotation, masks, polling; random ones against QEMU's pair."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.machine.devices.i8259 import I8259, PicPair
from dbt.machine.devices.ns16550 import NS16550
from dbt.machine.machine import PORTS, Machine

from tests.machine.fuzzing import fuzz
from tests.machine.qtest import X86, Bus, agree, qemu

if TYPE_CHECKING:
    from dbt.machine.device import Device

MASTER, SLAVE, ELCR = 0x20, 0xA0, 0x4D0
SERIAL = {0x3F8: 4, 0x2F8: 3, 0x3E8: 10, 0x2E8: 15}  # port: input
EOI = 0x20


def build() -> tuple[Machine, PicPair]:
    machine = Machine()
    pair = PicPair(machine)
    for number, (chip, port) in enumerate(((pair.master, MASTER), (pair.slave, SLAVE))):
        machine.place(chip, port, PORTS)
        machine.place(chip, ELCR + number, PORTS, window="ELCR_WINDOW")
    for port, number in SERIAL.items():
        machine.place(NS16550(f"serial{port:x}", machine, pair.inputs[number]), port, PORTS)
    machine.reset()
    return machine, pair


def initialise(bus: Bus, icw4: int = 1) -> None:
    for port, base, wires in ((MASTER, 0x20, 4), (SLAVE, 0x28, 2)):
        for offset, value in ((0, 0x11), (1, base), (1, wires), (1, icw4), (1, 0)):
            bus.out(port + offset, value)


def look(bus: Bus) -> None:
    for port in (MASTER, SLAVE):
        for command in (0x0A, 0x0B):
            bus.out(port, command)
            bus.inp(port)
        bus.inp(port + 1)


def raised(bus: Bus, port: int, level: bool) -> None:
    """A serial port's line, by the interrupt of its empty transmitter."""
    bus.out(port + 1, 0)
    if level:
        bus.out(port + 1, 2)


def random_script(seed: int, steps: int) -> list[tuple[str, int, int]]:
    """What a driver may do in any order, as (what, port, value)."""
    random = Random(seed)
    special = {MASTER: 0, SLAVE: 0}
    done: list[tuple[str, int, int]] = []
    for _ in range(steps):
        port = random.choice((MASTER, SLAVE))
        match random.randrange(8):
            case 0 | 1:
                done.append(("line", random.choice(list(SERIAL)), random.randrange(2)))
            case 2:
                done.append(("out", port + 1, random.choice((0, random.getrandbits(8)))))
            case 3:
                command = random.choice((0, 1, 1, 1, 2, 3, 3, 4, 5, 6, 7))
                if special[port] and command in {1, 5}:  # a data sheet's sentence that QEMU does not have: see below
                    command += 2
                done.append(("out", port, command << 5 | random.randrange(8)))
            case 4 | 5:
                done += [("out", port, 0x0C), ("in", port + random.randrange(2), 0)]
            case 6 if random.random() < 0.3:  # QEMU looks at the requests again at the next occasion only
                special[port] = random.randrange(2)
                done.append(("out", port, 0x48 | special[port] << 5))
            case 7 if random.random() < 0.2:
                done.append(("elcr", ELCR, random.choice((0x00, 0x10, 0xF8))))
            case 7 if random.random() < 0.2:
                done.append(("icw", 0, random.choice((0x01, 0x03, 0x11))))
                special = {MASTER: 0, SLAVE: 0}
        done.append(("look", 0, 0))
    return done


def play(bus: Bus, steps: list[tuple[str, int, int]]) -> None:
    initialise(bus)
    for what, port, value in steps:
        match what:
            case "line":
                raised(bus, port, bool(value))
            case "out" | "elcr":
                bus.out(port, value)
            case "in":
                bus.inp(port)
            case "icw":
                initialise(bus, value)
            case _:
                look(bus)
                bus.inp(ELCR)
                bus.inp(ELCR + 1)


@pytest.mark.needs("qemu-system-x86_64")
def test_random_drivers_agree_with_qemu() -> None:
    ports = []
    for number, (port, irq) in enumerate(SERIAL.items()):
        ports += ["-chardev", f"null,id=c{number}", "-device", f"isa-serial,chardev=c{number},iobase={port},irq={irq}"]
    with qemu(*X86, *ports) as theirs:
        for seed in range(4):
            steps = random_script(seed, 150)
            machine, _ = build()
            theirs.out(ELCR, 0)
            for port in SERIAL:
                theirs.out(port + 1, 0)
            assert agree(lambda bus, steps=steps: play(bus, steps), machine, theirs) > 1000  # type: ignore[misc]


def asks(pair: PicPair) -> bool:
    return pair.intr.level


def ready() -> tuple[Machine, PicPair]:
    machine, pair = build()
    out = machine.ports
    for port, base, wires in ((MASTER, 0x20, 4), (SLAVE, 0x28, 2)):
        for offset, value in ((0, 0x11), (1, base), (1, wires), (1, 1)):
            out.write(port + offset, 1, value)
    return machine, pair


def test_priorities_and_nesting() -> None:
    machine, pair = ready()
    out = machine.ports
    pair.inputs[5].pulse()
    pair.inputs[10].pulse()
    pair.inputs[8].pulse()
    assert asks(pair)
    assert pair.acknowledge() == 0x28
    assert not asks(pair)  # 10 waits for the end of 8, which is of higher priority
    pair.inputs[1].pulse()
    assert pair.acknowledge() == 0x21
    out.write(MASTER, 1, EOI)
    out.write(SLAVE, 1, EOI)
    out.write(MASTER, 1, EOI)
    assert pair.acknowledge() == 0x2A
    out.write(SLAVE, 1, EOI)
    out.write(MASTER, 1, EOI)
    assert pair.acknowledge() == 0x25
    assert not asks(pair)


def test_masks_spurious_requests_and_levels() -> None:
    machine, pair = ready()
    out = machine.ports
    out.write(MASTER + 1, 1, 0x08)
    pair.inputs[3].pulse()
    assert not asks(pair)
    assert pair.acknowledge() == 0x27  # nobody asked
    out.write(MASTER + 1, 1, 0)
    assert pair.acknowledge() == 0x23
    out.write(MASTER, 1, 0x60 | 3)
    out.write(ELCR, 1, 0x20)
    pair.inputs[5].set(True)
    assert pair.acknowledge() == 0x25
    out.write(MASTER, 1, EOI)
    assert asks(pair)  # a level asks until it is gone
    pair.inputs[5].set(False)
    assert not asks(pair)
    pair.inputs[9].pulse()
    pair.slave.irr = 0
    assert pair.acknowledge() == 0x2F  # gone meanwhile: input 7 of the slave
    other, copy = build()
    other.restore(machine.save())
    assert copy.master.isr == 4


def test_special_mask_mode_leaves_masked_services_alone() -> None:
    """231468: 'an IS bit that is masked by an IMR bit will not be cleared by a non-specific EOI' in that mode."""
    machine, pair = ready()
    out = machine.ports
    pair.inputs[1].pulse()
    assert pair.acknowledge() == 0x21
    out.write(MASTER + 1, 1, 0x02)
    out.write(MASTER, 1, 0x68)
    pair.inputs[6].pulse()
    assert pair.acknowledge() == 0x26
    out.write(MASTER, 1, EOI)
    assert pair.master.isr == 0x02
    out.write(MASTER, 1, 0x48)
    out.write(MASTER, 1, EOI)
    assert pair.master.isr == 0


@pytest.mark.parametrize("master", [False, True])
def test_random_traffic(master: bool) -> None:
    def make(machine: Machine) -> Device:
        return I8259("pic", machine, levels=0xF8, master=master)

    def also(device: Device, random: Random) -> None:
        assert isinstance(device, I8259)
        device.input(random.randrange(8)).set(random.random() < 0.7)
        if (number := device.pending()) is not None and random.random() < 0.5:
            device.accept(number)

    fuzz(make, 8259, also=also)
