"""What LLVM does not survive is noted in the cache, so that no other run tries it: a name and why, one a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .workspace import Workspace


def read_failures(space: Workspace, name: str) -> dict[str, str]:
    """What is noted in a file, why by name; a line that says nothing is skipped: what it was for is tried again."""
    text = (space.read(name) or b"").decode("utf-8", "replace")
    entries = (line.partition(" ") for line in text.splitlines())
    return {key: why for key, space_between, why in entries if key and space_between and why}


def note_failures(space: Workspace, name: str, failures: dict[str, str]) -> None:
    """Add to a file."""
    if failures:
        found = {**read_failures(space, name), **failures}
        lines = sorted(f"{key} {' '.join(why.split())}\n" for key, why in found.items())
        space.write(name, "".join(lines).encode())
