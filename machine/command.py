"""The command `dragoman machine`: boards, their maps, and the registers of devices."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any, TextIO

from dbt.machine import devices
from dbt.machine.boards import BOARDS, Options, Plugged, load
from dbt.machine.boards.acpi.loader import dump
from dbt.machine.boards.board import MIB
from dbt.machine.boards.picture import picture
from dbt.machine.boards.show import functions, map_text, rows, tree_text
from dbt.machine.document import document
from dbt.machine.images import about, load_image
from dbt.machine.log import TRACE, Log

from dbt.errors import UsageError
from dbt.wording import listed

if TYPE_CHECKING:
    from dbt.machine.boards import BoardMachine
    from dbt.machine.machine import Machine

ABOUT = """\
Nothing runs on boards yet but drivers in tests. Without an option that asks for something else, the map is shown.

examples:
  dragoman machine                                which boards there are
  dragoman machine virt -m 2G                     what is at which address
  dragoman machine pc --device pci_bridge,name=br,slot=5 --device virtio_rng,bus=br
  dragoman machine pc --svg pc.svg                a picture
  dragoman machine --registers pl011              the registers of a device

exit status: 0: done; 1, 126, 127: a file (of an image, a snapshot) cannot be used, or is not there; 2: the command line
is wrong.
"""
NEEDS_BOARD = (
    "map", "tree", "json", "svg", "trace", "dump_dtb", "dump_acpi", "load", "restore", "save", "no_highmem", "device",
)  # fmt: skip
INSTEAD = ("tree", "svg", "dump_dtb", "dump_acpi", "trace", "load", "save")  # without these, the map is shown
UNITS = {"": 1, "K": 1 << 10, "M": MIB, "G": 1 << 30}


def size(text: str) -> int:
    """Bytes, as 128M or 2G say it."""
    number, unit = (text[:-1], text[-1:].upper()) if text[-1:].isalpha() else (text, "")
    if not number.isascii() or not number.isdigit() or unit not in UNITS:
        raise UsageError(f"{text!r} is no size", "say it as 512M or 2G")
    return int(number) * UNITS[unit]


def plugged(text: str) -> Plugged:
    """What KIND[,name=NAME][,slot=N[.FUNCTION]][,bus=BUS][,ARGUMENT=NUMBER] says."""
    kind, *words = text.split(",")
    known: dict[str, str] = {}
    arguments: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"{word!r} of {text!r} is not KEY=VALUE")
        if key in {"name", "slot", "bus"}:
            known[key] = value
        else:
            arguments[key] = _number(value, word)
    slot, _, function = known.get("slot", "").partition(".")
    return Plugged(
        kind, known.get("name", ""), _number(slot, text) if slot else None, _number(function, text) if function else 0,
        known.get("bus", ""), arguments,
    )  # fmt: skip


def _number(text: str, where: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise UsageError(f"{text!r} of {where!r} is no number") from None


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser to argparse's subparsers."""
    parser = commands.add_parser(
        "machine", help="boards, their memory maps, the registers of devices",
        description="Boards, their memory maps, the registers of devices.", epilog=ABOUT,
        usage="dragoman machine [BOARD [OPTION…]] | --registers DEVICE",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("board", nargs="?", metavar="BOARD", help=f"{', '.join(BOARDS)}; without it: list them")
    parser.add_argument("--map", action="store_true", help="what is at which address (the default)")
    parser.add_argument("--tree", action="store_true", help="the regions that the map is made of")
    parser.add_argument("--json", action="store_true", help="the map as JSON")
    parser.add_argument("--svg", metavar="FILE", help="draw the machine: its buses and what is on them")
    parser.add_argument(
        "--trace", metavar="PATTERN", help="show what assigning PCI does to DEVICE.REGISTER; both may have * and ?"
    )
    parser.add_argument("--registers", metavar="DEVICE", help=f"a page about one of {', '.join(devices.DEVICES)}")
    parser.add_argument("--dump-dtb", metavar="FILE", help="write the board's device tree, as guests get it")
    parser.add_argument("--dump-acpi", metavar="FILE", help="write the board's ACPI tables as acpidump does")
    parser.add_argument(
        "--load", action="append", default=[], metavar="FILE[@ADDRESS]",
        help="put an image into memory: raw (with its address), ELF, arm64 Image or bzImage; may be repeated",
    )  # fmt: skip
    parser.add_argument("--restore", metavar="FILE", help="be as a snapshot says, before anything else is done")
    parser.add_argument("--save", metavar="FILE", help="write a snapshot of the machine, after anything was loaded")
    parser.add_argument("-m", dest="ram", default="128M", metavar="SIZE", help="memory (default 128M)")
    parser.add_argument("--cpus", type=int, default=1, metavar="N", help="CPUs (default 1)")
    parser.add_argument("--gic", type=int, default=2, metavar="N", help="version of virt's interrupt controller (2, 3)")
    parser.add_argument("--no-highmem", action="store_true", help="virt has nothing above 4 GiB")
    parser.add_argument(
        "--device", action="append", default=[], metavar="KIND[,slot=N][,bus=BUS][,name=NAME][,ARGUMENT=N]",
        help="plug a device into PCI, or bus=mmio on virt, with numbers as further arguments; may be repeated",
    )  # fmt: skip


def load_into(machine: Machine, image: str) -> str:
    """Load what `--load` says; a line about it."""
    path, at, text = image.rpartition("@")
    try:
        address = int(text, 0) if at else None
    except ValueError:  # the @ is the name's
        path, address = image, None
    path = path if at and address is not None else image
    ram = max((s for s in machine.memory.view.sections if s.writes_direct), key=lambda s: s.end - s.start, default=None)
    place = None if ram is None else (ram.start, ram.end - ram.start)
    return about(load_image(machine.memory, path, address, ram=place))


def run(options: argparse.Namespace, out: TextIO) -> int:
    """Do what the command line says."""
    if options.registers:
        out.write(document(devices.load(options.registers)))
        return 0
    if not options.board and any(getattr(options, other) for other in NEEDS_BOARD):
        raise UsageError("machine: which board?", listed("boards", BOARDS))
    if not options.board:
        out.writelines(f"{name:8} {load(name).ABOUT}\n" for name in BOARDS)
        return 0
    board = load(options.board)
    if options.board != "virt" and (options.gic != 2 or options.no_highmem):
        raise UsageError(f"--gic and --no-highmem are for virt, not for {options.board}")
    added = tuple(plugged(text) for text in options.device)
    said = sys.stderr if options.json else out  # standard output has the JSON and nothing else
    log = Log(lambda _kind, line: print(line, file=said), (TRACE,))
    chosen = Options(
        ram=size(options.ram),
        cpus=options.cpus,
        gic=options.gic,
        highmem=not options.no_highmem,
        devices=added,
        log=log,
    )
    machine = board.build(chosen)
    if options.dump_dtb:
        _write(options.dump_dtb, board.device_tree(machine).flatten())
    if options.dump_acpi:
        _write(options.dump_acpi, dump(board.acpi(machine)).encode("ascii"))
    if options.trace:
        machine.trace(options.trace)
    if options.restore:
        machine.restore_file(options.restore)
    else:
        board.assign(machine)
    said.writelines(f"{load_into(machine, image)}\n" for image in options.load)
    if options.save:
        machine.save_file(options.save)
    if options.svg:
        _write(options.svg, picture(machine).encode())
    if options.json:
        out.write(json.dumps(_facts(machine), indent=2) + "\n")
    elif options.map or not any(getattr(options, other) for other in INSTEAD):
        out.write(map_text(machine))
    if options.tree:
        out.write(tree_text(machine))
    return 0


def _facts(machine: BoardMachine) -> dict[str, Any]:
    facts: dict[str, Any] = {space.name: rows(machine, space) for space in (machine.memory, machine.ports)}
    facts["pci"] = [] if machine.pci is None else list(functions(machine.pci))
    return facts


def _write(path: str, data: bytes) -> None:
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
