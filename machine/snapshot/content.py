"""What has bytes in a machine, memory and disks, as chunks of a snapshot: chunks of zeroes are not there."""

from __future__ import annotations

from collections import deque
from threading import local
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from dbt.machine.block import READ, STATUS, WRITE, WRITE_ZEROES, Disk, Extent, Request
from dbt.machine.errors import SnapshotError
from dbt.machine.memory import RAM, ROM, Memory, ROMDevice
from dbt.machine.snapshot.container import CHUNK, Reader, Writer, compressor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future, ThreadPoolExecutor

    from dbt.machine.machine import Machine
    from dbt.machine.memory import Region

Chunks = list[list[int]]  # [number, offset in the file, length there]


class Content(Protocol):
    """Bytes that are saved and restored."""

    size: int

    def chunks(self) -> Iterator[int]:
        """Numbers of the chunks that may have other than zeroes."""

    def get(self, at: int, length: int) -> memoryview:
        """Some of it."""

    def put(self, at: int, data: bytes) -> None:
        """Replace some of it."""

    def clear(self, at: int, length: int) -> None:
        """Make it zeroes."""


class MemoryContent:
    """Guest memory."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.size = memory.size

    def chunks(self) -> Iterator[int]:
        """Pages that were never touched are holes of the memory's file."""
        last = -1
        for start, end in self.memory.extents():
            for number in range(max(start // CHUNK, last + 1), -(-end // CHUNK)):
                yield number
                last = number

    def get(self, at: int, length: int) -> memoryview:
        """A view."""
        return self.memory.view[at : at + length]

    def put(self, at: int, data: bytes) -> None:
        """Copy."""
        self.memory.view[at : at + len(data)] = data
        self.memory.written(at, len(data))

    def clear(self, at: int, length: int) -> None:
        """Give the pages back."""
        self.memory.clear(at, length)


class DiskContent:
    """A disk that nothing else uses meanwhile: it is drained."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.size = disk.size

    def chunks(self) -> Iterator[int]:
        """By what the disk knows about itself."""
        at, last = 0, -1
        while at < self.size:
            request = Request(STATUS, at, length=self.size - at)
            self.disk.perform_or_raise(request)
            extent: Extent = request.result
            if not extent.zero:
                for number in range(max(at // CHUNK, last + 1), -(-(at + extent.length) // CHUNK)):
                    yield number
                    last = number
            at += extent.length

    def get(self, at: int, length: int) -> memoryview:
        """A copy."""
        data = memoryview(bytearray(length))
        self.disk.perform_or_raise(Request(READ, at, [data]))
        return data

    def put(self, at: int, data: bytes) -> None:
        """Write."""
        self.disk.perform_or_raise(Request(WRITE, at, [memoryview(data)]))

    def clear(self, at: int, length: int) -> None:
        """Write zeroes."""
        self.disk.perform_or_raise(Request(WRITE_ZEROES, at, length=length))


def memories(machine: Machine) -> dict[str, Memory]:
    """All memory of a machine by its name, also what no address shows just now."""
    found: dict[str, Memory] = {}
    todo: deque[Region] = deque([machine.system, machine.io])
    for device in machine.devices.values():
        todo.extend(device.all_regions())
    seen: set[int] = set()
    while todo:
        region = todo.popleft()
        if id(region) in seen:
            continue
        seen.add(id(region))
        todo.extend(region.below())
        if isinstance(region, RAM | ROM | ROMDevice):
            memory = region.memory
            if found.setdefault(memory.name, memory) is not memory:
                raise SnapshotError(f"{machine.name}: two memories are called {memory.name}")
    return dict(sorted(found.items()))


def store(content: Content, writer: Writer, pool: ThreadPoolExecutor, threads: int) -> Chunks:
    """Write the chunks that are not zero, compressed by the pool and in their order."""
    stored: Chunks = []
    waiting: deque[tuple[int, Future[bytes]]] = deque()
    mine = local()

    def pack(data: memoryview) -> bytes:
        if not hasattr(mine, "compressor"):
            mine.compressor = compressor()
        packed: bytes = mine.compressor.compress(data)
        return packed

    def land() -> None:
        number, future = waiting.popleft()
        stored.append([number, *writer.put(future.result())])

    for number in content.chunks():
        at = number * CHUNK
        data = content.get(at, min(CHUNK, content.size - at))
        if np.frombuffer(data, np.uint8).any():
            waiting.append((number, pool.submit(pack, data)))
            if len(waiting) > 2 * threads:
                land()
    while waiting:
        land()
    return stored


def checked(entry: Any, content: Content, reader: Reader, what: str) -> Chunks:  # noqa: ANN401 - from outside
    """The chunks of an entry of the directory, after a look at all of them and at all that they contain."""
    if not isinstance(entry, dict) or entry.get("size") != content.size or not isinstance(entry.get("chunks"), list):
        reader.wrong(f"{what} has {content.size:,} bytes here, and others were saved")
    listed: list[Any] = entry["chunks"]
    last = -1
    for chunk in listed:
        good = isinstance(chunk, list) and len(chunk) == 3 and all(type(number) is int for number in chunk)
        if not good or not last < chunk[0] < -(-content.size // CHUNK) or min(chunk) < 0:
            reader.wrong(f"{what}: the list of chunks is wrong after number {last}")
        last = chunk[0]
        reader.chunk(chunk[1], chunk[2], min(CHUNK, content.size - last * CHUNK))
    return listed


def load(content: Content, chunks: Chunks, reader: Reader) -> None:
    """Make the content that of checked chunks."""
    stored = {number for number, _, _ in chunks}
    for number in list(content.chunks()):
        if number not in stored:
            at = number * CHUNK
            content.clear(at, min(CHUNK, content.size - at))
    for number, offset, length in chunks:
        at = number * CHUNK
        content.put(at, reader.chunk(offset, length, min(CHUNK, content.size - at)))


def disks(machine: Machine) -> Iterable[tuple[str, Disk]]:
    """(label, disk) of all."""
    for device in machine.devices.values():
        for number, disk in enumerate(device.disks()):
            yield f"{device.name}/{number}", disk
