"""Boards, one a file: lists of placed devices. `BOARDS` names the files, `load` finds the board in one.

machine = load("virt").build(Options(ram=1 << 30, consoles=(MemoryChar(),)))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from dbt.machine.boards.board import Board, BoardMachine, Options, Placed, Plugged

from dbt.errors import UsageError
from dbt.wording import instead

if TYPE_CHECKING:
    from typing import Any

BOARDS = ("isapc", "pc", "virt")

__all__ = ["BOARDS", "Board", "BoardMachine", "Options", "Placed", "Plugged", "load"]


def load(name: str) -> Board:
    """The board of that name."""
    if name not in BOARDS:
        raise UsageError(f"there is no board {name!r}", instead(name, "boards", BOARDS))
    module: Any = import_module(f"dbt.machine.boards.{name}")
    board: Board = module.BOARD()
    return board
