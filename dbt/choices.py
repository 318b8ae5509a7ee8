"""What to tell who asks for a name that there is not: names that are like it, and all that there are."""

from __future__ import annotations

from difflib import get_close_matches
from textwrap import fill
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

WIDTH = 100


def instead(name: str, what: str, names: Iterable[str]) -> str:
    """The hint of an error: `what` says what the names are of."""
    known = list(names)
    close = get_close_matches(name.lower(), known, n=3)
    asked = f"did you mean {' or '.join(close)}?\n" if close else ""
    return asked + listed(what, known)


def listed(what: str, names: Iterable[str]) -> str:
    """All names, in lines that terminals can show."""
    text = ", ".join(names) or "none"
    return fill(text, WIDTH, initial_indent=f"{what}: ", subsequent_indent="  ", break_on_hyphens=False)
