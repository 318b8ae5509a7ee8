"""How often do blocks run? Counters that a plugin puts into the translated code.

python examples/count_blocks.py
"""

from __future__ import annotations

from dbt.guests import GUESTS

import dbt


class Blocks(dbt.Plugin):
    """A counter for each block, and one for all instructions."""

    def block(self, block: dbt.Block) -> None:
        """Count each time that the block is entered."""
        block.count(self.counters[block.pc])
        block.count(self.counters["instructions"], len(block.instructions))


def main() -> None:
    """Run a guest, and show its hottest blocks."""
    guest = next(guest for guest in GUESTS if guest.name == "sort")
    plugin = Blocks()
    with dbt.open_program(guest.path, [guest.name, str(guest.ordinary)]) as program:
        program.instrument(plugin)
        print(program.run())
    counts = plugin.counters.values()
    print(f"{counts.pop('instructions'):,} instructions")
    for pc in sorted(counts, key=lambda pc: -counts[pc])[:3]:
        print(f"{pc:#x} was entered {counts[pc]:,} times")


if __name__ == "__main__":
    main()
