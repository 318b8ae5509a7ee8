"""PCI functions as drivers see them: sizing, placing, decoding, interrupts, messages, saved states."""

from __future__ import annotations

import json

import pytest
from dbt.machine.errors import DmaError, MapError, SnapshotError
from dbt.machine.log import GUEST_ERROR, TRACE, Log
from dbt.machine.memory import RAM, AddressSpace, Container
from dbt.machine.msi import MsiRouter
from dbt.machine.pci import Bar, PciFunction

from tests.machine.pci import RAM_AT, Config, Messages, machine
from tests.machine.pci_card import Card, build
from tests.machine.qtest import Ours

MSI_AT = 0xFEE0_0000


def test_the_header_says_what_the_device_declares() -> None:
    _, _, driver = build()
    assert driver.at == (0, 3, 0)
    assert driver.read(8) == 0xFF000107
    assert driver.read(0x2C) == 0x1100_1AF4
    assert (driver.read(0x3D, 1), driver.read(0x0E, 1), driver.read(6, 2)) == (1, 0, 0x10)
    driver.write(0, 0xFFFFFFFF)
    driver.write(4, 0xFFFFFFFF)
    driver.write(8, 0)
    assert (driver.read(0), driver.read(4), driver.read(8)) == (0x4242_1AF4, 0x0010_0507, 0xFF000107)
    driver.write(0x3C, 0x1234, 2)
    assert driver.read(0x3C, 2) == 0x0134
    assert list(driver.capabilities()) == [0x09, 0x11, 0x05]  # the newest first


def test_ports_and_ecam_reach_the_same_registers() -> None:
    made, _, driver = build()
    ports = Config(Ours(made))
    assert dict(ports.scan()) == dict(driver.config.scan()) == {(0, 3, 0): 0x4242_1AF4}
    ports.write((0, 3, 0), 0x3C, 0x77, 1)
    assert driver.read(0x3C, 1) == 0x77
    for offset in range(0, 256, 4):
        assert ports.read((0, 3, 0), offset) == driver.read(offset)
        for size in (1, 2):
            for at in range(offset, offset + 4, size):
                word = driver.read(offset) >> 8 * (at - offset) & (1 << 8 * size) - 1
                assert ports.read((0, 3, 0), at, size) == driver.read(at, size) == word
    # Nobody there, another bus, disabled, beyond 256 bytes of a conventional function: ones. Bytes are for others.
    assert ports.read((0, 4, 0), 0) == ports.read((9, 3, 0), 0) == driver.read(0x100) == 0xFFFFFFFF
    made.ports.write(0xCF8, 4, 0x0000_1800)
    assert (made.ports.read(0xCFC, 4), made.ports.read(0xCF8, 4)) == (0xFFFFFFFF, 0x1800)
    made.ports.write(0xCF8, 1, 0xAA)
    assert (made.ports.read(0xCF8, 1), made.ports.read(0xCF8, 4)) == (0xFF, 0x1800)


def test_bars_are_sized_placed_moved_and_disabled() -> None:
    made, _, driver = build()
    sizes = {index: driver.size(index) for index in (0, 1, 2, 4, 5, 6)}
    assert sizes == {
        0: (0x2000, False, False), 1: (0x20, True, False), 2: (0x4000, False, True), 4: (0x1000, False, False),
        5: (0, False, False), 6: (0x1000, False, False),
    }  # fmt: skip
    bars = driver.place()
    memory, ports = made.memory, made.ports
    memory.write(bars[0][0] + 4, 4, 0x12345678)
    memory.write(bars[2][0] + 8, 4, 0x55)
    ports.write(bars[1][0], 4, 0x9ABC)
    assert memory.read(bars[0][0] + 4, 4) == 0x12345678
    assert memory.read(bars[0][0] + 0x1800, 4) == 0xFFFFFFFF  # the BAR is larger than the window
    driver.write(0x18, 0x4000_000C)
    driver.write(0x1C, 0x77)
    assert memory.read(0x77_4000_0008, 4) == 0x55
    driver.write(0x14, 0xD000)
    assert (ports.read(0xD000, 4), ports.read(bars[1][0], 4)) == (0x9ABC, 0xFFFFFFFF)
    driver.enable(memory=False)
    assert (memory.read(bars[0][0] + 4, 4), ports.read(0xD000, 4)) == (0xFFFFFFFF, 0x9ABC)
    driver.enable(io=False)
    assert (memory.read(bars[0][0] + 4, 4), ports.read(0xD000, 4)) == (0x12345678, 0xFFFFFFFF)
    driver.write(0x30, 0x2000_0000)
    assert made.memory.view.find(0x2000_0000).region.name == "abort"  # type: ignore[union-attr]
    driver.write(0x30, 0x2000_0001)
    assert made.memory.view.find(0x2000_0000).region.name == "card.FLASH"  # type: ignore[union-attr]
    made.reset()
    assert driver.read(0x10) == 0
    assert memory.read(bars[0][0] + 4, 4) == 0xFFFFFFFF


def test_the_pin_is_masked_by_disable_and_by_messages() -> None:
    made, card, driver = build()
    wire = card.bus.intx[3]  # slot 3, INTA#
    bars = driver.place()
    made.memory.write(bars[0][0], 4, 1)
    assert (wire.level, driver.read(6, 2) & 8) == (True, 8)
    driver.enable(intx=False)
    assert (wire.level, driver.read(6, 2) & 8) == (False, 8)
    other, twin, _ = build()
    other.restore(json.loads(json.dumps(made.save())))
    twin.config_write(4, 2, 7)
    assert twin.bus.intx[3].level
    driver.enable()
    assert all(line.level == (line is wire) for line in card.bus.intx)
    at = driver.enable_msi(MSI_AT, 0x40)
    levels = [wire.level]
    driver.write(at + 2, 0, 2)
    assert [*levels, wire.level] == [False, True]
    second = Card("second", made, bus=card.bus, slot=7)  # the same wire
    second.intx.set(True)
    made.memory.write(bars[0][0], 4, 0)
    assert wire.level
    second.reset()
    assert not wire.level


def test_msi_goes_through_the_router_with_masks() -> None:
    made, card, driver = build()
    messages = Messages()
    made.msi.add(MSI_AT, 0x1000, messages)
    driver.place()
    at = driver.enable_msi(MSI_AT + 0x10, 0x4141, vectors=4)
    assert card.msi_active
    card.interrupt(2)
    card.interrupt(5)  # there are four: it is the second
    assert messages.seen == [(0x10, 0x4142, 0x18), (0x10, 0x4141, 0x18)]
    driver.write(at + 16, 0b100)
    card.interrupt(2)
    card.interrupt(2)
    assert (len(messages.seen), driver.read(at + 20)) == (2, 0b100)
    driver.write(at + 16, 0)
    assert (messages.seen[2:], driver.read(at + 20)) == ([(0x10, 0x4142, 0x18)], 0)
    driver.write(at + 2, 0x71, 2)  # 128 wanted, eight there
    card.interrupt(7)
    assert messages.seen[3:] == [(0x10, 0x4147, 0x18)]
    driver.enable(master=False)
    card.interrupt(0)
    assert (len(messages.seen), made.log.counts[GUEST_ERROR]) == (4, 1)


def test_msix_keeps_what_is_masked() -> None:
    made, card, driver = build()
    messages = Messages()
    made.msi.add(MSI_AT, 0x1000, messages)
    bars = driver.place()
    at = driver.enable_msix([(MSI_AT + 4 * n, 100 + n) for n in range(4)])
    assert (card.msix_active, card.msi_active) == (True, False)
    for vector in range(6):
        card.interrupt(vector)
    assert messages.seen == [(4 * n, 100 + n, 0x18) for n in range(4)]
    pba = bars[4][0] + 0x800
    assert (made.memory.read(pba, 8), made.log.counts[GUEST_ERROR]) == (0b10000, 1)
    saved = json.loads(json.dumps(made.save()))
    entry = bars[4][0] + 16 * 4
    made.memory.write(entry, 8, MSI_AT + 0x40)
    made.memory.write(entry + 8, 8, 0x5)  # data, and unmasked
    assert (messages.seen[4:], made.memory.read(pba, 8)) == ([(0x40, 5, 0x18)], 0)
    driver.write(at + 2, 0xC000, 2)
    card.interrupt(1)
    made.memory.write(pba, 8, 0)
    assert (len(messages.seen), made.memory.read(pba, 8)) == (5, 2)
    driver.write(at + 2, 0x8000, 2)
    assert (len(messages.seen), made.memory.read(pba, 8)) == (6, 0)
    other, twin, _ = build()
    other.restore(saved)
    assert (twin.msix_active, other.memory.read(pba, 8), other.memory.read(entry + 12, 4)) == (True, 0b10000, 1)
    assert other.save() == saved


def test_a_bus_master_reaches_memory_only_when_it_may() -> None:
    _, card, driver = build()
    with pytest.raises(DmaError):
        card.dma.dma_read(RAM_AT, 4)
    driver.enable()
    assert card.dma.dma_read(RAM_AT, 4) == bytes(4)
    driver.enable(master=False)
    with pytest.raises(DmaError):
        card.dma.dma_write(RAM_AT, b"x")


def test_slots_with_several_functions_say_so() -> None:
    made, card, driver = build()
    Card("second", made, bus=card.bus, slot=3, function=5)
    assert [place for place, _ in driver.config.scan()] == [(0, 3, 0), (0, 3, 5)]
    assert (driver.read(0x0E, 1), card.bus.free_slot(3)) == (0x80, 4)
    for slot, function in ((3, 5), (32, 0), (4, 8)):
        with pytest.raises(MapError, match="slot"):
            Card(f"x{slot}{function}", made, bus=card.bus, slot=slot, function=function)


def test_what_a_device_cannot_declare() -> None:
    made, bus = machine()
    for number, bars in enumerate((
        (Bar(0, "REGS"), Bar(0, "WIDE")), (Bar(5, "WIDE", bits=64),), (Bar(7, "REGS"),), (Bar(0, "PORTS", bits=16),),
        (Bar(0, "REGS", size=0x1801),), (Bar(1, "REGS", io=True),), (Bar(1, "PORTS", io=True, bits=64),),
    )):  # fmt: skip
        with pytest.raises(MapError):
            PciFunction.__init__(Card.__new__(Card), f"c{number}", made, bus=bus, slot=number, bars=bars)
    card = Card("card", made, bus=bus, slot=9)
    for vectors in (0, 3, 64):
        with pytest.raises(MapError):
            card.add_msi(vectors)
    with pytest.raises(MapError):
        card.add_msix(2049, bar=5)
    with pytest.raises(MapError, match="no room"):
        card.add_capability(9, bytes(180))
    with pytest.raises(MapError, match="fits at"):
        card.add_capability(9, bytes(6), at=0x40)
    router = MsiRouter(AddressSpace("memory", memory := Container("all", 1 << 64), log=made.log))
    router.add(0x1000, 0x100, Messages())
    with pytest.raises(MapError):
        router.add(0x10FF, 1, Messages())
    assert router.send(0x10FC, 0, 0)
    assert not router.send(0x1100, 0, 0)
    assert not router.send(0xFFF, 0, 0)
    memory.place(RAM("ram", 0x1000), 0x2000)  # a message to memory is a write of 32 bits
    assert router.send(0x2010, 0x1_2345_6789, 0)
    assert router._memory.dma_read(0x200C, 12) == bytes(4) + bytes.fromhex("89674523") + bytes(4)
    assert not router.send(0x2FFE, 0, 0)


def test_configuration_space_is_traced_by_name() -> None:
    lines: list[str] = []
    made, _, driver = build(log=Log(lambda _kind, line: lines.append(line), (TRACE,)))
    assert made.trace("card.COMMAND") == 1
    driver.write(4, 7, 2)
    driver.read(4)
    assert lines == [
        "card: config COMMAND <- 0x0007 IO MEMORY MASTER", "card: config COMMAND -> 0x0007 IO MEMORY MASTER",
    ]  # fmt: skip
    assert made.trace("card") > 40


def test_a_saved_function_is_looked_at() -> None:
    made, _, driver = build()
    driver.place()
    saved = made.save()
    for change in (
        {"config": "00"}, {"config": "zz"}, {"config": 5}, {"config": "ff" * 256}, {"msix": "00"}, {"msix": 5},
    ):  # fmt: skip
        wrong = json.loads(json.dumps(saved))
        wrong["devices"]["card"].update(change)
        with pytest.raises(SnapshotError):
            build()[0].restore(wrong)
    del saved["devices"]["card"]["msix"]
    with pytest.raises(SnapshotError):
        made.restore(saved)
