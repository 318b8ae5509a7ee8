"""The pipelined copy: several ranges in flight, each read, looked at for zeroes, and written by a thread of its own.

A thread asks the plan for a range, reads it, and writes what of it is not zero. Reading, writing and compressing run
without Python's lock, so that two of them, of different ranges, run at the same time. Ranges are handed out in order,
and written in about that order.
"""

from __future__ import annotations

import os
import threading
from contextlib import nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING

from dbt.machine.block.buffers import aligned
from dbt.machine.block.request import COMPRESSED, MAY_UNMAP, READ, WRITE, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dbt.machine.block.disk import Disk
    from dbt.machine.block.node import Node
    from dbt.machine.block.tool.progress import Progress

CHUNK = 2 << 20
THREADS = 8  # at most, unless the user wants more
TICK = 0.1  # seconds between two looks at the progress

Range = tuple[int, int]


def threads_for(*nodes: Node) -> int:
    """How many ranges to have in flight: as many as wait for servers; of files here as many as processors copy."""
    return THREADS if any(is_remote(node) for node in nodes) else min(THREADS, len(os.sched_getaffinity(0)))


def is_remote(node: Node) -> bool:
    """Whether a protocol below it waits for other machines."""
    return getattr(node, "remote", False) or any(is_remote(child) for child in node.children.values())


@lru_cache(maxsize=8)
def _zeroes(length: int) -> bytes:
    return bytes(length)


def runs(buffer: bytearray | memoryview, length: int, granule: int) -> Iterator[tuple[int, int, bool]]:
    """(start, end, whether there is data) of the first `length` bytes: granules that are all zero, and others.

    The first word of each granule is looked at first, all of them in one go: data begins with zero seldom.
    """
    if length % 8 or granule % 8:
        heads = [0] * -(-length // granule)
    else:
        heads = memoryview(buffer)[:length].cast("Q")[:: granule // 8].tolist()
        if 0 not in heads:
            yield 0, length, True
            return
    start, data = 0, True
    for number, head in enumerate(heads):
        at = number * granule
        found = bool(head) or not _is_zero(buffer, at, min(granule, length - at))
        if found != data:
            if at > start:
                yield start, at, data
            start, data = at, found
    yield start, length, data


def _is_zero(buffer: bytearray | memoryview, at: int, length: int) -> bool:
    if isinstance(buffer, bytearray):
        return buffer.startswith(_zeroes(length), at)  # compares in place
    return bytes(buffer[at : at + length]) == _zeroes(length)


def cut_up(ranges: Iterable[Range], chunk: int) -> Iterator[Range]:
    """The ranges in parts that end at multiples of `chunk`."""
    for start, end in ranges:
        at = start
        while at < end:
            stop = min(end, (at // chunk + 1) * chunk)
            yield at, stop
            at = stop


class Crew:
    """Threads that share one list of ranges. `work(range, buffer)` does one; the first error stops all of them."""

    def __init__(self, plan: Iterable[Range], work: Callable[[Range, bytearray | memoryview], None], *,
                 chunk: int, threads: int, alignment: int = 1) -> None:  # fmt: skip
        self._plan = iter(plan)
        self._work = work
        self._chunk = chunk
        self._count = threads
        self._alignment = alignment
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._stop = False
        self.reached = 0  # the furthest end of a range that is done: for people

    def stop(self) -> None:
        """Begin no other range."""
        self._stop = True

    def _next(self) -> Range | None:
        with self._lock:
            return None if self._stop else next(self._plan, None)

    def _run(self) -> None:
        buffer = aligned(self._chunk) if self._alignment > 1 else bytearray(self._chunk)
        try:
            while (part := self._next()) is not None:
                self._work(part, buffer)
                self.reached = max(self.reached, part[1])
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            self._error = self._error or error
            self._stop = True

    def run(self, progress: Progress) -> None:
        """Do all of it. KeyboardInterrupt and errors come out when every thread has finished its range."""
        threads = [threading.Thread(target=self._run, name=f"copy-{k}", daemon=True) for k in range(self._count)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(TICK)
                    progress.reach(self.reached)
        finally:
            self._stop = True
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        if self._error is not None:
            raise self._error


class Copy:
    """From `source` to `target`. `empty`: the target reads as zeroes already, so zeroes need not be written.

    `shift` is added to an offset of the source to have that of the target.
    """

    def __init__(
        self, source: Disk, target: Disk, *, granule: int, empty: bool, compressed: bool = False, shift: int = 0,
        threads: int | None = None,
    ) -> None:  # fmt: skip
        self.source = source
        self.target = target
        self.granule = granule
        self.empty = empty
        self.shift = shift
        self.threads = threads or threads_for(source.node, target.node)
        self.chunk = max(CHUNK, granule)
        self._flags = COMPRESSED if compressed else 0
        # The kernel lets one in at a time to write to a file; who waits for it there burns the other processor.
        self._turn = nullcontext() if compressed or is_remote(target.node) else threading.Lock()

    def run(self, ranges: Iterable[Range], progress: Progress) -> None:
        """Copy the ranges of the source."""
        alignment = max(self.source.node.alignment, self.target.node.alignment)
        crew = Crew(
            cut_up(ranges, self.chunk), self._one, chunk=self.chunk, threads=self.threads, alignment=alignment
        )  # fmt: skip
        crew.run(progress)

    def _one(self, part: Range, buffer: bytearray | memoryview) -> None:
        start, end = part
        length = end - start
        view = memoryview(buffer)
        self.source.run(Request(READ, start, [view[:length]], length=length))
        for low, high, data in runs(buffer, length, self.granule):
            at = start + low + self.shift
            if data:
                request = Request(WRITE, at, [view[low:high]], length=high - low, flags=self._flags)
                with self._turn:
                    self.target.run(request)
            elif not self.empty:
                self.target.write_zeroes(at, high - low, MAY_UNMAP)


def gaps(ranges: Iterable[Range], start: int, end: int) -> Iterator[Range]:
    """What of [start, end) is in none of the ranges, which are in order."""
    at = start
    for low, high in ranges:
        if low > at:
            yield at, low
        at = high
    if end > at:
        yield at, end
