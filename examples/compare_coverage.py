"""Which blocks does an argument reach that another one does not? Two runs, and the difference of their coverage.

python examples/compare_coverage.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from dbt.guests import GUESTS

import dbt
from dbt.tools.coverage import Coverage


def main() -> None:
    """Compare the guest `sort` with and without something to sort."""
    guest = next(guest for guest in GUESTS if guest.name == "sort")
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for work in ("1", "100"):
            plugin = Coverage(f"{folder}/{work}.drcov")
            with dbt.open_program(guest.path, [guest.name, work]) as program:
                program.instrument(plugin)
                program.run()
            print(f"work {work}: {len(plugin.blocks())} blocks, {Path(plugin.path).stat().st_size} bytes of drcov")
            found.append({(key[1] + key[4], size) for key, size in plugin.blocks()})
        more = sorted(found[1] - found[0])
        print(f"{len(more)} blocks only with more work, the first of {more[0][1]} bytes at {more[0][0]:#x}")


if __name__ == "__main__":
    main()
