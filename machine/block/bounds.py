"""A format in another format, or in a window: what is inside does not reach beyond the end of the disk it is in.

Formats take what they are in for a file: reads beyond the end are zeroes, writes make it longer. A disk in an image
does neither, and its format's tables know of nothing there: so requests are looked at in between.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from dbt.machine.block.buffers import cut, fill
from dbt.machine.block.errors import HostError
from dbt.machine.block.node import Extent

if TYPE_CHECKING:
    from dbt.machine.block.node import Format
    from dbt.machine.block.request import Vectors


def bound(node: Format) -> None:
    """Look at all requests of this node from now on."""
    read, try_read, write = node.read, node.try_read, node.write
    write_zeroes, discard, status = node.write_zeroes, node.discard, node.status

    def inside(offset: int, length: int) -> int:
        return min(length, max(node.size - offset, 0))

    def check(offset: int, length: int) -> None:
        if offset + length > node.size:
            doing = f"what is in this disk of {node.size:#x} bytes cannot grow"
            raise HostError(node.name, OSError(errno.ENOSPC, ""), doing=doing, offset=offset)

    def read_inside(offset: int, length: int, vectors: Vectors) -> None:
        count = inside(offset, length)
        if count < length:
            fill(vectors, count, length - count)
            vectors = cut(vectors, 0, count)
        if count:
            read(offset, count, vectors)

    def try_read_inside(offset: int, length: int, vectors: Vectors) -> bool:
        return offset + length <= node.size and try_read(offset, length, vectors)

    def write_inside(offset: int, length: int, vectors: Vectors, flags: int = 0) -> None:
        check(offset, length)
        write(offset, length, vectors, flags)

    def write_zeroes_inside(offset: int, length: int, flags: int = 0) -> None:
        check(offset, length)
        write_zeroes(offset, length, flags)

    def discard_inside(offset: int, length: int) -> None:
        count = inside(offset, length)
        if count:
            discard(offset, count)

    def status_inside(offset: int, length: int) -> Extent:
        count = inside(offset, length)
        return status(offset, count) if count else Extent(length, data=False, zero=True, offset=offset)

    node.read, node.try_read, node.write = read_inside, try_read_inside, write_inside  # type: ignore[method-assign]
    node.write_zeroes, node.discard, node.status = (  # type: ignore[method-assign]
        write_zeroes_inside, discard_inside, status_inside,
    )  # fmt: skip
