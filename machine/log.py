"""What a machine says about its guest, each kind apart: a guest may do all of it at any rate, so all of it is bounded.

Kinds: GUEST_ERROR, what a data sheet forbids; UNIMPLEMENTED, what a data sheet has and the device does not;
UNASSIGNED, accesses where nothing is; TRACE, each access to the registers of a device that somebody asked for.
Everything is counted. The same thing of the same device is said ten times, of 1,000 different things; traces always.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

GUEST_ERROR, UNIMPLEMENTED, UNASSIGNED, TRACE = "guest error", "unimplemented", "unassigned", "trace"
KINDS = (GUEST_ERROR, UNIMPLEMENTED, UNASSIGNED, TRACE)
REPEATS, THINGS = 10, 1000


class Log:
    """Counts everything and gives lines of the chosen kinds to `sink(kind, line)`; without a sink it only counts."""

    def __init__(self, sink: Callable[[str, str], None] | None = None, kinds: tuple[str, ...] = KINDS) -> None:
        self.counts = dict.fromkeys(KINDS, 0)
        self._sink = sink
        self._kinds = kinds
        self._said: dict[tuple[str, str, str], int] = {}

    def say(self, kind: str, device: str, thing: str, detail: str = "") -> None:
        """`device` did `thing` (which is what repeats); `detail` are the numbers of this time."""
        self.counts[kind] += 1
        if self._sink is None or kind not in self._kinds:
            return
        text = f"{device}: {thing}{detail}"
        if kind != TRACE:
            key = (kind, device, thing)
            times = self._said.get(key, 0)
            if times == REPEATS or (not times and len(self._said) == THINGS):
                return
            self._said[key] = times + 1
            if times == REPEATS - 1:
                text += " (not said again)"
        self._sink(kind, text)


def to_stderr(kind: str, line: str) -> None:
    """A sink: lines on standard error."""
    print(line if kind == TRACE else f"{kind}: {line}", file=sys.stderr)
