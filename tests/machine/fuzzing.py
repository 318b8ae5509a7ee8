"""Random register traffic on a device, from its declarations: nothing that a driver does may raise, hang or grow.

The bound on state is the snapshot schema: after the traffic the device saves itself, and what it saves is checked
against the declarations and restored into a second device, which then answers as the first does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from dbt.machine.errors import BusError
from dbt.machine.log import GUEST_ERROR, Log
from dbt.machine.machine import Machine
from dbt.machine.memory import Alias, Attributes

if TYPE_CHECKING:
    from dbt.machine.device import Device

OPERATIONS = 100_000


def value(random: Random, size: int) -> int:
    full = (1 << 8 * size) - 1
    match random.randrange(6):
        case 0:
            return 0
        case 1:
            return full
        case 2:
            return 1 << random.randrange(8 * size)
        case 3:
            return random.randrange(16)
        case _:
            return random.getrandbits(8 * size)


def fuzz(
    build: Callable[[Machine], Device],
    seed: int,
    operations: int = OPERATIONS,
    also: Callable[[Device, Random], None] | None = None,
    cpus: int = 1,
    settle: Callable[[Machine], None] | None = None,
) -> Machine:
    """`also` does what comes from outside: characters, lines. A thousandth of the operations let time pass or reset.

    `settle` waits for what other threads do, before the device is saved.
    """
    random = Random(seed)
    machine = Machine(log=Log(lambda _kind, _line: None))
    device = build(machine)
    regions = list(device.regions.items())
    for number, (_, region) in enumerate(regions):
        # What a PCI function's BAR shows is reached whether or not the BAR is decoded.
        machine.place(region if region.parent is None else Alias(region.name, region), number << 32)
    machine.reset()
    registers = [
        (number << 32 | offset, register.size)
        for number, (window, _) in enumerate(regions)
        if window in device.LAYOUTS
        for offset, register in device.LAYOUTS[window].every()
    ]
    if not registers:  # a device of commands
        registers = [(4 * random.randrange(regions[0][1].size // 4), 4) for _ in range(64)]
    requesters = [Attributes(cpu=cpu) for cpu in range(cpus)]
    refused = 0
    for _ in range(operations):
        address, size = random.choice(registers)
        choice = random.randrange(1000)
        if choice < 30:
            number = random.randrange(len(regions))
            address, size = number << 32 | random.randrange(regions[number][1].size), random.choice((1, 2, 4, 8))
        elif choice < 31:
            machine.advance(random.choice((1, 1000, 1_000_000, 50_000_000)))
        elif choice < 130 and also:
            also(device, random)
        if choice == 999 and not random.randrange(20):
            device.reset()
        try:
            if random.random() < 0.5:
                result = machine.memory.read(address, size, random.choice(requesters))
                assert 0 <= result < 1 << 8 * size
            else:
                machine.memory.write(address, size, value(random, size), random.choice(requesters))
        except BusError:
            refused += 1
    assert refused < operations // 5
    assert machine.log.counts[GUEST_ERROR]
    if settle:
        settle(machine)
    saved = json.loads(json.dumps(device.save()))
    again = Machine(epoch=machine.epoch)
    again.clock.advance(machine.clock.now)
    other = build(again)
    other.restore(saved)
    assert other.save() == device.save()
    return machine


def mutated(saved: dict[str, Any], random: Random) -> dict[str, Any]:
    """A saved state with one thing that cannot be."""
    copy: dict[str, Any] = json.loads(json.dumps(saved))
    name = random.choice(list(copy["state"]))
    match random.randrange(5):
        case 0:
            copy["state"][name] = -1
        case 1:
            copy["state"][name] = "zz"
        case 2:
            copy["state"][name] = [1 << 200]
        case 3:
            del copy["state"][name]
        case _:
            copy["version"] = 99
    return copy
