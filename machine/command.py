"""The command `dragoman machine`: boards, their maps, and the registers of devices."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TextIO

from dbt.machine import devices
from dbt.machine.boards import BOARDS, Options, load
from dbt.machine.boards.board import MIB
from dbt.machine.boards.show import map_text, rows, tree_text
from dbt.machine.document import document

from dbt.errors import UsageError

if TYPE_CHECKING:
    import argparse

UNITS = {"": 1, "K": 1 << 10, "M": MIB, "G": 1 << 30}


def size(text: str) -> int:
    """Bytes, as 128M or 2G say it."""
    number, unit = (text[:-1], text[-1:].upper()) if text[-1:].isalpha() else (text, "")
    if not number.isascii() or not number.isdigit() or unit not in UNITS:
        raise UsageError(f"{text!r} is no size", "say it as 512M or 2G")
    return int(number) * UNITS[unit]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser to argparse's subparsers."""
    parser = commands.add_parser("machine", help="boards, their memory maps, the registers of devices")
    parser.add_argument("board", nargs="?", metavar="BOARD", help=f"{' or '.join(BOARDS)}; without it: list them")
    parser.add_argument("--map", action="store_true", help="what is at which address (the default)")
    parser.add_argument("--tree", action="store_true", help="the regions that the map is made of")
    parser.add_argument("--json", action="store_true", help="the map as JSON")
    parser.add_argument("--registers", metavar="DEVICE", help=f"a page about {', '.join(devices.DEVICES)}")
    parser.add_argument("--dump-dtb", metavar="FILE", help="write the board's device tree, as guests get it")
    parser.add_argument("-m", dest="ram", default="128M", metavar="SIZE", help="memory (default 128M)")
    parser.add_argument("--cpus", type=int, default=1, metavar="N", help="CPUs (default 1)")


def run(options: argparse.Namespace, out: TextIO) -> int:
    """Do what the command line says."""
    if options.registers:
        out.write(document(devices.load(options.registers)))
        return 0
    if not options.board:
        out.writelines(f"{name:8} {load(name).ABOUT}\n" for name in BOARDS)
        return 0
    board = load(options.board)
    machine = board.build(Options(ram=size(options.ram), cpus=options.cpus))
    if options.dump_dtb:
        blob = board.device_tree(machine).flatten()
        try:
            with open(options.dump_dtb, "wb") as file:
                file.write(blob)
        except OSError as error:
            raise UsageError(f"{options.dump_dtb}: {error.strerror}") from error
        return 0
    if options.json:
        spaces = (machine.memory, machine.ports)
        out.write(json.dumps({space.name: rows(machine, board, space) for space in spaces}, indent=2) + "\n")
        return 0
    if options.map or not options.tree:
        out.write(map_text(machine, board))
    if options.tree:
        out.write(tree_text(machine))
    return 0
