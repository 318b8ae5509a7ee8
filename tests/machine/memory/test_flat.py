"""The flat view equals a naive reference for random graphs, also while they change; limits of graphs."""

from __future__ import annotations

from contextlib import ExitStack
from random import Random
from typing import Any

import pytest
from dbt.machine.errors import MapError
from dbt.machine.memory import (
    MMIO,
    RAM,
    ROM,
    AddressSpace,
    Alias,
    Attributes,
    Container,
    Memory,
    Region,
    ROMDevice,
    Windows,
    flat,
)

SPACE = 256
SHARED = Memory("shared", SPACE)  # regions are looked at, not their bytes
SHARED_LARGE = Memory("large", 1 << 31)


class Nothing:
    def read(self, offset: int, size: int, attributes: Attributes) -> int:
        raise AssertionError(offset, size, attributes)

    def write(self, offset: int, size: int, value: int, attributes: Attributes) -> None:
        raise AssertionError(offset, size, value, attributes)


class Model:
    """The graph again, as lists of what was done: resolved address by address, without ranges."""

    def __init__(self) -> None:
        self.placed: dict[Region, list[tuple[int, int, int, Region]]] = {}  # container: (priority, number, at, region)
        self.number = 0

    def place(self, container: Container, region: Region, at: int, priority: int) -> None:
        self.number += 1
        self.placed.setdefault(container, []).append((priority, self.number, at, region))

    def remove(self, container: Container, region: Region) -> None:
        self.placed[container] = [place for place in self.placed[container] if place[3] is not region]

    def find(self, region: Region, offset: int, readonly: bool = False) -> tuple[Region, int, bool] | None:
        if not 0 <= offset < region.size or not region.enabled:
            return None
        if isinstance(region, Alias):
            return self.find(region.target, region.offset + offset, readonly or region.readonly)
        if isinstance(region, Windows):
            seen = any(start <= offset < end for start, end in region.ranges)
            return self.find(region.target, offset, readonly) if seen else None
        if isinstance(region, Container):
            for _, _, at, child in sorted(self.placed.get(region, []), key=lambda place: place[:2], reverse=True):
                if found := self.find(child, offset - at, readonly):
                    return found
            return None
        return region, offset, readonly


class Graph:
    """A random graph with its model; `step` changes something."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.model = Model()
        self.root = Container("root", self.random.choice((SPACE, SPACE, 100, 300)))
        self.regions: list[Region] = [self.root]
        self.refused = 0
        for _ in range(self.random.randint(3, 25)):
            self.add()

    def add(self) -> None:
        number, size = len(self.regions), self.random.randint(1, self.random.choice((20, 80, SPACE)))
        region: Region
        match self.random.randrange(7):
            case 0:
                region = RAM(f"ram{number}", size, SHARED)
            case 1:
                region = ROM(f"rom{number}", size, SHARED)
            case 2:
                region = MMIO(f"mmio{number}", size, Nothing())
            case 3:
                region = ROMDevice(f"flash{number}", size, Nothing(), memory=SHARED)
            case 4:
                target = self.random.choice(self.regions)
                offset = self.random.randrange(SPACE)
                region = Alias(f"alias{number}", target, offset, size, readonly=self.random.random() < 0.3)
            case 5:
                region = Windows(f"windows{number}", self.random.choice(self.regions))
                self.cut(region)
            case _:
                region = Container(f"container{number}", size)
        self.regions.append(region)
        self.put(region)

    def cut(self, windows: Windows) -> None:
        edges = sorted(self.random.sample(range(SPACE + 40), 2 * self.random.randint(0, 4)))
        windows.ranges = tuple(zip(edges[::2], edges[1::2], strict=True))

    def put(self, region: Region) -> None:
        container = self.random.choice([r for r in self.regions if isinstance(r, Container)])
        at, priority = self.random.randrange(SPACE), self.random.randint(-2, 2)
        try:
            container.place(region, at, priority)
        except MapError:
            self.refused += 1
        else:
            self.model.place(container, region, at, priority)

    def some_containers(self) -> list[Container]:
        containers = [r for r in self.regions if isinstance(r, Container)]
        return self.random.sample(containers, self.random.randint(0, len(containers)))

    def step(self) -> None:
        region = self.random.choice(self.regions)
        match self.random.randrange(5):
            case 0:
                region.enabled = not region.enabled
            case 1 if region.parent:
                at = self.random.randrange(SPACE)
                priority = next(p for p, _, _, r in self.model.placed[region.parent] if r is region)
                self.model.remove(region.parent, region)
                region.parent.move(region, at)
                self.model.place(region.parent, region, at, priority)
            case 2 if region.parent:
                self.model.remove(region.parent, region)
                region.parent.remove(region)
            case 3 if not region.parent and region is not self.root:
                self.put(region)
            case 4 if isinstance(region, Alias):
                region.readonly = not region.readonly
            case 4 if isinstance(region, Windows):
                self.cut(region)
            case _:
                self.add()


def check(graph: Graph, space: AddressSpace) -> None:
    for address in range(SPACE + 2):
        section = space.view.find(address)
        found = section and (section.region, address - section.start + section.offset, section.readonly)
        assert found == (graph.model.find(graph.root, address) if address < SPACE else None), hex(address)
    end, last = 0, None
    for section in space.view.sections:
        assert end <= section.start < section.end <= SPACE
        if last and last.end == section.start:  # neighbours differ, else they would be one
            assert (last.region, last.start - last.offset) != (section.region, section.start - section.offset) or (
                last.readonly != section.readonly
            )
        end, last = section.end, section


@pytest.mark.parametrize("base", range(0, 100, 25))
def test_the_flat_view_is_that_of_the_naive_reference(base: int) -> None:
    sections = refused = 0
    for seed in range(base, base + 25):
        graph = Graph(seed)
        space = AddressSpace("space", graph.root, bits=8)
        told: set[Any] = set()

        def listener(removed: tuple[Any, ...], added: tuple[Any, ...], told: set[Any] = told) -> None:
            assert told.issuperset(removed)
            told.difference_update(removed)
            assert told.isdisjoint(added)
            told.update(added)

        space.listen(listener)
        check(graph, space)
        for number in range(24):
            with ExitStack() as held:  # every second time several changes are shown at once
                for container in graph.some_containers() if number & 1 else ():
                    held.enter_context(container.changes())
                for _ in range(5 if number & 1 else 1):
                    graph.step()
            check(graph, space)
            fresh = flat.flatten(graph.root, 1 << 8)
            assert (space.view.starts, space.view.targets) == (fresh.starts, fresh.targets)
            assert told == set(space.view.sections)
            sections += len(space.view.sections)
        refused += graph.refused
    assert sections > 1000  # the graphs show something
    assert refused  # graphs that would have had cycles were among them


def test_cycles_are_refused() -> None:
    outer, inner = Container("outer", 100), Container("inner", 100)
    outer.place(inner, 0)
    with pytest.raises(MapError, match="outer cannot be in inner"):
        inner.place(outer, 0)
    with pytest.raises(MapError, match="alias cannot be in inner"):
        inner.place(Alias("alias", outer), 0)
    with pytest.raises(MapError, match="inner is in outer already"):
        Container("third", 10).place(inner, 0)


def test_a_graph_that_multiplies_is_refused() -> None:
    region: Region = RAM("ram", 1, SHARED)
    for level in range(24):
        container = Container(f"level{level}", 1 << level + 1)
        container.place(Alias("a", region), 0)
        container.place(Alias("b", region), 1 << level)
        region = container
    with pytest.raises(MapError, match="aliases of aliases multiply"):
        AddressSpace("space", region, bits=32)


def multiplying(levels: int) -> list[Container]:
    """Containers whose last one shows 2**levels sections."""
    region: Region = RAM("ram", 1, SHARED)
    made = []
    for level in range(levels):
        container = Container(f"level{level}", 2 << level + 1)
        container.place(Alias("a", region), 0)
        container.place(Alias("b", region), 2 << level)
        region = container
        made.append(container)
    return made


def test_a_space_that_could_not_show_a_change_shows_it_later() -> None:
    root, levels = Container("root", 1 << 32), multiplying(20)
    space = AddressSpace("space", root, bits=32)
    other = AddressSpace("other", root, bits=10)
    with pytest.raises(MapError, match="aliases of aliases multiply"):
        root.place(levels[-1], 0)
    assert space.view.find(0) is None
    assert other.view.find(0)  # it is small enough, and was told although the first one failed
    levels[6].enabled = False
    root.place(RAM("more", 1, SHARED), 1 << 30)
    fresh = flat.flatten(root, 1 << 32)
    assert space.view.starts == fresh.starts
    assert space.view.find(1 << 30)


def test_a_change_costs_what_is_shown_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: sections that are made, and regions above that are looked at."""
    made: list[int] = []
    section = flat._section

    def noted(start: int, *rest: Any) -> flat.Section:
        made.append(start)
        return section(start, *rest)

    monkeypatch.setattr(flat, "_section", noted)
    root = Container("root", 1 << 32)
    bars = [MMIO(f"bar{number}", 0x1000, Nothing()) for number in range(1000)]
    with root.changes():
        root.place(RAM("ram", 1 << 31, SHARED_LARGE), 0)
        for number, bar in enumerate(bars):
            root.place(bar, 0x8000_0000 + 0x2000 * number)
    space = AddressSpace("space", root, bits=32)
    told: list[tuple[Any, ...]] = []
    space.listen(lambda removed, added: told.append((removed, added)))
    assert len(made) == 1001
    made.clear()
    told.clear()
    root.move(bars[500], 0xF000_0000)
    assert made == [0xF000_0000]
    ((removed, added),) = told
    assert [(s.start, s.region) for s in removed] == [(0x8000_0000 + 0x2000 * 500, bars[500])]
    assert [(s.start, s.region) for s in added] == [(0xF000_0000, bars[500])]
    bars[10].enabled = False
    bars[10].enabled = True
    assert made[1:] == [0x8000_0000 + 0x2000 * 10]
    levels = multiplying(20)  # a million ways up, and 58 regions
    looked: list[Region] = levels[0]._above()
    assert len(looked) == 58
    levels[0].changed()


def test_changes_come_at_once_at_the_end_of_changes() -> None:
    root, bus = Container("root", 100), Container("bus", 100)
    root.place(bus, 0)
    space = AddressSpace("space", root, bits=8)
    calls: list[tuple[Any, ...]] = []
    space.listen(lambda *sections: calls.append(sections))
    with bus.changes():
        for at in range(0, 100, 10):
            bus.place(MMIO(f"at{at}", 10, Nothing()), at)
        assert not calls
        assert not space.view.sections
    assert len(calls) == 1
    assert len(calls[0][1]) == 10
    space.close()
    bus.enabled = False
    assert len(calls) == 1


def test_look_up_takes_logarithmic_steps() -> None:
    """Counted, not timed: comparisons of a bisection in a view of many sections."""
    count = 0

    class Counted(int):
        def __lt__(self, other: int) -> bool:
            nonlocal count
            count += 1
            return int(self) < other

    root = Container("root", 1 << 32)
    with root.changes():
        for number in range(1 << 12):
            root.place(RAM(f"r{number}", 1, SHARED), 2 * number)
    space = AddressSpace("space", root, bits=32)
    for address in (0, 1, 4095, 8190, 1 << 31):
        count = 0
        space.view.find(Counted(address))
        assert 0 < count <= 14
