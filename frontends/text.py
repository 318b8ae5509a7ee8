"""Assembly text of an instruction from its row's template: for traces, errors and the check against Capstone.

In a template `{Rd}` is an operand (or a raw field), `{Rd:w}` with a style that its kind knows (operands.py of the
guest); everything else stands for itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .forms import placeholders, resolve
from .operands import Imm, Operand

if TYPE_CHECKING:
    from .forms import Form


def render(form: Form, word: int, pc: int = 0) -> str:
    """The instruction as the row's assembly template prints it; immediates as `#1`, targets as absolute addresses."""
    given, asm = resolve(form.row, form.statics, word)
    constants = {name: value for name, value in given.items() if isinstance(value, int)} | dict(form.statics)
    fields = form.row.pattern.fields

    def show(match: re.Match[str]) -> str:
        name, style = match[1], match[2] or ""
        operand = given.get(name)
        if not isinstance(operand, Operand):
            try:
                operand = form.operand(name)
            except KeyError:
                if name in given:
                    return str(given[name])
                position, width = fields[name]
                return str(word >> position & ((1 << width) - 1))
        parts = tuple(fields[part] for part in operand.names)
        if isinstance(operand, Imm):
            return operand.text(operand.extraction(parts, operand.PLAIN_SLOT).value(word, pc), style, constants)
        raw = 0
        for position, width in parts:
            raw = raw << width | word >> position & ((1 << width) - 1)
        return operand.text(raw, style, constants)

    return re.sub(r"\{(\w+)(?::(\w*))?\}", show, asm)


__all__ = ["placeholders", "render"]
