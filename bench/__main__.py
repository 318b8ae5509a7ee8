"""`python -m bench [SUITE…]`: measure, print a table, and save JSON and a plot."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from . import devices, report
from .measure import BenchError, Figure
from .suites import SUITES, Setting

ROOT = Path(__file__).parents[1]


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Speed of Dragoman and qemu, in pairs.")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"any of {', '.join(SUITES)}; all if none is given")
    parser.add_argument("--rounds", type=int, default=5, help="how often each pair runs (default 5)")
    parser.add_argument("--dragoman", type=Path, default=Path(sys.executable).with_name("dragoman"), metavar="COMMAND")
    parser.add_argument("--qemu", default="qemu-aarch64-static", metavar="COMMAND")
    parser.add_argument("--busybox", type=Path, metavar="FILE", help="an arm64 busybox (default: Debian's, downloaded)")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench", metavar="FOLDER")
    options = parser.parse_args(arguments)
    for suite in options.suites:
        if suite not in SUITES:
            parser.error(f"no suite {suite!r}: there are {', '.join(SUITES)}")
    return options


def setting(options: argparse.Namespace) -> Setting:
    """What the command line says."""
    cache = options.output / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    return Setting(options.dragoman.absolute(), options.qemu, options.busybox, options.rounds, cache.absolute())


def version(qemu: str) -> str | None:
    """The other translator's version, if it is there."""
    if shutil.which(qemu) is None:
        return None
    return subprocess.run([qemu, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def main(arguments: list[str]) -> int:
    """Run the suites; 1 if a figure is not what is wanted, 2 if nothing could be measured."""
    options = parse(arguments)
    figures: list[Figure] = []
    where = setting(options)
    try:
        print(report.HEADER)
        for suite in options.suites or SUITES:
            for figure in SUITES[suite](where):
                figures.append(figure)
                print(report.line(figure), flush=True)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    for line in report.summary(figures):
        print(line)
    report.save_json(figures, options.output / "figures.json", version(options.qemu))
    saved = ["figures.json"]
    if report.plot(figures, options.output / "figures.svg"):
        saved.append("figures.svg")
    if report.plot_lines(figures, options.output / "lines.svg"):
        saved.append("lines.svg")
    if devices.plot(figures, options.output / "devices.svg"):
        saved.append("devices.svg")
    print(f"saved in {options.output}: {', '.join(saved)}")
    if find_spec("matplotlib") is None:
        print("no plots: matplotlib is missing (the extra `bench` has it)")
    return int(any(figure.met is False for figure in figures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
