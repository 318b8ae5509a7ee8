"""What follows from a declaration: reset, masks, widths, logs, traces, snapshots, the page."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from dbt.machine.device import Device
from dbt.machine.devices import DEVICES, load
from dbt.machine.document import document
from dbt.machine.errors import BusError, MapError, SnapshotError
from dbt.machine.log import GUEST_ERROR, TRACE, UNIMPLEMENTED, Log
from dbt.machine.machine import Machine
from dbt.machine.memory import AccessSizes, Attributes
from dbt.machine.registers import RO, RW, WO, Fifo, Register, Registers, State, States, View, Window

from dbt.errors import UsageError
from tests.machine.fuzzing import mutated


class Toy(Device):
    """A device with one of each kind."""

    WINDOW = Window(0x100, AccessSizes((1, 8)))
    BYTES = Window(0x20, AccessSizes((1, 4), (1, 4)), partial=True, hole=0xFF)
    CTRL = Register(0x00, RW, "control", reset=0x10, mask=0xFF, unimplemented=0x80, fields={"EN": 0, "MODE": (5, 4)})
    STAT = Register(0x04, RW, "status", reset=0xF, clear=0xF, mask=0)
    ID = Register(0x08, RO, "identity", reset=0x1234)
    KICK = Register(0x0C, WO, "kick")
    LIST = Registers(0x40, RW, "list", count=4, mask=0xFFFF)
    SEEN = Register(0x10, RO, "by function")
    LOW = Register(0x14, RW, "while EN", when=lambda toy: bool(toy.CTRL & 1))
    HIGH = Register(0x14, RW, "else")
    WIDE = Register(0x18, RW, "wide", size=8)
    B = Registers(0x00, RW, "bytes", count=4, size=1, window=BYTES)
    W = Register(0x08, RW, "word", window=BYTES)
    SUM = View(0x50, RO, "what the list has in all")
    EACH = View(0x60, RW, "the list again", count=4, size=8)

    secret = State(7, bits=8)
    many = States(3, bits=4)
    queue = Fifo(4)

    def __init__(self, name: str, machine: Machine) -> None:
        super().__init__(name, machine)
        self.kicks: list[int] = []

    @KICK.on_write
    def _kick(self, value: int) -> None:
        self.kicks.append(value)

    @SEEN.on_read
    def _seen(self) -> int:
        return self.attributes.cpu

    @SUM.on_read
    def _sum(self) -> int:
        return sum(self.LIST)

    @EACH.on_read
    def _each(self, index: int) -> int:
        return self.LIST[index]

    @EACH.on_write
    def _set_each(self, index: int, value: int) -> None:
        self.LIST[index] = value & 0xFFFF

    @LIST.after_write
    def _listed(self, index: int) -> None:
        self.kicks.append(index)


def build() -> tuple[Machine, Toy, list[tuple[str, str]]]:
    lines: list[tuple[str, str]] = []
    machine = Machine(log=Log(lambda *line: lines.append(line)))
    toy = Toy("toy", machine)
    machine.place(toy, 0)
    machine.place(toy, 0x1000, window="BYTES")
    return machine, toy, lines


def test_reset_masks_and_write_one_to_clear() -> None:
    machine, toy, _ = build()
    bus = machine.memory
    assert bus.read(0, 4) == 0x10
    bus.write(0, 4, 0xFFFFFFFF)
    assert bus.read(0, 4) == 0xFF
    bus.write(4, 4, 0x5)
    assert bus.read(4, 4) == 0xA
    bus.write(0x44, 4, 0x12345678)
    assert toy.LIST == [0, 0x5678, 0, 0]
    assert toy.kicks == [1]
    bus.write(0x18, 8, 0x1122334455667788)
    assert bus.read(0x18, 8) == 0x1122334455667788
    toy.reset()
    assert (toy.CTRL, toy.STAT, toy.LIST, toy.WIDE, toy.secret) == (0x10, 0xF, [0] * 4, 0, 7)


def test_views_are_of_what_is_stored_elsewhere() -> None:
    machine, toy, lines = build()
    bus = machine.memory
    assert machine.trace("toy.EACH") == 1
    bus.write(0x68, 8, 7)
    bus.write(0x40, 4, 2)
    assert (bus.read(0x50, 4), bus.read(0x68, 8), toy.LIST) == (9, 7, [2, 7, 0, 0])
    assert [line for kind, line in lines if kind == TRACE] == [
        "toy: cpu0 EACH1 <- 0x0000000000000007",
        "toy: cpu0 EACH1 -> 0x0000000000000007",
    ]
    assert not {"SUM", "EACH"} & toy.save()["state"].keys()
    kind = type("Blind", (Device,), {"WINDOW": Window(8), "A": View(0, RO)})
    with pytest.raises(MapError, match="the view A has no function"):
        kind("blind", machine)


def test_registers_that_share_an_offset() -> None:
    machine, toy, _ = build()
    bus = machine.memory
    bus.write(0x14, 4, 1)
    bus.write(0, 4, 1)
    bus.write(0x14, 4, 2)
    assert (toy.LOW, toy.HIGH, bus.read(0x14, 4)) == (2, 1, 2)


def test_guest_errors_and_unimplemented_are_logged_apart() -> None:
    machine, toy, lines = build()
    bus = machine.memory
    assert bus.read(0x80, 4) == 0
    bus.write(0x84, 4, 1)
    bus.write(8, 4, 1)
    assert bus.read(0x0C, 4) == 0
    assert bus.read(0, 2) == 0
    bus.write(0, 4, 0x190)
    bus.write(0x44, 4, 0x10000)
    assert [line for kind, line in lines if kind == GUEST_ERROR] == [
        "toy: read: no register at 0x80",
        "toy: write: no register at 0x84",
        "toy: write: ID is RO",
        "toy: read: KICK is WO",
        "toy: read of 2 bytes at 0x0: CTRL has others",
        "toy: CTRL has reserved bits 0x100 written as ones",
        "toy: LIST1 has reserved bits 0x10000 written as ones",
    ]
    assert [line for kind, line in lines if kind == UNIMPLEMENTED] == ["toy: CTRL bits 0x80"]
    assert toy.ID == 0x1234
    with pytest.raises(BusError):
        bus.read(1, 4)


def test_parts_and_several_registers_where_the_window_has_them() -> None:
    machine, toy, _ = build()
    bus = machine.memory
    bus.write(0x1000, 4, 0x44332211)
    assert toy.B == [0x11, 0x22, 0x33, 0x44]
    assert bus.read(0x1002, 2) == 0x4433
    bus.write(0x1008, 4, 0xAABBCCDD)
    bus.write(0x1009, 1, 0)
    assert toy.W == 0xAABB00DD
    assert bus.read(0x1004, 4) == 0xFFFFFFFF


def test_traces_say_who_what_and_the_fields() -> None:
    machine, _, lines = build()
    assert machine.trace("toy.CTRL") == 1
    machine.memory.write(0, 4, 0x31)
    machine.memory.read(0, 4, Attributes(cpu=3))
    machine.memory.write(4, 4, 1)
    assert machine.trace("t*.L*") == 2
    machine.memory.write(0x48, 4, 5, Attributes(requester="dma"))
    assert [line for kind, line in lines if kind == TRACE] == [
        "toy: cpu0 CTRL <- 0x00000031 EN MODE=0x3",
        "toy: cpu3 CTRL -> 0x00000031 EN MODE=0x3",
        "toy: dma LIST2 <- 0x00000005",
    ]
    assert machine.trace("toy") == 13
    Toy("toy.1", machine)  # names have dots, too
    assert [machine.trace(pattern) for pattern in ("toy.1", "toy.1.CTRL", "toy", "toy*")] == [13, 1, 13, 26]
    with pytest.raises(UsageError, match="devices: toy"):
        machine.trace("nobody.*")


def test_saved_states_come_back_whole_or_not_at_all() -> None:
    machine, toy, _ = build()
    machine.memory.write(0, 4, 0x21)
    machine.memory.write(0x40, 4, 9)
    toy.queue += b"abc"
    toy.many = [1, 2, 3]
    saved = json.loads(json.dumps(machine.save()))
    other, copy, _ = build()
    random = Random(1)
    for _ in range(200):
        with pytest.raises(SnapshotError):
            other.restore({**saved, "devices": {"toy": mutated(saved["devices"]["toy"], random)}})
        assert copy.save() == build()[1].save()
    other.restore(saved)
    assert other.save() == saved
    assert (copy.CTRL, copy.LIST, copy.queue, copy.many) == (0x21, [9, 0, 0, 0], bytearray(b"abc"), [1, 2, 3])
    toys = saved["devices"]["toy"]
    wrong: list[Any] = [[], {}, {**saved, "version": 2}, {**saved, "clock": -1}, {**saved, "epoch": "now"}]
    long = {**toys, "state": {**toys["state"], "queue": "6162636465"}}
    others: list[Any] = [None, {}, {"toy": []}, {"toy": {}}, {"toy": {**toys, "state": None}}, {"toy": long}]
    wrong += [{**saved, "devices": devices} for devices in others]
    for state in wrong:
        with pytest.raises(SnapshotError):
            other.restore(state)
    assert copy.queue == b"abc"


def test_declarations_that_cannot_be() -> None:
    with pytest.raises(MapError, match=r"B and A are both at 0x0"):
        type("Twice", (Device,), {"WINDOW": Window(8), "A": Register(0, RW), "B": Register(0, RO)})
    with pytest.raises(MapError, match="beyond the end"):
        type("Long", (Device,), {"WINDOW": Window(8), "A": Registers(0, RW, count=3)})
    with pytest.raises(MapError, match="beyond its 1 bytes"):
        Register(0, RW, size=1, reset=0x100)
    machine, _, _ = build()
    with pytest.raises(MapError, match="two devices called toy"):
        Toy("toy", machine)


def test_the_page_lists_every_register() -> None:
    page = document(Toy)
    assert "| 0x000 | CTRL | 4 | RW | 0x10 | control | EN [0], MODE [5:4], not implemented: 0x80 |" in page
    assert "| 0x040 + 0x4 n | LIST[4] | 4 | RW | 0x0 | list |  |" in page
    assert "## BYTES: 0x20 bytes" in page
    for name in DEVICES:
        kind = load(name)
        assert all(register.doc for register in kind.REGISTERS.values())
        assert all(f"| {register}" in document(kind) for register in kind.REGISTERS)
    with pytest.raises(UsageError, match="devices: "):
        load("toy")
