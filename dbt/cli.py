"""The command line, all but the warm path of `run` (dbt/run.py): `features`, `cache`, `demo`, --version and --help.

`machine` is in machine/command.py; `img` and `nbd` have a parser of their own, in machine/block/tool/.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from dbt.errors import DragomanError
from dbt.run import HELP, report, run_command
from dbt.tools.commands import add_parsers
from dbt.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbt.launch import Origin

EPILOG = """\
examples:
  dragoman run ./busybox sh -c 'echo $((6*7))'   run an AArch64 program
  dragoman run --strace ./hello                  show its system calls
  dragoman profile --html page.html ./prog       where its instructions are, as a page
  dragoman explain --at main ./prog              guest code, IR and host code of a block, side by side
  dragoman demo                                  run the small guests that come with Dragoman on every engine
  dragoman img convert -O qcow2 -f raw a.img b.qcow2   another format for a disk
  dragoman features --json                       guests, engines and instruction-set features, for programs
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of everything but `run`, which is listed for its help only."""
    from dbt.machine.command import add_parser as add_machine_parser

    parser = argparse.ArgumentParser(
        prog="dragoman",
        description="Run programs of another processor: a dynamic binary translator.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dragoman {VERSION}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("run", help="run a program (dragoman run --help)", add_help=False)
    commands.add_parser("img", help="disk images: create, info, convert … (dragoman img --help)", add_help=False)
    commands.add_parser("nbd", help="export a disk image by NBD (dragoman nbd --help)", add_help=False)

    features = commands.add_parser("features", help="guests, engines and instruction-set features implemented")
    features.add_argument("--json", action="store_true", help="print JSON")

    cache = commands.add_parser("cache", help="the cache of compiled code")
    actions = cache.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("info", help="where it is, what is in it, how large it is")
    actions.add_parser("clear", help="remove what is in it")
    actions.add_parser("verify", help="check every file's checksum; status 1 if one is damaged")
    build = actions.add_parser("build", help="compile all forms now instead of when they are first met")
    build.add_argument("--interpreter", action="store_true", help="the handlers of the interpreter as well")

    add_parsers(commands)
    add_machine_parser(commands)
    demo = commands.add_parser("demo", help="run the guests that come with Dragoman on every engine")
    demo.add_argument("--engine", action="append", metavar="ENGINE", help="only this engine; may be repeated")
    return parser


def main(arguments: Sequence[str], origin: Origin) -> int:
    """Run one command line. The result is an exit status, or minus the number of a signal to die of."""
    words = list(arguments)
    if words[:1] == ["run"]:
        return run_command(words[1:], origin)
    if words[:1] == ["img"]:
        from dbt.machine.block.tool.parser import main as img

        return img(words[1:])
    if words[:1] == ["nbd"]:
        from dbt.machine.block.tool.serving import main as nbd

        return nbd(words[1:])
    if words in (["help"], []):
        words = ["--help"]
    if words[:2] == ["help", "run"]:
        sys.stdout.write(HELP)
        return 0
    try:
        options = build_parser().parse_args(words)
    except SystemExit as end:  # argparse has said what there is to say
        return end.code if isinstance(end.code, int) else 2
    try:
        return _command(options, origin)
    except DragomanError as error:
        return report(error)


def _command(options: argparse.Namespace, origin: Origin) -> int:
    if options.command == "features":
        from dbt.features import collect, table

        found = collect()
        sys.stdout.write(json.dumps(found, indent=2) + "\n" if options.json else table(found))
        return 0
    if options.command == "cache":
        from dbt import cache_command

        if options.action == "build":
            return cache_command.build(sys.stdout, interpreter=options.interpreter)
        return int(getattr(cache_command, options.action)(sys.stdout))
    if options.command == "machine":
        from dbt.machine.command import run

        return run(options, sys.stdout)
    if options.command != "demo":
        from dbt.tools import commands

        return commands.command(options, origin)
    from dbt.demo import demo

    return demo(sys.stdout, origin.command, options.engine)
