"""`bench`: requests of one kind, many in flight, through the same queue that a device would use."""

from __future__ import annotations

import time
from queue import SimpleQueue
from typing import TYPE_CHECKING

from dbt.machine.block.buffers import aligned
from dbt.machine.block.disk import WORKERS
from dbt.machine.block.request import FLUSH, READ, WRITE, Request
from dbt.machine.block.tool import images
from dbt.machine.block.tool.show import say, say_json

from dbt.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from dbt.machine.block.disk import Disk


def bench(options: argparse.Namespace) -> int:
    """Read or write `count` blocks of `size` bytes, `depth` of them in flight; tell how long it takes."""
    opened = images.open_target if options.write else images.open_source
    disk = images.queue(opened(options, options.image, options.format), workers=options.threads or WORKERS)
    try:
        step = options.step or options.size
        room = disk.size - options.offset - options.size
        if room < 0:
            raise UsageError(f"bench: the image ends at {disk.size}, before one block from offset {options.offset}")
        seconds = _run(disk, options, step)
    finally:
        disk.close()
    rate = options.count * options.size / seconds
    if options.json:
        say_json({
            "operation": "write" if options.write else "read", "count": options.count, "size": options.size,
            "depth": options.depth, "seconds": seconds, "bytes-per-second": rate,
            "requests-per-second": options.count / seconds,
        })  # fmt: skip
    else:
        rate_text = f"{options.count / seconds:,.0f}/s, {images.people(int(rate))}/s"
        say(f"{options.count} requests in {seconds:.3f} s: {rate_text}")
    return 0


def _run(disk: Disk, options: argparse.Namespace, step: int) -> float:
    size, count = options.size, options.count
    finished: SimpleQueue[Request] = SimpleQueue()
    operation = WRITE if options.write else READ
    idle = [aligned(size) for _ in range(min(options.depth, count))]
    if options.write:
        for view in idle:
            view[:] = bytes([options.pattern]) * size
    offset, started, flying, written = options.offset, 0, 0, 0
    start = time.perf_counter()
    while started < count or flying:
        while idle and started < count:
            if offset + size > disk.size:
                offset = options.offset + (offset + size - disk.size) % max(min(step, disk.size - size), 1)
                offset = min(offset, disk.size - size)
            view = idle.pop()
            request = Request(operation, offset, [view], finished.put, length=size)
            offset += step
            started += 1
            if disk.submit(request):
                _check(request)
                idle.append(view)
            else:
                flying += 1
        if flying:
            request = finished.get()
            flying -= 1
            _check(request)
            idle.append(request.vectors[0])
        if options.write and options.flush_interval and started - written >= options.flush_interval:
            written = started
            disk.run(Request(FLUSH))
    return time.perf_counter() - start  # without a flush, unless some were asked for: closing does it


def _check(request: Request) -> None:
    if request.error is not None:
        raise request.error
