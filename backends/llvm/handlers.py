"""The interpreter's handlers: compiled as stencils are, for the same requests, with operands out of steps (records.py).

Few forms have more operands than registers are left; they are compiled again, in ways that cost a little more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .check import CheckError, check
from .peephole import shorten
from .records import HANDLERS, RecordSource, SavingSource, ThriftySource
from .stencils import compile_specials, compile_unchecked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dbt.frontends.guest import Guest

    from .extract import Stencil
    from .stencils import Request

_WAYS: Final = (RecordSource, ThriftySource, SavingSource)


def compile_handlers(guest: Guest, requests: Iterable[Request]) -> dict[Request, Stencil]:
    """As stencils.compile_requests."""
    found: dict[Request, Stencil] = {}
    left = set(requests)
    for way in _WAYS:
        for request, stencil in compile_unchecked(guest, left, way).items():
            try:
                check(stencil, str(request), step=True, saved=way is SavingSource)
            except CheckError:
                if way is _WAYS[-1]:
                    raise
            else:
                found[request] = shorten(stencil)
                left.remove(request)
        if not left:
            break
    return found


def compile_special_handlers() -> dict[int, Stencil]:
    """The special stencils by number (formats.SPECIAL_...)."""
    return compile_specials(RecordSource, HANDLERS)
