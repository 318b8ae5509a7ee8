"""What runs in the child processes: seeds in a row, each named before it starts, so that a crash has one to blame.

`python -m tests.robustness.child pages|images ENGINE START COUNT` prints the number of each seed, at last a JSON object
with how often there was which outcome. An exception is an outcome that nobody expects: it ends the child.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from importlib import import_module

SLOW = 20.0  # seconds that one seed may take


def main() -> None:
    """Run the seeds."""
    kind, engine, start, count = sys.argv[1:]
    attempt = import_module(f"tests.robustness.{kind}").Attempts(engine).attempt
    outcomes = Counter[str]()
    for seed in range(int(start), int(start) + int(count)):
        os.write(1, b"%d\n" % seed)
        begin = time.monotonic()
        outcomes.update(attempt(seed))
        if time.monotonic() - begin > SLOW:
            raise TimeoutError(f"seed {seed} took {time.monotonic() - begin:.1f} s")
    os.write(1, json.dumps(outcomes).encode() + b"\n")


if __name__ == "__main__":
    main()
