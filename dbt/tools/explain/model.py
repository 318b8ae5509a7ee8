"""What an explanation is made of, whoever shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.engine.layout import NO_FLAGS, POLL, WIDE

if TYPE_CHECKING:
    from dbt.frontends.forms import Form
    from dbt.tools.assembly import Line

_VARIANTS: Final = ((NO_FLAGS, "flags not needed"), (WIDE, "64-bit immediates"), (POLL, "polls"))
FUSED: Final = "(fused with the one above)"
SAME: Final = "(the same)"


class Cell(NamedTuple):
    """What a stage has for an instruction: lines of text, and how many bytes (0: that says nothing)."""

    lines: list[str]
    size: int = 0


class Row(NamedTuple):
    """A line of a table: a guest instruction, or something that belongs to none (`heading`)."""

    line: Line | None
    heading: str
    remarks: list[str]
    cells: list[Cell]  # one for each of the table's titles; none: the heading stands alone


class Table(NamedTuple):
    """Stages beside each other. `stages`: what took how many microseconds; `sizes`: bytes of what."""

    name: str  # symbol and offset
    program: str
    kind: str  # block or region
    pc: int
    instructions: int  # of the guest
    sizes: list[tuple[str, int]]
    stages: list[tuple[str, float]]
    titles: list[str]
    rows: list[Row]
    notes: list[str]


class Item(NamedTuple):
    """One instruction of a block, with its record (engine/layout.py)."""

    form: Form
    variant: int
    r: tuple[int, ...]
    imm: int
    target: int
    line: Line
    fused: bool  # it and the next one are one stencil
    second: bool  # the next one

    @property
    def remarks(self) -> list[str]:
        """What was chosen for it."""
        chosen = [name for bit, name in _VARIANTS if self.variant & bit]
        return [*chosen, "fused with the next one"] if self.fused else chosen


class Column(NamedTuple):
    """An engine's part of a block: a cell for each instruction. `size`: bytes of all, 0 if that says nothing."""

    name: str
    cells: list[Cell]
    size: int = 0
    note: str = ""


class Explanation(NamedTuple):
    """A block with all that is known of it."""

    program: str
    name: str
    pc: int
    items: list[Item]
    ir: list[list[str]]
    optimised: list[list[str]]
    columns: list[Column]
    stages: list[tuple[str, float]]

    @property
    def size(self) -> int:
        """Of the guest's code in bytes."""
        return sum(len(item.line.code) for item in self.items)

    @property
    def decoded(self) -> list[tuple[object, ...]]:
        """What two explanations have in common that can stand in one table."""
        return [(item.form.id, *item[1:]) for item in self.items]

    def beside(self, other: Explanation) -> Explanation:
        """The same block with another engine's column as well."""
        known = dict(self.stages)
        stages = self.stages + [stage for stage in other.stages if stage[0] not in known]
        return self._replace(columns=self.columns + other.columns, stages=stages)

    def table(self) -> Table:
        """To be shown."""
        rows = []
        for i, item in enumerate(self.items):
            same = bool(self.ir[i]) and self.ir[i] == self.optimised[i]
            cells = [Cell(self.ir[i]), Cell([SAME] if same else self.optimised[i])]
            for column in self.columns:
                shared = item.second and bool(column.size)
                cells.append(Cell([FUSED]) if shared else column.cells[i])
            rows.append(Row(item.line, "", item.remarks, cells))
        sizes = [("guest code", self.size), *((c.name, c.size) for c in self.columns if c.size)]
        titles = ["IR", "optimised IR", *(c.name for c in self.columns)]
        notes = [f"{c.name}: {c.note}" for c in self.columns if c.note]
        return Table(
            self.name, self.program, "block", self.pc, len(self.items), sizes, self.stages, titles, rows, notes
        )  # fmt: skip
