"""What becomes of a block? Guest code, IR and host code side by side, and what the passes save.

python examples/explain_block.py
"""

from __future__ import annotations

from dbt.guests import GUESTS

from dbt.run import RunOptions
from dbt.tools.commands import load
from dbt.tools.explain import explain_block, text

BLOCK = 0x400230


def main() -> None:
    """Explain the hottest block of the guest `hash`."""
    guest = next(guest for guest in GUESTS if guest.name == "hash")
    process = load(RunOptions(str(guest.path), [b"hash"], []))
    found = explain_block(process, BLOCK, ["baseline"])
    print(text([found.table()], 150), end="")
    ops, left = (sum(map(len, column)) for column in (found.ir, found.optimised))
    print(f"{ops} operations, {left} after the passes; {found.size} bytes became {found.columns[0].size}")
    process.cpu.close()


if __name__ == "__main__":
    main()
