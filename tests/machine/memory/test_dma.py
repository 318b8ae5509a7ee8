"""Devices reach memory through the map and nothing else."""

from __future__ import annotations

import pytest
from dbt.machine.errors import DmaError
from dbt.machine.log import GUEST_ERROR
from dbt.machine.memory import MMIO, RAM, ROM, AddressSpace, Attributes, Container, DirtyTracker, DmaPort


class Untouched:
    def read(self, offset: int, size: int, attributes: Attributes) -> int:
        raise AssertionError(offset, size, attributes)

    def write(self, offset: int, size: int, value: int, attributes: Attributes) -> None:
        raise AssertionError(offset, size, value, attributes)


def build() -> tuple[AddressSpace, DmaPort, list[RAM]]:
    rams = [RAM("low", 0x1000), RAM("high", 0x1000)]
    root = Container("root", 1 << 32)
    root.place(rams[0], 0x1000)
    root.place(rams[1], 0x2000)
    root.place(MMIO("device", 0x1000, Untouched()), 0x3000)
    root.place(ROM("rom", 0x1000), 0x4000)
    space = AddressSpace("space", root, bits=32)
    return space, DmaPort("disk", space), rams


def test_transfers_go_over_the_borders_of_regions() -> None:
    space, port, rams = build()
    tracker = DirtyTracker(rams[1].memory)
    port.dma_write(0x1FFC, bytes(range(8)))
    assert port.dma_read(0x1FFC, 8) == bytes(range(8)) == space.peek(0x1FFC, 8)
    assert bytes(rams[1].memory.view[:4]) == b"\4\5\6\7"
    assert tracker.collect() == [(0, 0x1000)]
    assert port.dma_read(0x4000, 4) == bytes(4)


@pytest.mark.parametrize(("address", "first"), [(0x2FFE, 0x3000), (0xFFE, 0xFFE), (0x3000, 0x3000), (0x10000, 0x10000)])
def test_what_is_no_memory_is_refused_before_anything_is_moved(address: int, first: int) -> None:
    space, port, _ = build()
    before = space.peek(0x1000, 0x2000)
    for call in (
        lambda: port.dma_read(address, 8),
        lambda: port.dma_write(address, b"12345678"),
        lambda: port.map(address, 8, writable=True),
    ):
        with pytest.raises(DmaError) as caught:
            call()
        assert caught.value.address == first
    assert space.peek(0x1000, 0x2000) == before
    assert space.log.counts[GUEST_ERROR] == 3


def test_absurd_lengths_and_addresses_cost_nothing() -> None:
    _, port, _ = build()
    for address, length in ((0x1000, 1 << 62), (0, 1 << 62), (1 << 64, 1), (-1, 1), (0x1000, -1)):
        with pytest.raises(DmaError):
            port.dma_read(address, length)
    assert port.dma_read(0x1000, 0) == b""


def test_rom_is_not_written_and_a_port_can_be_closed() -> None:
    _, port, _ = build()
    with pytest.raises(DmaError):
        port.dma_write(0x4000, b"1")
    with pytest.raises(DmaError):
        port.map(0x4000, 1, writable=True)
    port.enabled = False
    with pytest.raises(DmaError, match="bus master"):
        port.dma_read(0x1000, 1)


def test_mappings_are_the_memory_itself_and_count_as_written_at_the_end() -> None:
    space, port, rams = build()
    tracker = DirtyTracker(rams[0].memory)
    mapping = port.map(0x1FF0, 0x20, writable=True)
    assert [len(view) for view in mapping.views] == [0x10, 0x10]
    mapping.views[0][:2] = b"ab"
    assert space.peek(0x1FF0, 2) == b"ab"
    assert tracker.collect() == []
    port.unmap(mapping)
    assert tracker.collect() == [(0, 0x1000)]
    reading = port.map(0x1FF0, 2, writable=False)
    with pytest.raises(TypeError):
        reading.views[0][0] = 1
    port.unmap(reading)
    assert tracker.collect() == []
    rams[0].memory.close()  # nobody holds it any more
