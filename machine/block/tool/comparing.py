"""`compare`: whether two images read the same. Several ranges are read at once; the first difference is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.block.errors import BlockError
from dbt.machine.block.request import READ, Request
from dbt.machine.block.tool import images
from dbt.machine.block.tool.copying import CHUNK, Crew, cut_up, threads_for
from dbt.machine.block.tool.extents import data_ranges
from dbt.machine.block.tool.progress import Progress
from dbt.machine.block.tool.show import say, say_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from dbt.machine.block.disk import Disk
    from dbt.machine.block.tool.copying import Range

SAME, DIFFERENT, NOT_OPENED, FAILED = 0, 1, 2, 4
GRANULE = 1 << 16


def compare(options: argparse.Namespace) -> int:
    """0: the same; 1: different; 2: one cannot be opened; 4: one cannot be read."""
    from dbt.run import report

    try:
        first = images.open_source(options, options.first, options.format)
        try:
            second = images.open_source(options, options.second, options.second_format)
        except BaseException:
            first.close()
            raise
    except BlockError as error:
        report(error)
        return NOT_OPENED
    a, b = images.queue(first, workers=1), images.queue(second, workers=1)
    try:
        where = _difference(options, a, b)
        sizes = a.size, b.size
    except BlockError as error:
        report(error)
        return FAILED
    finally:
        a.close()
        b.close()
    strict = options.strict and sizes[0] != sizes[1]
    if options.json:
        say_json({"same": where is None and not strict, "sizes": sizes, "offset": where})
    elif where is not None:
        say(f"the images differ at offset {where} ({where:#x})")
    elif strict:
        say(f"the images differ in size: {sizes[0]} and {sizes[1]} bytes")
    elif sizes[0] != sizes[1]:
        say(f"the images are the same, but for zeroes at the end of the larger: {sizes[0]} and {sizes[1]} bytes")
    else:
        say("the images are the same")
    return SAME if where is None and not strict else DIFFERENT


def _difference(options: argparse.Namespace, a: Disk, b: Disk) -> int | None:
    """Where the first byte is that differs; what is beyond an end counts as zeroes."""
    common, end = min(a.size, b.size), max(a.size, b.size)
    found: list[int] = []

    def work(part: Range, buffer: bytearray | memoryview) -> None:
        start, stop = part
        one, other = memoryview(buffer), memoryview(bytearray(stop - start))
        _read(a, start, stop, one)
        _read(b, start, stop, other)
        at = differs_at(bytes(one[: stop - start]), bytes(other))
        if at is not None:
            found.append(start + at)
            crew.stop()

    ranges = cut_up(_either(a, b, end), CHUNK)
    crew = Crew(ranges, work, chunk=CHUNK, threads=options.threads or threads_for(a.node, b.node))
    with Progress(end, "compare", show=not options.quiet) as progress:
        crew.run(progress)
    if found or common == end:
        return min(found, default=None)
    return None


def _read(disk: Disk, start: int, stop: int, view: memoryview) -> None:
    inside = max(min(stop, disk.size) - start, 0)
    if inside:
        disk.run(Request(READ, start, [view[:inside]], length=inside))
    view[inside : stop - start] = bytes(stop - start - inside)


def _either(a: Disk, b: Disk, end: int) -> Iterator[Range]:
    """What is data in one of them, as ranges in order: what is zero in both is not read."""
    ranges = sorted([*data_ranges(a.node, GRANULE), *data_ranges(b.node, GRANULE)])
    low = high = 0
    for start, stop in ranges:
        if start > high:
            if high > low:
                yield low, high
            low = start
        high = max(high, min(stop, end))
    if high > low:
        yield low, high


def differs_at(one: bytes, other: bytes) -> int | None:
    """The first place at which two strings of the same length differ."""
    if one == other:
        return None
    low, high = 0, len(one)
    while high - low > 1:  # one[:low] is the same, one[:high] is not
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
