"""`dragoman explain`: what becomes of a block or region, stage by stage, side by side and aligned by guest instruction.

`block.py` explains a block: IR, optimised IR, and the column of an engine (`engines.py`). `region.py` explains what the
optimizer makes of the region at an address, as LLVM text before and after LLVM's passes and as host code
(`lines.py` aligns them). Both give a `Table` (`model.py`), which `text.py` and `html.py` show.
"""

from __future__ import annotations

import shutil
from copy import copy
from typing import TYPE_CHECKING, Final

from dbt.errors import UsageError

from .block import explain_block, resolve
from .engines import COLUMNS
from .html import html
from .region import explain_region
from .text import text

if TYPE_CHECKING:
    import argparse
    from typing import TextIO

    from dbt.run import RunOptions

    from .model import Explanation, Table

REGION_ENGINE: Final = "optimizer"
ENGINES: Final = (*COLUMNS, REGION_ENGINE)
LEAST_WIDTH: Final = 60  # columns of text
DEFAULT_SIZE: Final = (120, 24)  # of a terminal that is none


def explain(options: argparse.Namespace, run_options: RunOptions, out: TextIO) -> int:
    """The command."""
    names = list(dict.fromkeys((options.engines or "baseline").split(",")))
    for name in names:
        if name not in ENGINES:
            raise UsageError(
                f"explain: no engine {name!r}", f"One or more of {','.join(ENGINES)}, with commas between."
            )
    tables = make_tables(run_options, options.at, names)
    if options.html:
        try:
            with open(options.html, "w", encoding="utf-8") as file:
                file.write(html(tables))
        except OSError as error:
            raise UsageError(f"{options.html}: {error.strerror}", "Name a file that can be written.") from None
    else:
        out.write(text(tables, options.width or max(shutil.get_terminal_size(DEFAULT_SIZE).columns, LEAST_WIDTH)))
    return 0


def make_tables(run_options: RunOptions, at: str | None, names: list[str]) -> list[Table]:
    """A table for each engine of `names`; engines that have decoded the same share one.

    The program is loaded once for each engine that has a state of its own, and does not run. Raises UsageError.
    """
    from dbt.tools.commands import load

    explanations: list[Explanation] = []
    tables: list[Table] = []
    for name in names:
        own = copy(run_options)
        own.engine = "baseline" if name == "reference" else name
        process = load(own)
        try:
            pc = resolve(process, at)
            if name == REGION_ENGINE:
                tables.append(explain_region(process, pc))
                continue
            found = explain_block(process, pc, [name])
        finally:
            process.cpu.close()
        for number, before in enumerate(explanations):
            if before.decoded == found.decoded:
                explanations[number] = before.beside(found)
                break
        else:
            explanations.append(found)
    return [found.table() for found in explanations] + tables


__all__ = ["ENGINES", "explain", "explain_block", "explain_region", "html", "make_tables", "resolve", "text"]
