"""A file that images come from: its bytes by offset, and what its errors are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Self

from dbt.errors import ProgramNotFound, ProgramUnusable

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(frozen=True, slots=True)
class Piece:
    """`length` bytes from `offset` of the file are at `address`, which has `room` for it: the rest is zero."""

    address: int
    offset: int
    length: int
    room: int

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.address + self.room


class Source:
    """An open file of known size."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by `with`
            self.size = os.fstat(self.file.fileno()).st_size
        except FileNotFoundError:
            raise ProgramNotFound(path) from None
        except OSError as error:
            raise ProgramUnusable(path, error.strerror or str(error)) from error

    def wrong(self, reason: str, offset: int | None = None, hint: str = "") -> NoReturn:
        """The file is not what it should be."""
        raise ProgramUnusable(self.path, reason, hint, offset)

    def into(self, view: memoryview, offset: int) -> None:
        """Fill `view` from `offset` on."""
        try:
            while view:
                count = os.preadv(self.file.fileno(), [view[: 1 << 24]], offset)
                if not count:
                    self.wrong("the file ends here: truncated?", offset)
                view, offset = view[count:], offset + count
        except OSError as error:
            self.wrong(f"cannot be read: {error.strerror}", offset)

    def read(self, offset: int, length: int) -> bytes:
        """Some bytes; `length` is a small number of our own."""
        data = bytearray(length)
        self.into(memoryview(data), offset)
        return bytes(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()
