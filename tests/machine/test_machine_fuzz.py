"""Whole boards under a guest that does anything anywhere: no exception, no hang, bounded memory and log.

Accesses go over the whole map and all ports, mostly to where devices are; RAM, where descriptors and rings are, is
random and changes; time passes, resets and power requests are obeyed. Then a saved machine is restored into a second
one, which is the same, and states that no machine ever had are restored too.
"""

from __future__ import annotations

import json
import mmap
import struct
from pathlib import Path
from random import Random
from threading import RLock
from typing import TYPE_CHECKING, Any

import pytest
from dbt.machine.block import Disk, open_image
from dbt.machine.boards import BoardMachine, Options, Plugged, load
from dbt.machine.chardev import MemoryChar
from dbt.machine.clock import SECOND, Clock
from dbt.machine.errors import BusError
from dbt.machine.log import GUEST_ERROR, REPEATS, THINGS, Log
from dbt.machine.memory import Attributes
from dbt.machine.net.backend import Sink
from dbt.machine.net.user.net import UserNet
from dbt.machine.net.user.options import UserOptions

from tests.machine.fuzzing import invented, value

if TYPE_CHECKING:
    from dbt.machine.memory import AddressSpace, Section

MIB = 1 << 20
OPERATIONS = 100_000
GROWN = 64 * MIB  # of the process, at most; the machine's memory is a quarter of it
BOARDS = {
    "pc": ("e1000", "virtio_net", "virtio_blk", "virtio_console", "virtio_balloon", "ich9_ahci"),
    "virt": ("e1000", "virtio_net", "virtio_rng", "virtio_console", "virtio_9p"),
    "isapc": (),
}


def disk() -> Disk:
    return Disk(open_image({"driver": "memory", "size": MIB}, "raw", writable=True), workers=1)


def build(name: str, lines: list[str]) -> BoardMachine:
    devices: list[Plugged] = []
    for kind in BOARDS[name]:
        arguments: dict[str, dict[str, Any]] = {
            "virtio_blk": {"disk": disk()},
            "virtio_console": {"chars": MemoryChar(1 << 16)},
            "virtio_net": {"net": Sink()},
        }
        devices.append(Plugged(kind, arguments=arguments.get(kind, {})))
    if devices:
        devices += [Plugged("pci_bridge", "bridge"), Plugged("virtio_rng", bus="bridge")]
    board, lock = load(name), RLock()
    nets = (UserNet(lock, UserOptions(restrict=True), Clock()),) if devices else ()
    machine = board.build(
        Options(
            lock=lock, nets=nets,
            ram=16 * MIB, cpus=1 if name == "isapc" else 2, consoles=(MemoryChar(1 << 16),),
            disks=(disk(), disk()), cds=() if name == "virt" else (disk(),), gic=3, devices=tuple(devices),
            log=Log(lambda _kind, line: lines.append(line)),
        )
    )  # fmt: skip
    board.assign(machine)
    return machine


def resident() -> int:
    """Bytes that the process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


class Guest:
    """One that does anything."""

    def __init__(self, machine: BoardMachine, random: Random) -> None:
        self.machine = machine
        self.random = random
        self.spaces: list[AddressSpace] = [machine.memory, machine.ports, *machine.spaces]
        self.seen: list[tuple[object, list[Section]]] = [(None, [])] * len(self.spaces)
        sections = [section for section in machine.memory.view.sections if section.writes_direct]
        self.ram = max(sections, key=lambda section: section.end - section.start)
        self.last: tuple[AddressSpace, int] = (machine.memory, 0)

    def _address(self) -> tuple[AddressSpace, int]:
        """Mostly where a device is, often near the last one."""
        random, space, at = self.random, *self.last
        choice = random.random()
        if choice < 0.4:
            return space, max(at + random.choice((-8, -4, 0, 1, 4, 8, 16)), 0) % space.size
        number = random.randrange(len(self.spaces))
        space = self.spaces[number]
        if choice < 0.42:
            return space, random.getrandbits(space.size.bit_length() - 1 - random.randrange(16))
        view = space.view
        if self.seen[number][0] is not view:
            self.seen[number] = view, [section for section in view.sections if section.device is not None]
        found = self.seen[number][1]
        if not found:
            return space, 0
        section = random.choice(found)
        size = min(section.end - section.start, 1 << random.choice((4, 8, 12, 20)))
        return space, section.start + random.randrange(size)

    def number(self, size: int) -> int:
        """A number, often an address of a page of RAM that has descriptors."""
        random = self.random
        if random.random() < 0.4:
            address = self.ram.start + (random.randrange(16) << 12)
            return random.choice((address, address >> 12, address >> 32, 0)) & (1 << 8 * size) - 1
        return value(random, size)

    def act(self) -> None:
        random = self.random
        self.last = space, address = self._address()
        size = random.choice((1, 2, 4, 4, 4, 8))
        if random.random() < 0.8:
            address &= -size
        who = Attributes(cpu=random.randrange(2))
        if random.random() < 0.4:
            assert 0 <= space.read(address, size, who) < 1 << 8 * size
        else:
            space.write(address, size, self.number(size), who)

    def scribble(self) -> None:
        """Descriptors, rings and commands: words that are addresses, lengths, flags, indexes."""
        random = self.random
        at = self.ram.delta + self.ram.start + (random.randrange(16) << 12)
        words = [
            random.choice((
                self.ram.start + random.randrange(16 << 12), random.randrange(1 << 16), random.getrandbits(64), 0,
                random.getrandbits(16) | random.getrandbits(3) << 32 | random.randrange(8) << 48,
            ))
            for _ in range(64)
        ]  # fmt: skip
        assert self.ram.memory is not None
        self.ram.memory.view[at : at + 512] = struct.pack("<64Q", *words)


@pytest.mark.parametrize("name", BOARDS)
def test_a_guest_that_does_anything(name: str) -> None:
    lines: list[str] = []
    machine = build(name, lines)
    random = Random(7)
    guest = Guest(machine, random)
    refused = 0
    before = resident()
    for number in range(OPERATIONS // (1 if BOARDS[name] else 5)):
        try:
            guest.act()
        except BusError:
            refused += 1
        if not number % 50:
            guest.scribble()
        if not number % 200:
            machine.advance(random.choice((0, 1000, 1_000_000, 50_000_000)))
        if not number % 500 and machine.power.take():
            machine.reset()
        if not number % 5000:
            machine.board.assign(machine)
    assert resident() - before < GROWN
    assert refused < OPERATIONS // 2
    assert machine.log.counts[GUEST_ERROR] > 500
    assert len(lines) <= THINGS * REPEATS
    saved = json.loads(json.dumps(machine.save()))
    other = build(name, [])
    other.restore(saved)
    assert json.loads(json.dumps(other.save())) == saved
    assert _map(other) == _map(machine)
    for _ in range(10):
        other.restore(invented(other, random))
        guest = Guest(other, random)
        for _ in range(500):
            guest.scribble()
            try:
                guest.act()
            except BusError:
                refused += 1
        other.advance(SECOND // 100)
        other.check(json.loads(json.dumps(other.save())))
    for done in (machine, other):
        for net in done.options.nets:
            net.close()


def _map(machine: BoardMachine) -> list[tuple[int, int, str, int]]:
    return [
        (section.start, section.end, section.region.name, section.offset)
        for space in (machine.memory, machine.ports)
        for section in space.view.sections
    ]
