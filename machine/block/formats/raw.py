"""Raw: the disk's bytes as they are; with `offset` and `size` a window of what is below (a partition, for example)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbt.machine.block.errors import BadOption, RequestRefused
from dbt.machine.block.node import Extent, Format, Measure
from dbt.machine.block.options import SIZE, Option

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dbt.machine.block.graph import Opening
    from dbt.machine.block.node import Node
    from dbt.machine.block.request import Vectors


class Raw(Format):
    """A window from `offset` on; without one the node below does the work by itself."""

    driver = "raw"
    OPTIONS = (
        Option("offset", SIZE, 0, help="where the disk begins"),
        Option("size", SIZE, None, help="its bytes; else all there are"),
    )

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        file = self.file = opening.child("file")
        self.handles_fua = file.handles_fua
        self.alignment = file.alignment
        start, size = self.options["offset"], self.options["size"]
        rest = file.size - start
        if rest < 0 or (size is not None and size > rest):
            raise BadOption(self.name, f"offset {start} and size {size} lie beyond its end, {file.size}")
        self.start = start
        self.window = size is not None
        self.grows = not self.window
        self.size = rest if size is None else size
        if start == 0:  # nothing to add: calls go where they end
            self.read = file.read  # type: ignore[method-assign]
            self.try_read = file.try_read  # type: ignore[method-assign]

    def read(self, offset: int, length: int, vectors: Vectors) -> None:
        self.file.read(self.start + offset, length, vectors)

    def try_read(self, offset: int, length: int, vectors: Vectors) -> bool:
        return self.file.try_read(self.start + offset, length, vectors)

    def write(self, offset: int, length: int, vectors: Vectors, flags: int = 0) -> None:
        self.file.write(self.start + offset, length, vectors, flags)
        self._grown(offset + length)

    def flush(self) -> None:
        self.file.flush()

    def discard(self, offset: int, length: int) -> None:
        self.file.discard(self.start + offset, length)

    def write_zeroes(self, offset: int, length: int, flags: int = 0) -> None:
        self.file.write_zeroes(self.start + offset, length, flags)
        self._grown(offset + length)

    def _grown(self, end: int) -> None:
        """Below another format (qcow2 on raw on a file) this grows as a file does."""
        if end > self.size:
            self.size = max(self.size, self.file.size - self.start)

    def status(self, offset: int, length: int) -> Extent:
        found = self.file.status(self.start + offset, length)
        found.offset = self.start + offset
        return found

    def resize(self, size: int, *, preallocation: str = "off") -> None:
        if self.window:
            raise RequestRefused(self.name, "a window of fixed size cannot be resized")
        self.file.resize(self.start + size, preallocation=preallocation)
        self.size = size

    @classmethod
    def create(cls, file: Node, size: int, options: dict[str, Any]) -> None:
        """The protocol has made the file `size` bytes large already, or it must be that large."""
        if file.size < size:
            file.resize(size)

    @classmethod
    def measure(cls, size: int, options: dict[str, Any], data: Iterable[tuple[int, int]]) -> Measure:
        return Measure(size, size)


DRIVER = Raw
