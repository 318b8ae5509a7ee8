"""Tables for a browser: one page, with nothing from elsewhere."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Final

from dbt.tools.page import page
from dbt.wording import counted

from .text import time_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .model import Cell, Row, Table

_STYLE: Final = """
.facts { display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0; }
.fact { padding: 10px 16px; } .fact b { display: block; font-size: 19px; font-weight: 600; }
.scroll { overflow-x: auto; }
.grid { display: grid; min-width: 1100px; }
.grid > div { padding: 8px 14px; border-bottom: 1px solid var(--line); border-right: 1px solid var(--line);
  min-width: 0; } .grid > div.last { border-right: 0; }
.grid .title { font-weight: 600; background: var(--back); position: sticky; top: 0; }
.grid .heading { grid-column: 1 / -1; background: var(--back); border-right: 0; font-weight: 600; }
.grid pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; padding-left: 2ch; text-indent: -2ch; }
.guest { font-weight: 600; } .badge { display: inline-block; font-size: 11.5px; font-weight: 400;
  margin: 4px 6px 0 0; padding: 0 8px; border-radius: 9px; background: var(--bar); }
.bytes { float: right; font-size: 11.5px; color: var(--dim); margin-left: 8px; }
@media (max-width: 700px) { .facts { gap: 6px; } .fact { padding: 5px 10px; }
  .fact b { display: inline; font-size: 15px; margin-right: 6px; } }
.long { max-height: 420px; overflow: auto; }
.op { color: var(--accent); } .note { color: var(--dim); }
h1 code { font-size: inherit; } h1:not(:first-child) { margin-top: 40px; }
"""


def html(tables: Sequence[Table]) -> str:
    """The page."""
    return page(f"{tables[0].name} explained", _STYLE, "\n".join(_table(table) for table in tables))


def _table(found: Table) -> str:
    name, program = escape(found.name), escape(found.program)
    parts = [f"<h1><code>{name}</code></h1>", f'<p class="dim">{program}, {found.kind} at {found.pc:#x}</p>']
    facts = [(str(found.instructions), f"guest instruction{'s' if found.instructions > 1 else ''}")]
    for what, size in found.sizes:
        rate = "" if what == "guest code" else f", {size / found.instructions:.1f} for an instruction"
        facts.append((counted(size, "byte"), what + rate))
    facts += [(time_text(microseconds), stage) for stage, microseconds in found.stages]
    parts.append('<div class="facts">')
    parts += [f'<div class="panel fact"><b>{escape(b)}</b><span class="dim">{escape(t)}</span></div>' for b, t in facts]
    titles = ["guest", *found.titles]
    shape = f"grid-template-columns: minmax(250px, 1.1fr) repeat({len(titles) - 1}, minmax(0, 1.5fr))"
    parts += ["</div>", f'<div class="panel scroll" tabindex="0"><div class="grid" style="{shape}">']
    parts += [_div("title" + _last(i, titles), escape(title)) for i, title in enumerate(titles)]
    for row in found.rows:
        parts += _row(row, titles)
    parts.append("</div></div>")
    parts += [f'<p class="dim">{escape(note)}</p>' for note in found.notes]
    return "\n".join(parts)


def _row(row: Row, titles: list[str]) -> list[str]:
    badges = "".join(f'<span class="badge">{escape(remark)}</span>' for remark in row.remarks)
    if row.line is None:
        heading = f"<span>{escape(row.heading)}</span> {badges}"
        if not row.cells:
            return [_div("heading", heading)]
        parts = [_div("", heading)]
    else:
        where = f'<span class="bytes">{row.line.code[::-1].hex()}</span>'
        where += f'<span class="dim mono">{row.line.address:#x}</span>'
        parts = [_div("", f'{where}<pre class="guest">{escape(row.line.text)}</pre>{badges}')]
    for k, cell in enumerate(row.cells):
        style = _last(k + 1, titles) + ("" if row.line is not None else " long")
        parts.append(_div(style.strip(), _cell(cell)))
    return parts


def _cell(cell: Cell) -> str:
    size = f'<span class="bytes">{counted(cell.size, "byte")}</span>' if cell.size else ""
    return size + "".join(f"<pre>{_coloured(line)}</pre>" for line in cell.lines)


def _last(i: int, titles: list[str]) -> str:
    return " last" if i == len(titles) - 1 else ""


def _div(style: str, body: str) -> str:
    reach = ' tabindex="0"' if style.endswith("long") else ""  # keys scroll what has the focus
    return f'<div class="{style}"{reach}>{body}</div>' if style else f"<div>{body}</div>"


def _coloured(line: str) -> str:
    """The operation in colour, comments dimmed."""
    if line.startswith("("):
        return f'<span class="note">{escape(line)}</span>'
    offset = re.match(r"[0-9a-f]{4} ", line)
    place = f'<span class="note">{offset[0]}</span>' if offset is not None else ""
    code, semicolon, comment = line[len(offset[0]) if offset is not None else 0 :].partition("  ;")
    result, equals, rest = code.partition(" = ") if code.startswith("%") else ("", "", code)
    word, space, tail = rest.partition(" ")
    shown = f'{place}{escape(result + equals)}<span class="op">{escape(word)}</span>{escape(space + tail)}'
    return shown + (f'<span class="note">{escape(semicolon + comment)}</span>' if semicolon else "")
