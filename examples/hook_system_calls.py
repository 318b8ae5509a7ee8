"""See what a program asks its kernel, answer in the kernel's place, and mend what it does wrong.

python examples/hook_system_calls.py
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import dbt.guests

import dbt

WRITE = 64
HELLO = Path(dbt.guests.__file__).parent / "bin" / "hello"


def main() -> None:
    """Count calls, then keep the program's output for ourselves."""
    calls: Counter[int] = Counter()
    output = b""

    def count(call: dbt.SystemCall) -> None:
        calls[call.number] += 1

    with dbt.open_program(HELLO) as program:

        def keep(call: dbt.SystemCall) -> int | None:
            nonlocal output
            if call.number != WRITE:
                return None  # let it happen
            _fd, address, size = call.arguments[:3]
            output += program.memory.read(address, size)
            return size  # what the program believes that write() has said

        program.on_system_call(count)
        program.on_system_call(keep)
        print("ended:", program.run())
    print("calls:", dict(calls))
    print("it would have written:", output)


if __name__ == "__main__":
    main()
