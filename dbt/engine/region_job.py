"""The worker's side of regions (promoter.py): formed from guest memory, asked for page by page, and compiled.

LLVM works in the worker itself: a process for each region would cost more than small ones take. If it aborts, the
supervisor asks a new worker for the same region with `careful`, which has a child do it and notes it when that dies.
"""

from __future__ import annotations

import hashlib
import signal
from typing import TYPE_CHECKING, Any

from .children import LIMIT, Child
from .failures import note_failures, read_failures
from .layout import PAGE_SIZE
from .places import Places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbt.frontends.guest import Guest

    from .former import Profile
    from .worker import Server

_guests: dict[str, tuple[Guest, Places]] = {}


class Pages:
    """Guest memory as the worker sees it: ("page", number) is answered with the bytes of a page.

    There are none where nothing may be executed.
    """

    def __init__(self, server: Server) -> None:
        self._channel = server.channel
        self._known: dict[int, bytes] = {}

    def fetch(self, pc: int) -> int | None:
        """The instruction word at an address."""
        number, offset = divmod(pc, PAGE_SIZE)
        page = self._known.get(number)
        if page is None:
            self._channel.send(("page", number))
            page = self._known[number] = self._channel.receive()
        word = page[offset : offset + 4]
        return int.from_bytes(word, "little") if len(word) == 4 and not pc & 3 else None


def _guest(name: str) -> tuple[Guest, Places]:
    from dbt.frontends.guest import load_guest

    if name not in _guests:
        guest = load_guest(name)
        _guests[name] = (guest, Places(guest))
    return _guests[name]


def _wanted(key: tuple[Any, ...]) -> dict[str, Any]:
    """What a region depends on beside the guest's bytes (Optimizer), as arguments of form_region."""
    stops, all_flags, index_bits = key
    return {"stops": frozenset(stops), "all_flags": all_flags, "index_bits": index_bits}


def compile_region(
    server: Server, name: str, entry: int, key: tuple[Any, ...], profile: Profile, careful: bool
) -> tuple[str, object]:
    """The answer to a request: ("region", RegionCode) or ("none", why).

    Before it come ("page", number), see Pages, and when no more of them will come ("formed", ranges): [(guest address,
    bytes)] that the region is of.
    """
    from dbt.backends.llvm.region_code import compile_region as compile_formed

    from .former import form_region

    guest, places = _guest(name)
    fetch = Pages(server).fetch
    region = form_region(guest.tables, places, fetch, entry, **_wanted(key), profile=profile)
    if region is None:
        return "none", "no instruction"
    server.channel.send(("formed", region.ranges))
    space, record = server.space, f"{name}.regions.failed"
    space.begin({})
    mark = hashlib.sha256(repr((entry, key, region.ranges)).encode()).hexdigest()[:32]
    noted = read_failures(space, record).get(mark)
    if noted is not None:
        return "none", noted
    if not careful:
        signal.alarm(LIMIT)
        try:
            return "region", compile_formed(region, places)
        finally:
            signal.alarm(0)
    outcome = Child(lambda: compile_formed(region, places)).outcome(server.alive)
    if not outcome.trouble:
        return "region", outcome.value
    if outcome.lasting:
        with space.locked(server.alive):
            note_failures(space, record, {mark: outcome.trouble})
    return "none", outcome.trouble


def compile_several(
    server: Server, name: str, blocks: Sequence[tuple[int, Profile]], key: tuple[Any, ...]
) -> tuple[str, object]:
    """The answer to a request for regions of several blocks: ("regions", [RegionCode]).

    Before it come ("page", number) and ("formed", [(address of the block, ranges)]), of those that there are.
    """
    from dbt.backends.llvm.region_code import compile_regions

    from .former import form_region

    guest, places = _guest(name)
    fetch = Pages(server).fetch
    wanted = _wanted(key)
    formed = [form_region(guest.tables, places, fetch, entry, **wanted, profile=profile) for entry, profile in blocks]
    found = [region for region in formed if region is not None]
    server.channel.send(("formed", [(region.entry, region.ranges) for region in found]))
    signal.alarm(LIMIT)
    try:
        return "regions", compile_regions(found, places)
    finally:
        signal.alarm(0)
