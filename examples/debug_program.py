"""A program under gdb, from Python: gdb sets a breakpoint and goes away, the program goes on from there.

python examples/debug_program.py, with gdb-multiarch installed. Any gdb that knows AArch64 can connect in its place.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading

from dbt.guests import GUESTS

import dbt

SCRIPT = (
    "set pagination off",
    "target remote {where}",
    "break *0x400140",
    "continue",
    "x/i $pc",
    "print $x0 + 1",
    "detach",
)


def main() -> None:
    """Serve one gdb, and run the rest without it."""
    guest = next(guest for guest in GUESTS if guest.name == "sort")
    with tempfile.TemporaryDirectory() as folder, dbt.open_program(guest.path, [guest.name, "100"]) as program:
        where = f"{folder}/gdb"
        commands = [word for line in SCRIPT for word in ("-ex", line.format(where=where))]
        gdb = ["gdb-multiarch", "-nx", "-batch", *commands, guest.path]

        def debug() -> None:
            done = subprocess.run(gdb, capture_output=True, text=True, check=False)
            said.extend(done.stdout.splitlines())

        said: list[str] = []
        thread = threading.Timer(0.5, debug)  # when this thread listens
        thread.start()
        program.serve_gdb(where)
        thread.join()
        for line in said:
            if line.startswith(("Breakpoint", "=>", "$")):
                print(line)
        print(f"without gdb: {program.run()}")


if __name__ == "__main__":
    main()
