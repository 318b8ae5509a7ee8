"""The command line of `dragoman img`: its commands, their options, and where each is done."""

from __future__ import annotations

import argparse
import os
import sys
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from dbt.machine.block.tool.images import count, size

from dbt.errors import DragomanError, UsageError
from dbt.wording import sentence

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130  # as shells have it: 128 and SIGINT

ABOUT = """\
An IMAGE is a path, a URI (nbd://host/export), options (driver=qcow2,file.driver=file,file.filename=a.qcow2) or JSON.
Its format is named with -f. For reading it may be left out, unless the image is raw; for writing it is never guessed.
Sizes: 4096, 64K, 1.5G, 2TiB; all letters are powers of 1024. `dragoman img COMMAND --help` has the details.

examples:
  dragoman img create -f qcow2 disk.qcow2 20G
  dragoman img info disk.qcow2
  dragoman img convert -f raw -O qcow2 disk.img disk.qcow2

exit status: 0 done; 1 it failed; 2 the command line is wrong; 130 interrupted. compare: 0 same, 1 different, 2 one
cannot be opened, 4 one cannot be read. check, repair: 0 nothing wrong, or all repaired; 1 the check could not be
finished; 2 corruptions are left; 3 leaked clusters are left; 63 the format has nothing that can be checked.
"""
MORE = {
    "convert": """\
The target is written beside its name and renamed when it is whole; Ctrl-C removes it and leaves what was there before.
With --sync it is on stable storage by then. Holes and zeroes of the source take no space in the target.

"""
}
EXAMPLES = {
    "create": "create -f qcow2 -o cluster_size=128K disk.qcow2 20G",
    "options": "options -f qcow2",
    "info": "info --backing-chain disk.qcow2",
    "check": "check -f qcow2 disk.qcow2",
    "repair": "repair -f qcow2 --leaks disk.qcow2",
    "convert": "convert -f raw -O qcow2 -c disk.img disk.qcow2",
    "resize": "resize -f qcow2 disk.qcow2 +1G",
    "snapshot": "snapshot -f qcow2 -c before-the-update disk.qcow2",
    "commit": "commit -f qcow2 changes.qcow2",
    "rebase": "rebase -f qcow2 -b base.qcow2 -F qcow2 changes.qcow2",
    "map": "map --json disk.qcow2",
    "compare": "compare -f raw disk.img disk.qcow2",
    "measure": "measure -O qcow2 --size 20G",
    "dd": "dd -f raw -O raw if=disk.img of=boot.img bs=512 count=1",
    "bench": "bench -f qcow2 -c 10000 disk.qcow2",
}
ORDINARY = "exit status: 0: done; 1: it failed; 2: the command line is wrong; 130: interrupted.\n"
_CHECKED = """\
exit status: 0: nothing is wrong, or all is repaired; 1: it could not be finished; 2: corruptions are left, or the
command line is wrong; 3: leaked clusters are left; 63: the format has nothing that can be checked; 130: interrupted.
"""
STATUS = {
    "check": _CHECKED,
    "repair": _CHECKED,
    "compare": """\
exit status: 0: same; 1: different; 2: one cannot be opened, or the command line is wrong; 4: one cannot be read; 130:
interrupted.
""",
}

Parser = argparse.ArgumentParser


@cache
def _columns() -> int:
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno() if sys.__stdout__ else 1).columns or 80
    except (OSError, ValueError):
        return 80


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Knows the width. argparse imports shutil for it, with bz2 and lzma: a tenth of the time that `info` takes."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def build() -> Parser:
    """The parser."""
    form = Formatter
    parser = Parser(prog="dragoman img", description="Disk images.", epilog=ABOUT, formatter_class=form)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, where: str, about: str, *, read: bool = True) -> Parser:
        found = commands.add_parser(
            name, help=about, description=sentence(about), formatter_class=form,
            epilog=f"{MORE.get(name, '')}example:\n  dragoman img {EXAMPLES[name]}\n\n{STATUS.get(name, ORDINARY)}",
        )  # fmt: skip
        found.set_defaults(where=where)
        found.add_argument("-f", "--format", metavar="FORMAT", help="format of the image")
        found.add_argument(
            "--allow-backing", action="store_true", help="open backing files outside of the image's own folder, too"
        )
        if read:
            found.add_argument(
                "-U", "--force-share", action="store_true", help="read although somebody writes: it may be half written"
            )
        return found

    def json(*parsers: Parser) -> None:
        for found in parsers:
            found.add_argument("--json", action="store_true", help="print JSON")

    def copies(*parsers: Parser) -> None:
        for found in parsers:
            found.add_argument("-q", "--quiet", action="store_true", help="no progress bar")

    create = command("create", "making:create", "make an empty image", read=False)
    create.add_argument("-b", "--backing", metavar="NAME", help="backing file, as it will stand in the image")
    create.add_argument("-u", "--unsafe", action="store_true", help="do not look at the backing file")
    create.add_argument("image", metavar="IMAGE")
    create.add_argument("size", metavar="SIZE", nargs="?", type=size)

    formats = command("options", "making:list_options", "the options that create and convert take with -o", read=False)

    info = command("info", "show:info", "format, sizes, features, snapshots")
    info.add_argument("-v", "--verbose", action="store_true", help="the headers, field by field")
    info.add_argument("--backing-chain", action="store_true", help="the backing files, too")

    check = command("check", "show:check", "look for inconsistencies")
    check.add_argument("-r", "--repair", choices=("leaks", "all"), default="", help="repair what is found")
    repair = command("repair", "show:check", "repair what check finds", read=False)
    repair.add_argument("--leaks", dest="repair", action="store_const", const="leaks", default="all", help="leaks only")

    convert = command("convert", "converting:convert", "write the content into a new image")
    convert.add_argument("-c", "--compress", action="store_true", help="compressed clusters, where the format has them")
    convert.add_argument("-n", "--existing", action="store_true", help="the target exists: write into it")
    convert.add_argument("--overwrite", action="store_true",
                         help="empty what is there first: quicker, and Ctrl-C leaves neither")  # fmt: skip
    convert.add_argument("-B", "--backing", metavar="NAME", help="backing file that source and target share")
    convert.add_argument("--sync", action="store_true", help="on stable storage when it is done")
    convert.add_argument("source", metavar="SOURCE")
    convert.add_argument("target", metavar="TARGET")

    resize = command("resize", "making:resize", "change the size: to 10G, by +1G, by -1G", read=False)
    resize.add_argument("--shrink", action="store_true", help="cut off what is behind the new end")
    resize.add_argument("--preallocation", default="off", metavar="HOW", help="off, metadata, falloc or full")
    resize.add_argument("image", metavar="IMAGE")
    resize.add_argument("size", metavar="SIZE")

    snapshot = command("snapshot", "making:snapshot", "list, create, apply or delete internal snapshots")
    what = snapshot.add_mutually_exclusive_group()
    what.add_argument("-l", "--list", action="store_true", help="list them (the default)")
    what.add_argument("-c", "--create", metavar="NAME", help="keep the state of now")
    what.add_argument("-a", "--apply", metavar="NAME", help="go back to a snapshot")
    what.add_argument("-d", "--delete", metavar="NAME", help="forget a snapshot")

    commit = command("commit", "chains:commit", "write what is in an image into its backing file", read=False)
    commit.add_argument("-d", "--keep", action="store_true", help="do not empty the image afterwards")

    rebase = command("rebase", "chains:rebase", "put another backing file behind an image", read=False)
    rebase.add_argument("-b", "--backing", metavar="NAME", required=True, help='the new one; "": none')
    rebase.add_argument("-u", "--unsafe", action="store_true", help="change the name only")

    where = command("map", "show:map_image", "what is where")
    where.add_argument("--start", type=size, default=0, metavar="OFFSET", help="from here on")
    where.add_argument("--length", type=size, metavar="SIZE", help="so far")

    compare = command("compare", "comparing:compare", "whether two images read the same")
    compare.add_argument("-F", "--second-format", metavar="FORMAT", help="format of the second image")
    compare.add_argument("-s", "--strict", action="store_true", help="they must have the same size, too")
    compare.add_argument("first", metavar="IMAGE")
    compare.add_argument("second", metavar="IMAGE")

    measure = command("measure", "show:measure", "how much space an image of a format needs")
    measure.add_argument("--size", type=size, metavar="SIZE", help="for an empty disk of this size")
    measure.add_argument("image", metavar="IMAGE", nargs="?")

    dd = command("dd", "converting:dd", "copy blocks into a new image")
    dd.add_argument("operands", metavar="OPERAND", nargs="+", help="if=, of=, bs=512, count=, skip=")

    bench = command("bench", "benching:bench", "how fast requests are")
    bench.add_argument("-c", "--count", type=count, default=75_000, metavar="N", help="requests (75000)")
    bench.add_argument("-d", "--depth", type=count, default=64, metavar="N", help="in flight at once (64)")
    bench.add_argument("-s", "--size", type=size, default=4096, metavar="SIZE", help="of each (4K)")
    bench.add_argument("-S", "--step", type=size, metavar="SIZE", help="from one to the next (their size)")
    bench.add_argument("-o", "--offset", type=size, default=0, metavar="OFFSET", help="of the first")
    bench.add_argument("-w", "--write", action="store_true", help="write: this destroys what is there")
    bench.add_argument("--pattern", type=int, default=0, choices=range(256), metavar="BYTE", help="what to write (0)")
    bench.add_argument("--flush-interval", type=count, metavar="N", help="flush after so many writes")

    for found in (info, check, repair, snapshot, commit, rebase, where, bench):
        found.add_argument("image", metavar="IMAGE")
    for found in (create, rebase, convert):
        found.add_argument("-F", "--backing-format", metavar="FORMAT", help="format of the backing file")
    for found in (create, convert, measure):
        found.add_argument("-o", dest="options", action="append", default=[], metavar="NAME=VALUE,…",
                           help="options of the new image; `dragoman img options -f FORMAT` lists them")  # fmt: skip
    for found in (convert, dd, measure):
        found.add_argument("-O", "--output-format", required=True, metavar="FORMAT", help="format of the target")
    for found in (convert, compare, bench):
        found.add_argument("-m", "--threads", type=count, metavar="N",
                           help="ranges at once (as many as processors, over a network 8)")  # fmt: skip
    json(formats, info, check, repair, snapshot, where, compare, measure, bench)
    copies(convert, commit, rebase, compare, dd)
    for found in (create, formats):
        found.set_defaults(format_needed=True)
    return parser


def main(words: Sequence[str]) -> int:
    """Run one command line; its exit status."""
    from dbt.run import report

    try:
        options = build().parse_args(words)
    except SystemExit as end:  # argparse has said what there is to say
        return end.code if isinstance(end.code, int) else 2
    module, _, function = options.where.partition(":")
    try:
        if getattr(options, "format_needed", False) and options.format is None:
            raise UsageError(f"{options.command}: of which format?", "Name it with -f.")
        work = getattr(import_module(f"dbt.machine.block.tool.{module}"), function)
        return int(work(options))
    except argparse.ArgumentTypeError as error:
        return report(UsageError(f"{options.command}: {error}"))
    except DragomanError as error:
        return report(error)
    except KeyboardInterrupt:
        sys.stderr.write("dragoman: interrupted\n")
        return INTERRUPTED
