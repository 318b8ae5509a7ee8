"""Drivers are found by name: a module of `formats/` or `protocols/` with that name, whose DRIVER is the class.

There is no list: a file put there, or in another folder of these packages' __path__, is a driver. Dashes in driver
names are underscores in file names.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, cast

from dbt.machine.block.errors import BadOption

from dbt.wording import instead

if TYPE_CHECKING:
    from dbt.machine.block.node import Format, Node, Protocol

PACKAGE = __name__.rpartition(".")[0]


def names(kind: str) -> list[str]:
    """The drivers of a kind, `formats` or `protocols`."""
    folders = import_module(f"{PACKAGE}.{kind}").__path__
    entries = (entry for folder in folders for entry in os.listdir(folder))
    found = (entry.partition(".")[0] for entry in entries if not entry.startswith("_"))
    return sorted(name.replace("_", "-") for name in found)


def _load(kind: str, name: str) -> type[Node]:
    return cast("type[Node]", import_module(f"{PACKAGE}.{kind}.{name.replace('-', '_')}").DRIVER)


def format_class(name: str) -> type[Format]:
    """The format called `name`."""
    if name not in (have := names("formats")):
        raise BadOption("format", f"there is none called {name!r}", hint=instead(name, "formats", have))
    return cast("type[Format]", _load("formats", name))


def protocol_class(name: str) -> type[Protocol]:
    """The protocol called `name`."""
    if name not in (have := names("protocols")):
        raise BadOption("protocol", f"there is none called {name!r}", hint=instead(name, "protocols", have))
    return cast("type[Protocol]", _load("protocols", name))


def driver_class(name: str) -> type[Node]:
    """The format or protocol called `name`."""
    if name in names("formats"):
        return format_class(name)
    if name in (have := names("protocols")):
        return protocol_class(name)
    raise BadOption("driver", f"there is none called {name!r}", hint=instead(name, "drivers", names("formats") + have))


def is_format(name: str) -> bool:
    """Whether there is a format of that name."""
    return name in names("formats")


def scheme_protocol(scheme: str) -> str | None:
    """The protocol that a URI scheme belongs to; None if no protocol has it."""
    have = names("protocols")
    if scheme in have:
        return scheme
    ordered = sorted(have, key=lambda name: not scheme.startswith(name))  # nbd+unix is most likely nbd's
    return next((name for name in ordered if scheme in protocol_class(name).SCHEMES), None)
