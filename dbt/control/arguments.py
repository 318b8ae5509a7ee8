"""Checks of what callers of the library pass: a UserError that names the argument, before anything has been done."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final

from dbt.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

ADDRESSES: Final = 1 << 64
LARGEST_READ: Final = 1 << 32  # bytes that Memory.read gives at once


def number(value: object, what: str, low: int | None = None, end: int | None = None) -> int:
    """An int in [low, end)."""
    if not isinstance(value, int):
        raise UserError(f"{what} cannot be {value!r}", "Give an int.")
    if (low is not None and value < low) or (end is not None and value >= end):
        bounds = [f"at least {low:#x}"] if low is not None else []
        bounds += [f"below {end:#x}"] if end is not None else []
        raise UserError(f"{what} cannot be {value:#x}", f"It must be {' and '.join(bounds)}.")
    return value


def address(value: object, what: str = "an address") -> int:
    """An address, tagged or not."""
    return number(value, what, 0, ADDRESSES)


def addresses(value: object, what: str) -> set[int]:
    """One address or several."""
    if isinstance(value, int):
        return {address(value, what)}
    if not isinstance(value, Iterable) or isinstance(value, str):
        raise UserError(f"{what} cannot be {value!r}", "Give an address, or several.")
    return {address(each, what) for each in value}


def several(value: object, what: str) -> Collection[object]:
    """A list, a tuple, a set or the like."""
    if not isinstance(value, Collection) or isinstance(value, str | bytes):
        raise UserError(f"{what} cannot be {value!r}", "Give several ints.")
    return value


def text(value: object, what: str) -> str:
    """A string."""
    if not isinstance(value, str):
        raise UserError(f"{what} cannot be {value!r}", "Give a str.")
    return value


def data(value: object, what: str) -> bytes:
    """Bytes, in any form that has them."""
    if not isinstance(value, bytes | bytearray | memoryview):
        raise UserError(f"{what} cannot be {value!r}", "Give bytes.")
    return bytes(value)


def function(value: Callable[..., object] | None, what: str, *, optional: bool = False) -> None:
    """Something that can be called, or None if it is `optional`."""
    if not callable(value) and not (optional and value is None):
        raise UserError(f"{what} cannot be {value!r}", "Give a function.")


def path(value: object, what: str) -> str:
    """A file's path."""
    if not isinstance(value, str | os.PathLike):
        raise UserError(f"{what} cannot be {value!r}", "Give a str or a pathlib.Path.")
    return os.fsdecode(strings([os.fspath(value)], what)[0])


def strings(values: object, what: str) -> list[bytes]:
    """Several strings, as the kernel takes them."""
    if not isinstance(values, Iterable) or isinstance(values, str | bytes):
        raise UserError(f"{what} cannot be {values!r}", "Give several of type str.")
    found = []
    for value in values:
        try:
            raw = os.fsencode(text(value, what))
        except UnicodeEncodeError:
            raise UserError(f"{what} cannot be {value!r}", "It cannot be encoded for the system.") from None
        if 0 in raw:
            raise UserError(f"{what} cannot be {value!r}", "The kernel's strings hold no NUL.")
        found.append(raw)
    return found


def instance(value: object, kind: type, what: str) -> None:
    """An object of a class."""
    if not isinstance(value, kind):
        raise UserError(f"{value!r} is no {what}", f"Give a dbt.{kind.__name__}.")
