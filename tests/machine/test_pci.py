"""PCI functions as drivers see them: sizing, placing, decoding, interrupts, messages, saved states, hostile writes."""

from __future__ import annotations

import json
from random import Random

import pytest
from dbt.machine.errors import DmaError, MapError, SnapshotError
from dbt.machine.log import GUEST_ERROR, TRACE, Log
from dbt.machine.machine import PORTS, Machine
from dbt.machine.memory import RAM, AccessSizes, AddressSpace, Container
from dbt.machine.msi import MsiRouter
from dbt.machine.pci import ROM, Bar, Identity, PciBus, PciFunction
from dbt.machine.registers import RW, Register, Registers, Window

from tests.machine.fuzzing import fuzz
from tests.machine.pci import ECAM, RAM_AT, Config, Function, Messages, machine, poke
from tests.machine.qtest import Ours

MSI_AT = 0xFEE0_0000


class Card(PciFunction):
    """Three kinds of BAR, a ROM, both kinds of messages."""

    PCI = Identity(vendor=0x1AF4, device=0x4242, class_code=0xFF0001, revision=7, pin=1)
    REGS = Window(0x1800)
    PORTS = Window(0x20, AccessSizes((1, 4), (1, 4)))
    WIDE = Window(0x4000)
    FLASH = Window(0x1000)
    BARS = (
        Bar(0, "REGS"), Bar(1, "PORTS", io=True), Bar(2, "WIDE", bits=64, prefetchable=True), Bar(ROM, "FLASH"),
    )  # fmt: skip
    CTRL = Register(0, RW, "interrupt pin", mask=1)
    SCRATCH = Register(4, RW, "anything")
    PORT = Register(0, RW, "anything", window=PORTS)
    CELL = Registers(0, RW, "anything", count=4, window=WIDE)

    def __init__(self, name: str, machine: Machine, *, bus: PciBus, slot: int, function: int = 0) -> None:
        super().__init__(name, machine, bus=bus, slot=slot, function=function)
        self.add_msi(8, masking=True)
        self.add_msix(5, bar=4)
        self.add_capability(0x09, bytes((6, 1, 2, 3)), bytes((0, 0xF0)))

    @CTRL.after_write
    def _ctrl(self) -> None:
        self.intx.set(bool(self.CTRL))

    def on_restore(self) -> None:
        """The pin is what the register says."""
        self._ctrl()

    def on_reset(self) -> None:
        """The pin is down."""
        self._ctrl()


def build(slot: int = 3, log: Log | None = None) -> tuple[Machine, Card, Function]:
    made, bus = machine(log=log)
    card = Card("card", made, bus=bus, slot=slot)
    made.reset()
    return made, card, Config(Ours(made), ECAM).function(0x1AF4, 0x4242)


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


class Plain(PciFunction):
    """BARs that overlap with others."""

    PCI = Identity(vendor=0x1AF4, device=0x4243, class_code=0xFF0001)
    REGS = Window(0x2000)
    PORTS = Window(0x20, AccessSizes((1, 4), (1, 4)))
    WIDE = Window(0x4000)
    BARS = (Bar(0, "REGS"), Bar(1, "PORTS", io=True), Bar(2, "WIDE", bits=64))


def naive(cards: list[Plain], address: int, *, io: bool) -> tuple[str, int] | None:
    """Who decodes an address, from the registers as PCI defines them: (card and window, offset)."""
    for card in sorted(cards, key=lambda card: card.devfn):
        data = card.config.data
        for window, offset, width, size, end in (
            ("REGS", 0x10, 4, 0x2000, (1 << 32) - 1),
            ("PORTS", 0x14, 4, 0x20, 1 << 16),
            ("WIDE", 0x18, 8, 0x4000, (1 << 64) - 1),
        ):
            base = int.from_bytes(data[offset : offset + width], "little") & -size
            decoded = (window == "PORTS") == io and data[4] & (1 if io else 2) and base + size <= end
            if decoded and base <= address < base + size:
                return f"{card.name}.{window}", address - base
    return None


def test_random_bars_are_where_a_naive_model_has_them() -> None:
    random = Random(7)
    slots = ((9, 0), (2, 1), (2, 0), (30, 0))

    def plug() -> tuple[Machine, list[Plain]]:
        made, bus = machine()
        cards = [
            Plain(f"card{n}", made, bus=bus, slot=slot, function=function) for n, (slot, function) in enumerate(slots)
        ]
        made.reset()
        return made, cards

    made, cards = plug()
    driver = Config(Ours(made), ECAM)

    def check() -> int:
        shown = 0
        for _ in range(12):
            for io in (False, True):
                start = random.choice(cards).bars[1 if io else random.choice((0, 2))].at or 0
                address = max(0, start + random.choice((0, 0x10, 0x1F, 0x17F0, 0x2000, 0x3FFF, -1)))
                section = (made.ports if io else made.memory).view.find(address)
                found = None
                if section is not None and section.region.name.startswith("card"):
                    found = section.region.name, section.offset + address - section.start
                assert found == naive(cards, address, io=io)
                shown += found is not None
        return shown

    shown = 0
    for _ in range(500):
        card = random.choice(cards)
        place = (0, card.devfn >> 3, card.devfn & 7)
        match random.randrange(4):
            case 0:
                driver.write(place, 4, random.choice((0, 1, 2, 3, 7)), 2)
            case 1:
                driver.write(place, 0x14, random.choice((0xC000, 0xC020, 0xFFFF, 0xFFE0, random.getrandbits(16))))
            case _:
                value = random.choice((0x1000_0000, 0x1000_2000, 0xFFFFFFFF, random.getrandbits(29)))
                driver.write(place, random.choice((0x10, 0x18)), value)
                driver.write(place, 0x1C, random.choice((0, 0, 0, 1, 0xFFFFFFFF)))
        shown += check()
    assert shown > 4000
    again, _ = plug()
    again.restore(json.loads(json.dumps(made.save())))
    for mine, copy in ((made.memory, again.memory), (made.ports, again.ports)):
        first, second = (
            [(s.start, s.end, s.region.name, s.offset) for s in space.view.sections] for space in (mine, copy)
        )
        assert first == second


def test_random_traffic() -> None:
    def card(made: Machine) -> Card:
        return Card("card", made, bus=PciBus("pci", made), slot=4)

    def also(device: object, random: Random) -> None:
        assert isinstance(device, Card)
        poke(device, random)
        device.interrupt(random.randrange(8))

    fuzz(card, 5, also=also)


def test_hostile_configuration_writes() -> None:
    random = Random(11)
    made, bus = machine(log=Log(lambda _kind, _line: None))
    for slot in (0, 1, 31):
        for function in (0, 3):
            Card(f"card{slot}{function}", made, bus=bus, slot=slot, function=function)
    made.reset()
    for _ in range(100_000):
        size = random.choice((1, 2, 4))
        offset = random.choice((0, 0, 0, random.randrange(0x1000))) | random.randrange(0x100)
        place = random.choice((0, 1 << 15, 31 << 15, random.getrandbits(20) & ~0xFFF)) | random.choice((0, 3)) << 12
        address = ECAM + (place | offset & -size)
        if random.random() < 0.3:
            made.memory.read(address, size)
        else:
            made.memory.write(address, size, random.choice((0, 0xFFFFFFFF, random.getrandbits(32))))
        if not random.randrange(4):
            made.ports.write(0xCF8 + random.randrange(8), random.choice((1, 2, 4)), random.getrandbits(32))
    saved = json.loads(json.dumps(made.save()))
    made.restore(saved)
    assert made.save() == saved
    assert made.ports.name == PORTS
