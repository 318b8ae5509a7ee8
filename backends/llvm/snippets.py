"""Stencils of what tools insert between instructions: templates as text in, holes and code as the emitter wants out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.engine.formats import HOLE_RODATA
from dbt.ir.passes import dead_code, fold
from dbt.ir.text import parse_templates
from dbt.ir.verify import verify

from .extract import ExtractError
from .holes import HoleSource
from .pack import Pack
from .records import InsertedSource
from .stencils import compile_templates

if TYPE_CHECKING:
    from dbt.ir.values import Template


def compile_snippets(text: str, *, handlers: bool = False) -> dict[str, bytes]:
    """For each template of a text, by its own text: head, holes and code. LLVM may abort the process.

    `handlers`: for the interpreter, whose steps have the operands; these have no holes.
    """
    templates: dict[str, Template] = {t.text(): t for t in parse_templates(text)}
    names = {f"s{i}": own for i, own in enumerate(templates)}
    found = compile_templates(
        ((name, dead_code(fold(verify(templates[own]))), True, False) for name, own in names.items()),
        InsertedSource if handlers else HoleSource,
    )
    blobs: dict[str, bytes] = {}
    pack = Pack("", 0, 0)
    for name, own in names.items():
        if any(hole.kind == HOLE_RODATA for hole in found[name].holes):
            raise ExtractError(f"inserted code has constants in memory, which are not supported:\n{own}")
        blobs[own] = pack.packed(found[name])
    return blobs
