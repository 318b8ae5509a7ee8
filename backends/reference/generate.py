"""Templates to Python: one function a form, one statement an op.

The function is `step(r, imm, imm2, pc, npc)` with the record's register tokens and its numbers as unsigned ints; it
returns the address of the next instruction, or -1 after an exit (see State.leave). Its globals are a State's namespace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.ir.lanes import EXPRESSIONS
from dbt.ir.ops import OPS
from dbt.ir.values import IRError

from .source_control import ControlWriter
from .source_flags import FlagWriter
from .source_float import FLOAT, FloatWriter
from .source_memory import MemoryWriter
from .source_values import ValueWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.ir.values import Op, Template

_OPERANDS: Final = {"imm": "imm", "imm2": "imm2", "pc": "pc", "npc": "npc"}


def compile_template(template: Template, namespace: dict[str, object]) -> Callable[..., int]:
    """The function of a template, with `namespace` as its globals."""
    code = compile(generate(template), f"<form {template.name}>", "exec")
    scope: dict[str, Callable[..., int]] = {}
    exec(code, namespace, scope)  # noqa: S102  (source of our own making)
    return scope["step"]


def generate(template: Template) -> str:
    """Python source of the function."""
    writer = _Writer()
    for op in template.ops:
        writer.op(op)
    lines = [*writer.lines, "return npc"]
    return "def step(r, imm, imm2, pc, npc):\n" + "".join(f"    {line}\n" for line in lines)


class _Writer(ValueWriter, MemoryWriter, FlagWriter, FloatWriter, ControlWriter):
    """All ops."""

    def op(self, op: Op) -> None:
        """Translate one op."""
        if op.name == "const" and op.result is not None:
            value = op.attrs["value"]
            self.names[op.result] = str(value) if isinstance(value, tuple) else f"({value})"
            return
        method = getattr(self, f"op_{op.name}", None)
        if method is not None:
            text = method(op)
        elif op.name in FLOAT:
            text = self.float(op)
        elif op.name in EXPRESSIONS:
            text = self.lanewise(op, EXPRESSIONS[op.name])
        elif op.name in _OPERANDS:
            text = _OPERANDS[op.name]
        else:
            raise IRError(f"the reference engine does not know {op.name}")
        if op.result is not None:
            name = self.names[op.result] = f"v{op.result.index}"
            self.lines.append(f"{name} = {text}")
        elif text:
            self.lines.append(text)


# Ops that generated code knows: tests compare this with the table.
KNOWN: Final = {
    name for name in OPS if name in EXPRESSIONS or name in FLOAT or name in _OPERANDS or hasattr(_Writer, f"op_{name}")
} | {"const"}
