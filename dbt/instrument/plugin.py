"""What a tool derives from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .counters import Counters

if TYPE_CHECKING:
    from .blocks import Block


class Plugin:
    """What a tool derives from. `block` is called for each block that is translated, also again after changes.

    `exact`: whether inserted code calls Python or looks at flags. All flags are kept then, also those nobody reads.
    """

    exact = False

    def __init__(self) -> None:
        self.counters = Counters()

    def block(self, block: Block) -> None:
        """See a block, and insert code."""

    def forked(self) -> None:
        """In a forked child: the counters are copies of the parent's, its own rings are empty. Called in the child."""

    def replaced(self) -> None:
        """The guest executes another program: its memory is about to be replaced."""

    def finish(self) -> None:
        """The guest, this plugin's or a forked child's, has ended; called for programs only."""
