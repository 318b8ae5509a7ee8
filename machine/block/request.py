"""Requests: what devices, servers and commands hand to a disk, and what they get back when it is done.

A request is one object from submission to completion. `vectors` are memoryviews (of guest memory, of a socket's
buffer) that data goes to or comes from without a copy. `completion` is called once, from a worker thread, with the
request; by then `error` or `result` is set. A request that is done when `Disk.submit` returns has no call made: see
there. Numbers rather than an enum: 4 KiB reads come by the ten thousand a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dbt.machine.block.errors import BlockError

    Vectors = Sequence[memoryview]

READ, WRITE, FLUSH, DISCARD, WRITE_ZEROES, STATUS, RESIZE = range(7)
OPERATIONS = ("read", "write", "flush", "discard", "write zeroes", "block status", "resize")

# Flags of a request.
FUA = 1  # the data is on stable storage before the request completes
MAY_UNMAP = 2  # write zeroes: the space may be given back
COMPRESSED = 4  # write: store it compressed if the format can; whole clusters, never written before
NO_FALLBACK = 8  # write zeroes: rather fail (ENOTSUP) than write blocks of zeroes


class Request:
    """One operation at `offset` over `length` bytes; see the module."""

    __slots__ = (
        "completion",
        "context",
        "done",
        "error",
        "flags",
        "length",
        "offset",
        "operation",
        "result",
        "vectors",
    )

    def __init__(
        self,
        operation: int,
        offset: int = 0,
        vectors: Vectors = (),
        completion: Callable[[Request], None] | None = None,
        *,
        length: int | None = None,
        flags: int = 0,
        context: Any = None,  # noqa: ANN401 - the submitter's own, not looked at here
    ) -> None:
        self.operation = operation
        self.offset = offset
        self.vectors = vectors
        self.completion = completion
        self.length = sum(map(len, vectors)) if length is None else length
        self.flags = flags
        self.context = context
        self.done = False
        self.error: BlockError | None = None
        self.result: Any = None  # STATUS: the Extent

    def __repr__(self) -> str:
        return f"<{OPERATIONS[self.operation]} of {self.length} at {self.offset:#x}>"
