"""The command line, all but the warm path of `run` (dbt/run.py): `features`, `cache`, `demo`, --version and --help.

`machine` is in machine/command.py; `img` and `nbd` have a parser of their own, in machine/block/tool/.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from dbt.errors import DragomanError
from dbt.run import ENGINES, report, run_command
from dbt.tools.commands import add_parsers
from dbt.version import VERSION
from dbt.wording import sentence

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

`dragoman COMMAND --help` (or `dragoman help COMMAND`) has each command's options, examples and exit status.
"""
FEATURES = """\
Without an option it is a short table for people. All of it is taken from the tables that the engines are made of.

examples:
  dragoman features
  dragoman features --markdown | less
  dragoman features --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["engines"])'

exit status: 0: done; 2: the command line is wrong.
"""
CACHE = """\
The cache is $XDG_CACHE_HOME/dragoman, or ~/.cache/dragoman. Nothing has to be done for it: what is missing is compiled
when it is met, what is damaged is made anew. `dragoman cache ACTION --help` has the actions' options.

examples:
  dragoman cache build      before a demonstration, or in an image of a container
  dragoman cache verify && dragoman cache info

exit status: 0: done; 1: a file is damaged (verify), or the folder cannot be used; 2: the command line is wrong.
"""
DEMO = """\
examples:
  dragoman demo                            all engines, about a minute
  dragoman demo --engine baseline          one of them

exit status: 0: every guest did what it should; 1: one did not; 2: the command line is wrong.
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

    def command(name: str, about: str, epilog: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=about, description=sentence(about), epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip

    commands.add_parser("run", help="run a program (dragoman run --help)", add_help=False)
    commands.add_parser("img", help="disk images: create, info, convert … (dragoman img --help)", add_help=False)
    commands.add_parser("nbd", help="export a disk image by NBD (dragoman nbd --help)", add_help=False)

    features = command("features", "guests, engines and instruction-set features implemented", FEATURES)
    as_what = features.add_mutually_exclusive_group()
    as_what.add_argument("--json", action="store_true", help="print JSON")
    as_what.add_argument("--markdown", action="store_true", help="print a page of what is supported and what is not")

    cache = command("cache", "the cache of compiled code", CACHE)
    actions = cache.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, about in (
        ("info", "where it is, what is in it, how large it is"),
        ("clear", "remove what is in it"),
        ("verify", "check every file's checksum; status 1 if one is damaged"),
    ):
        actions.add_parser(name, help=about, description=sentence(about))
    about = "compile all forms now instead of when they are first met"
    build = actions.add_parser("build", help=about, description=sentence(about))
    build.add_argument("--interpreter", action="store_true", help="the handlers of the interpreter as well")

    add_parsers(commands)
    add_machine_parser(commands)
    demo = command("demo", "run the guests that come with Dragoman on every engine", DEMO)
    demo.add_argument(
        "--engine", action="append", choices=ENGINES, metavar="ENGINE",
        help=f"only this engine, of {', '.join(ENGINES)}; may be repeated",
    )  # fmt: skip
    return parser


def main(arguments: Sequence[str], origin: Origin) -> int:
    """Run one command line. The result is an exit status, or minus the number of a signal to die of."""
    words = list(arguments) or ["--help"]
    if words[0] == "help":
        words = [*words[1:], "--help"]
    if words[:1] == ["run"]:
        return run_command(words[1:], origin)
    if words[:1] == ["img"]:
        from dbt.machine.block.tool.parser import main as img

        return img(words[1:])
    if words[:1] == ["nbd"]:
        from dbt.machine.block.tool.serving import main as nbd

        return nbd(words[1:])
    try:
        options = parse(words)
    except SystemExit as end:  # argparse has said what there is to say
        return end.code if isinstance(end.code, int) else 2
    try:
        return _command(options, origin)
    except DragomanError as error:
        return report(error)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """What the words say. Leaves by SystemExit, as argparse does, when there is nothing more to do."""
    parser = build_parser()
    options, unknown = parser.parse_known_args(words)
    if unknown:  # the usage of that command says what there is, not that of all
        (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))  # noqa: SLF001
        commands.choices[options.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    return options


def _command(options: argparse.Namespace, origin: Origin) -> int:
    if options.command == "features":
        if options.markdown:
            from dbt.support import page

            sys.stdout.write(page())
            return 0
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
