"""Put images into a machine's memory before it runs: also into ROM, which the guest cannot write."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dbt.machine.errors import BusError, MapError

from dbt.errors import ProgramNotFound, ProgramUnusable

if TYPE_CHECKING:
    from dbt.machine.memory.space import AddressSpace


def load(space: AddressSpace, address: int, data: bytes, name: str = "image") -> None:
    """Copy `data` to `address` of RAM or ROM. MapError, before anything is copied, if it does not fit there."""
    try:
        parts = space.spans(address, len(data), writable=False)
    except BusError as error:
        raise MapError(
            f"{name}: {len(data):,} bytes at {address:#x} of {space.name}: {error.reason} at {error.address:#x}",
            "see `dragoman machine BOARD --map` for where memory is",
        ) from None
    done = 0
    for section, at, count in parts:
        assert section.memory is not None
        section.memory.view[at : at + count] = data[done : done + count]
        section.memory.written(at, count)
        done += count


def load_file(space: AddressSpace, address: int, path: str, limit: int) -> int:
    """Copy a raw file of at most `limit` bytes to `address`; the result is its length."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise ProgramUnusable(path, f"{size:,} bytes, and {limit:,} fit")
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise ProgramNotFound(path) from None
    except OSError as error:
        raise ProgramUnusable(path, error.strerror or str(error)) from error
    if len(data) > limit:
        raise ProgramUnusable(path, f"more than {limit:,} bytes, which is what fits")
    load(space, address, data, path)
    return len(data)
