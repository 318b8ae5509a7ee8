"""Random register traffic on a device, from its declarations: nothing that a driver does may raise, hang or grow.

The bound on state is the snapshot schema: after the traffic the device saves itself, and what it saves is checked
against the declarations and restored into a second device, which then answers as the first does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

from dbt.machine.chardev import MemoryChar
from dbt.machine.devices.ns16550 import NS16550
from dbt.machine.devices.pl011 import PL011
from dbt.machine.errors import BusError, SnapshotError
from dbt.machine.log import GUEST_ERROR, Log
from dbt.machine.machine import Machine
from dbt.machine.memory import Alias, Attributes
from dbt.machine.pci import PciFunction
from dbt.machine.registers import Fifo
from dbt.machine.virtio import VirtioDevice

if TYPE_CHECKING:
    from dbt.machine.device import Device

OPERATIONS = 100_000
INVENTED = 20  # saved states that are made up


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
    also: Callable[[Device, Random], None] | None = None,
    cpus: int = 1,
    settle: Callable[[Machine], None] | None = None,
) -> Machine:
    """OPERATIONS accesses; a thousandth of them let time pass or reset, some are errors.

    `also` does what comes from outside: characters, lines. `settle` waits for what other threads do, before the device
    is saved.
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
    for _ in range(OPERATIONS):
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
    assert refused < OPERATIONS // 5
    assert machine.log.counts[GUEST_ERROR]
    if settle:
        settle(machine)
    saved = json.loads(json.dumps(device.save()))
    again = Machine(epoch=machine.epoch)
    again.clock.advance(machine.clock.now)
    other = build(again)
    regions_of = list(other.regions.values())
    other.restore(saved)
    assert other.save() == device.save()
    for _ in range(INVENTED):
        again.restore(invented(again, random))
        for _ in range(OPERATIONS // 400):
            number = random.randrange(len(registers))
            address, size = registers[number]
            region = regions_of[address >> 32]
            with suppress(BusError):
                if random.random() < 0.5:
                    region.read(address & 0xFFFF_FFFF, size, requesters[0])
                else:
                    region.write(address & 0xFFFF_FFFF, size, value(random, size), requesters[0])
            if not random.randrange(20):
                again.advance(random.choice((1, 1000, 1_000_000)))
        if settle:
            settle(again)
        again.check(json.loads(json.dumps(again.save())))
    return machine


def number_of(random: Random, bits: int) -> int:
    """A number of so many bits, often a small or a large one."""
    return random.choice((0, 1, (1 << bits) - 1, random.getrandbits(bits), random.getrandbits(min(bits, 5))))


def invented(machine: Machine, random: Random) -> dict[str, Any]:
    """A saved state of a machine that its devices take, with numbers that they never had."""
    saved: dict[str, Any] = json.loads(json.dumps(machine.save()))
    for name, device in machine.devices.items():
        good = saved["devices"][name]
        for _ in range(5):
            state = json.loads(json.dumps(good))
            _invent(device, state, random)
            try:
                device.check(state)
            except SnapshotError:
                continue
            saved["devices"][name] = state
            break
    return saved


def _invent(device: Device, saved: dict[str, Any], random: Random) -> None:
    often = random.choice((0.05, 0.5, 1))
    for name, declared in device.VALUES.items():
        if random.random() > often:
            continue
        if isinstance(declared, Fifo):
            saved["state"][name] = random.randbytes(random.choice((0, 1, declared.depth))).hex()
        elif declared.many:
            saved["state"][name] = [number_of(random, declared.bits) for _ in range(declared.count)]
        else:
            saved["state"][name] = number_of(random, declared.bits)
    if isinstance(device, PciFunction):
        data = bytearray.fromhex(saved["config"])
        for at, fixed in enumerate(device.config.fixed):
            if not fixed and random.random() < often / 4:
                data[at] = random.randrange(256)
        saved["config"] = data.hex()
        if device.msix is not None and random.random() < often:
            saved["msix"] = random.randbytes(len(saved["msix"]) // 2).hex()
    if isinstance(device, VirtioDevice):
        for queue in saved["queues"]:
            for where in (queue, queue["ring"] or {}):
                for name, old in where.items():
                    if type(old) is int and random.random() < often:
                        where[name] = number_of(random, 16 if name in {"size", "vector"} or where is not queue else 40)


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


def type_and_take(device: Device, random: Random) -> None:
    """What happens to a serial port from outside: somebody types, and reads what it has sent."""
    assert isinstance(device, NS16550 | PL011)
    assert isinstance(device.chars, MemoryChar)
    if len(device.chars._typed) < 100:
        device.chars.type(random.randbytes(random.randrange(40)))
    if random.random() < 0.3:
        device.chars.take()
