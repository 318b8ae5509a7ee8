"""The process that compiles regions: forms them from guest memory, which it asks for page by page. See promoter.py."""

from __future__ import annotations

import socket
import traceback
from typing import TYPE_CHECKING, Any

from .layout import PAGE_SIZE
from .promoter import receive, send

if TYPE_CHECKING:
    from dbt.frontends.guest import Guest

    from .places import Places


def main(_folder: str) -> None:
    """Serve until the supervisor is gone."""
    connection = socket.socket(fileno=3)
    guests: dict[str, tuple[Guest, Places]] = {}
    while True:
        try:
            request = receive(connection)
        except (EOFError, OSError):
            return
        try:
            answer = _serve(connection, guests, *request)
        except (EOFError, OSError):
            return
        except Exception:  # noqa: BLE001 - whatever it is, the supervisor shows it
            answer = ("failed", traceback.format_exc())
        send(connection, answer)


def _serve(
    connection: socket.socket,
    guests: dict[str, tuple[Guest, Places]],
    name: str,
    entry: int,
    stops: tuple[int, ...],
    all_flags: bool,
) -> tuple[str, Any]:
    from dbt.backends.llvm.region_code import compile_region
    from dbt.frontends.guest import load_guest

    from .former import form_region
    from .places import Places

    if name not in guests:
        guest = load_guest(name)
        guests[name] = (guest, Places(guest))
    guest, places = guests[name]
    pages: dict[int, bytes] = {}

    def fetch(pc: int) -> int | None:
        number, offset = divmod(pc, PAGE_SIZE)
        if number not in pages:
            send(connection, ("page", number))
            pages[number] = receive(connection)
        word = pages[number][offset : offset + 4]
        return int.from_bytes(word, "little") if len(word) == 4 and not pc & 3 else None

    region = form_region(guest.tables, places, fetch, entry, frozenset(stops), all_flags=all_flags)
    if region is None:
        return "failed", "no instruction"
    return "region", (compile_region(region, places), region.ranges)
