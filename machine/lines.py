"""Interrupt lines and other wires: a level that one device sets and others look at.

A device gets its lines from whoever builds the machine, and knows nothing of what is at the other end. Lines change
under the machine's lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Line:
    """A wire. Sinks are called with the new level when it changes."""

    __slots__ = ("_sinks", "level", "name")

    def __init__(self, name: str = "line", sink: Callable[[bool], None] | None = None) -> None:
        self.name = name
        self.level = False
        self._sinks: tuple[Callable[[bool], None], ...] = (sink,) if sink else ()

    def set(self, level: bool) -> None:
        """Drive the wire."""
        if level != self.level:
            self.level = level
            for sink in self._sinks:
                sink(level)

    def pulse(self) -> None:
        """Up and down again: an edge for whoever looks for edges."""
        self.set(True)
        self.set(False)

    def connect(self, sink: Callable[[bool], None]) -> None:
        """Let `sink` know of changes, and now if the wire is up."""
        self._sinks = (*self._sinks, sink)
        if self.level:
            sink(True)


class OrGate:
    """Several devices on one input: it is up while any of them is."""

    def __init__(self, output: Line) -> None:
        self.output = output
        self._inputs: list[Line] = []

    def input(self, name: str = "input") -> Line:
        """A new input."""
        line = Line(name, self._changed)
        self._inputs.append(line)
        return line

    def _changed(self, level: bool) -> None:
        self.output.set(level or any(line.level for line in self._inputs))
