"""`python -m tests.soak programs|pages|replay`: see CONTRIBUTING.md."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from tests.differential.text import parse

from .child import Options
from .machines import NATIVE
from .parent import Parent, prepare
from .trial import MODES, OUTSIDE, Trial


def main() -> int:
    """The command; its exit status is 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Random code on all engines.")
    commands = parser.add_subparsers(dest="kind", required=True)
    for name, what in (("programs", "programs that end, also on Unicorn"), ("pages", "pages of random instructions")):
        command = commands.add_parser(name, help=what)
        command.add_argument("--count", type=int, default=10_000, help="how many (default 10000)")
        command.add_argument("--seed", type=int, default=0, help="the first number (default 0)")
        command.add_argument(
            "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one for each CPU)"
        )
        command.add_argument("--optimizer-every", type=int, default=1, metavar="N", dest="every",
                             help="only each Nth on the optimizer, 0: none (default 1: all)")  # fmt: skip
    command = commands.add_parser("replay", help="a case in the text format, on all engines in all modes")
    command.add_argument("case", help="a line as in tests/cases")
    command.add_argument("--until", type=lambda text: int(text, 0), action="append", default=[], metavar="ADDRESS",
                         help="a stop address; may be given more than once")  # fmt: skip
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    prepare()
    if arguments.kind == "replay":
        return replay(arguments.case, tuple(sorted(arguments.until)))
    options = Options(arguments.kind, arguments.seed, arguments.count, arguments.every, "")
    report = Parent(options, arguments.jobs, lambda text: print(text, flush=True)).run()
    print(report.summary(arguments.kind))
    return bool(report.wrong)


def replay(text: str, stops: tuple[int, ...]) -> int:
    """Run a case and say what differs."""
    case = parse(text).case
    print(Trial().line(case))
    found = 0
    for engine in (*NATIVE, OUTSIDE):
        trial = Trial(large=engine)
        for mode in MODES:
            wrong = trial.alone(case, mode._replace(stops=stops), engine, case.count)
            if wrong:
                found = 1
                print("\n    ".join([f"{engine}, {mode}", *wrong]))
    return found


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
