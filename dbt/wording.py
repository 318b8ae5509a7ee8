"""What messages share: numbers of things, lists in lines, and what to tell who asks for a name that there is not."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

WIDTH = 100


def counted(number: int, name: str) -> str:
    """`1 block`, `2,000 blocks`."""
    return f"{number:,} {name}" if number == 1 else f"{number:,} {name}s"


def sentence(about: str) -> str:
    """A line of a list as a text of its own."""
    return f"{about[0].upper()}{about[1:]}."


def instead(name: str, what: str, names: Iterable[str]) -> str:
    """The hint of an error: names that are like `name`, and all that there are; `what` says what they are of."""
    from difflib import get_close_matches

    known = list(names)
    close = get_close_matches(name.lower(), known, n=3)
    asked = f"did you mean {' or '.join(close)}?\n" if close else ""
    return asked + listed(what, known)


def listed(what: str, names: Iterable[str]) -> str:
    """All names, in lines that terminals can show."""
    from textwrap import fill

    text = ", ".join(names) or "none"
    return fill(text, WIDTH, initial_indent=f"{what}: ", subsequent_indent="  ", break_on_hyphens=False)
