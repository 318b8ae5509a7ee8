"""PCI functions at random: BARs against a naive model, traffic, hostile writes to configuration space."""

from __future__ import annotations

import json
from random import Random

from dbt.machine.log import Log
from dbt.machine.machine import PORTS, Machine
from dbt.machine.memory import AccessSizes
from dbt.machine.pci import Bar, Identity, PciBus, PciFunction
from dbt.machine.registers import Window

from tests.machine.fuzzing import fuzz
from tests.machine.pci import ECAM, Config, machine, poke
from tests.machine.pci_card import Card
from tests.machine.qtest import Ours


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
