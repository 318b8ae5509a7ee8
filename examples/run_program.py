"""Run a Linux program of another architecture from Python, and look at it on the way.

python examples/run_program.py [PROGRAM [ARGUMENT…]]
"""

from __future__ import annotations

import sys
from pathlib import Path

import dbt.guests

import dbt


def main() -> None:
    """Run to the first instruction, look around, then run to the end."""
    hello = Path(dbt.guests.__file__).parent / "bin" / "hello"
    command = sys.argv[1:] or [str(hello)]
    with dbt.open_program(command[0], command) as program:
        print("starts at", hex(program.registers["pc"]), "with its stack at", hex(program.registers["sp"]))
        for start, end, protection, name in program.memory.mappings():
            print(f"  {start:#14x}-{end:#x} {protection} {name}")
        sys.stdout.flush()
        print("ended:", program.run())


if __name__ == "__main__":
    main()
