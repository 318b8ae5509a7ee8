"""The flat view equals a naive reference for random graphs, also while they change; limits of graphs."""

from __future__ import annotations

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
)

SPACE = 256
SHARED = Memory("shared", SPACE)  # regions are looked at, not their bytes


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
        for _ in range(12):
            graph.step()
            check(graph, space)
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
