"""`commit` and `rebase`: images with a backing file.

An image and what is behind it cannot be open at once with the backing file for writing: readers refuse writers. So
commit opens the image alone, where `status` still tells what is its own, and the backing file beside it.

Both leave valid images when they are stopped. commit: the image has all of its data until the backing file has it and
was flushed. rebase: what the new backing file lacks is in the image, flushed, before the new name is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.block.errors import AccessRefused, BadOption
from dbt.machine.block.graph import Opening
from dbt.machine.block.request import READ, WRITE, Request
from dbt.machine.block.spec import parse_spec
from dbt.machine.block.tool import images
from dbt.machine.block.tool.aside import orderly
from dbt.machine.block.tool.comparing import differs_at
from dbt.machine.block.tool.copying import CHUNK, Copy, Crew, cut_up, threads_for
from dbt.machine.block.tool.extents import pieces
from dbt.machine.block.tool.progress import Progress

from dbt.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from dbt.machine.block.disk import Disk
    from dbt.machine.block.node import Format
    from dbt.machine.block.tool.copying import Range


def own_ranges(node: Format) -> Iterator[Range]:
    """What the image decides itself, data or zeroes."""
    low = high = 0
    for piece in pieces(node):
        if piece.depth or not piece.extent.allocated:
            continue
        if piece.start > high:
            if high > low:
                yield low, high
            low = piece.start
        high = piece.end
    if high > low:
        yield low, high


def commit(options: argparse.Namespace) -> int:
    """Write what is in an image into its backing file, then empty the image (unless -d)."""
    node = images.open_target(options, options.image, options.format, alone=True)
    try:
        name, driver = images.backing_of(node)
        if not name:
            raise BadOption(node.name, "has no backing file to commit to")
        if not driver:
            raise BadOption(
                node.name, "does not say which format its backing file has",
                hint="dragoman img rebase -u -b NAME -F FORMAT stores it: it is not guessed for writing",
            )  # fmt: skip
        opening = Opening(
            parse_spec(options.image, options.format), writable=True, allow_backing=options.allow_backing
        )  # fmt: skip
        below = images.open_format(
            opening.named(name, driver, "backing file"), writable=True, allow_backing=options.allow_backing
        )  # fmt: skip
        disk = images.queue(below, workers=1)
        with orderly():
            try:
                if below.size < node.size:
                    disk.resize(node.size)
                copy = Copy(images.queue(node, workers=1), disk, granule=images.granularity(below), empty=False)
                with Progress(node.size, "commit", show=not options.quiet) as progress:
                    copy.run(own_ranges(node), progress)
                disk.flush()
            finally:
                disk.close()
            if not options.keep:
                node.empty()
    finally:
        node.close()
    return 0


def rebase(options: argparse.Namespace) -> int:
    """Put another backing file behind an image. Without -u, the image reads as before."""
    name, driver = options.backing, options.backing_format or ""
    if name and not driver:
        raise UsageError("rebase: which format has the new backing file?", "Name it with -F: it is not guessed.")
    node = images.open_target(options, options.image, options.format, alone=options.unsafe)
    try:
        with orderly():
            if not options.unsafe:
                _keep_content(options, node, name, driver)
            node.change_backing(name, driver)
    finally:
        node.close()
    return 0


def _keep_content(options: argparse.Namespace, node: Format, name: str, driver: str) -> None:
    """Store in the image what it does not have itself and the new backing file has not, or has otherwise."""
    new = None
    if name:
        try:
            new = images.open_backing(options, node.name, name, driver)
        except AccessRefused as error:
            raise BadOption(error.file, error.reason, hint="--allow-backing, or -u to change the name only") from None
    old = node.backing
    if old is None and new is None:
        return
    disk = images.queue(node, workers=1)
    below = None if new is None else images.queue(new, workers=1)
    granule = images.granularity(node)
    step = max(CHUNK, granule)

    def work(part: Range, buffer: bytearray | memoryview) -> None:
        start, end = part
        view = memoryview(buffer)[: end - start]
        disk.run(Request(READ, start, [view], length=end - start))
        now = bytes(view)
        then = _content(below, start, end)
        at = differs_at(now, then)
        while at is not None:
            low = (start + at) // granule * granule
            high = low + granule
            low, high = max(low, start), min(high, end)
            disk.run(Request(WRITE, low, [view[low - start : high - start]], length=high - low))
            rest = high - start
            at = differs_at(now[rest:], then[rest:])
            at = None if at is None else at + rest

    try:
        with Progress(node.size, "rebase", show=not options.quiet) as progress:
            # What is to change is what is below: the list is made before anything is written.
            ranges = [(p.start, p.end) for p in pieces(node) if p.depth or not p.extent.allocated]
            Crew(cut_up(ranges, step), work, chunk=step, threads=threads_for(node), alignment=node.alignment).run(
                progress
            )
        disk.flush()
    finally:
        if new is not None:
            new.close()


def _content(disk: Disk | None, start: int, end: int) -> bytes:
    inside = 0 if disk is None else max(min(end, disk.size) - start, 0)
    if disk is None or not inside:
        return bytes(end - start)
    return bytes(disk.read(start, inside)).ljust(end - start, b"\0")
