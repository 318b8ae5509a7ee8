"""Tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .model import Cell, Row, Table

LEAST: Final = 16  # characters of a column
INDENT: Final = 4  # of lines that go on


def text(tables: Sequence[Table], width: int) -> str:
    """Lines of at most `width` characters, as long as columns are not narrower than LEAST."""
    return "\n".join(_table(table, width) for table in tables)


def _table(found: Table, width: int) -> str:
    titles = found.titles
    each = max((width - 2 - 3 * (len(titles) - 1)) // len(titles), LEAST)
    rule = "─" * width
    guest, *others = found.sizes
    sizes = "".join(f", {counted(size, 'byte')} of {name}" for name, size in others)
    what = counted(found.instructions, "instruction")
    lines = [
        f"{found.name} in {found.program}: {found.kind}, {what}, {counted(guest[1], 'byte')}{sizes}",
    ]
    lines += [f"  {stage}: {time_text(microseconds)}" for stage, microseconds in found.stages]
    lines += [f"  {note}" for note in found.notes]
    lines += [rule, "  " + " │ ".join(name.ljust(each) for name in titles).rstrip()]
    for row in found.rows:
        lines += [rule, _head(row), *_cells(row.cells, each)]
    return "\n".join([*lines, rule]) + "\n"


def _head(row: Row) -> str:
    sizes = ", ".join(counted(cell.size, "byte") for cell in row.cells if cell.size)
    tail = "; ".join(part for part in (sizes, ", ".join(row.remarks)) if part)
    if row.line is None:
        return f"{row.heading}  {tail}".rstrip()
    return f"{row.line.address:#x}  {row.line.code[::-1].hex()}  {row.line.text:<36} {tail}".rstrip()


def _cells(cells: Sequence[Cell], each: int) -> list[str]:
    wrapped = [[part for line in cell.lines for part in _wrap(line, each)] for cell in cells]
    lines = []
    for k in range(max(map(len, wrapped), default=0)):
        parts = [column[k].ljust(each) if k < len(column) else " " * each for column in wrapped]
        lines.append(("  " + " │ ".join(parts)).rstrip())
    return lines


def _wrap(line: str, width: int) -> list[str]:
    """A line in pieces of at most `width` characters, cut at spaces where there is one."""
    pieces = []
    while len(line) > width:
        cut = line.rfind(" ", INDENT + 1, width + 1)
        if cut < 0:
            cut = width
        pieces.append(line[:cut].rstrip())
        line = " " * INDENT + line[cut:].lstrip()
    return [*pieces, line]


def time_text(microseconds: float) -> str:
    """A time with its unit."""
    for unit in ("µs", "ms"):
        if microseconds < 1000:
            return f"{microseconds:.2f} {unit}"
        microseconds /= 1000
    return f"{microseconds:.2f} s"
