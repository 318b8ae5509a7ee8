"""What engines make of a block, a column for each: a function of COLUMNS gets the Context and returns a Column.

Instructions that an engine makes one of (a fused pair) share the cell of the first.
"""

from __future__ import annotations

import ctypes
import re
from typing import TYPE_CHECKING, Final, cast

from dbt.engine.formats import (
    N_SPECIAL,
    SPECIAL_COUNT,
    SPECIAL_JUMP,
    SPECIAL_POLL,
    SPECIAL_STOP,
    PackHead,
    StencilHead,
    SuperEntry,
    SuperHead,
)
from dbt.engine.layout import CONDITIONS, FUSED_VARIANTS, MODE_HOT, PART_KEY, VARIANTS, Record, Step
from dbt.ir.values import Place
from dbt.tools.assembly import disassemble

from .model import Cell, Column

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dbt.engine.interpreter import Interpreter
    from dbt.ir.values import Template
    from dbt.tools.assembly import Line

    from .block import Context

    Namer = Callable[[int], str]

_ENV: Final = "rdi"  # host registers of the calling convention (backends/llvm/text.py)
_STEP: Final = "rcx"
PINNED: Final = "rdi: Env, rsi: memory base, rdx: address mask, r12 r13 r14 r15: flag words n z c v"
# The names under which a register's parts are written.
_PARTS: Final = {"rdi": ("rdi", "edi", "di", "dil"), "rcx": ("rcx", "ecx", "cx", "cl", "ch")}
_SPECIALS: Final = {SPECIAL_COUNT: "count", SPECIAL_STOP: "stop", SPECIAL_POLL: "poll", SPECIAL_JUMP: "jump"}


def annotated(lines: Iterable[Line], names: Mapping[str, Namer]) -> list[str]:
    """Host code with the names of what is accessed through pointers in host registers, until those are written."""
    left = dict(names)
    found = []
    for line in lines:
        text = line.text
        access = re.search(r"\[(r\w\w)(?: \+ (0x[0-9a-f]+|\d+))?\]", text)
        if access is not None and access[1] in left:
            text += f"  ; {left[access[1]](int(access[2] or '0', 0))}"
        found.append(text)
        word, _, operands = line.text.partition(" ")
        for register in [r for r in left if operands.split(",")[0] in _PARTS[r] and word not in ("cmp", "test")]:
            del left[register]
    return found


def tokens(template: Template) -> list[int]:
    """The register tokens that a template has."""
    places = [place for op in template.ops if isinstance(place := op.attrs.get("place"), Place)]
    return sorted({place.token for place in places if place.token is not None})


def baseline(context: Context) -> Column:
    """Host code as it was emitted, cut at the instructions."""
    block, offsets = context.block, context.offsets()
    ends = [*offsets[1:], int(block.size)]
    code = ctypes.string_at(int(block.code), int(block.size))
    cells = []
    for item, start, behind in zip(context.items, offsets, ends, strict=True):
        if item.second:
            cells.append(Cell([]))
            continue
        end = int(block.size) if item.fused else behind
        lines = disassemble("x86_64", code[start:end], int(block.code) + start)
        cells.append(Cell(annotated(lines, {_ENV: context.place}), end - start))
    return Column("baseline: x86-64", cells, int(block.size), PINNED)


def reference(context: Context) -> Column:
    """The Python that the reference engine runs."""
    from dbt.backends.reference.generate import generate

    cells = [Cell([line[4:] for line in generate(i.form.template).splitlines()[1:]]) for i in context.items]
    return Column("reference: Python", cells, 0, "r: register tokens, G64: the register file")


def interpreter(context: Context) -> Column:
    """The steps of each instruction: what they hold, and the code of their handlers."""
    block, offsets = context.block, context.offsets()
    ends = [*offsets[1:], int(block.size)]
    handlers = _handlers(context)
    used: dict[int, int] = {}
    cells = []
    for item, start, behind in zip(context.items, offsets, ends, strict=True):
        if item.second:
            cells.append(Cell([]))
            continue
        end = int(block.size) if item.fused else behind
        lines = []
        for at in range(start, end, Step.size):
            step = Step.at(int(block.code) + at)
            name, size = handlers[int(step.handler)]
            used[int(step.handler)] = size
            lines.append(_step_text(context, step, at, name, fused=item.fused))
            host = disassemble("x86_64", ctypes.string_at(int(step.handler), size), int(step.handler))
            lines += annotated(host, {_ENV: context.place, _STEP: _step_field})
        cells.append(Cell(lines, end - start))
    note = (
        f"a block is its steps, {Step.size} bytes each; their {len(used)} handlers have {sum(used.values())} bytes and "
        f"serve all blocks. rcx: the step, {PINNED}"
    )
    return Column("interpreter: steps, handlers in x86-64", cells, int(block.size), note)


def superinstructions(context: Context) -> Column:
    """The interpreter's code for steps that run as one where the block is hot; compiled now, if it is not yet."""
    from dbt.engine.joiner import Joiner

    engine = cast("Interpreter", context.engine)
    joiner = engine.joiner = Joiner(engine)
    engine.ctx.mode = int(engine.ctx.mode) | MODE_HOT  # blocks count their entries where something is missing
    engine.flush()
    for _ in range(2):  # the first time the file is loaded, if there is one
        context.translate()
        joiner.hot(context.pc)
    joiner.finish()
    engine.flush()
    context.translate()
    block, offsets = context.block, context.offsets()
    known = _superinstructions(context)
    cells: list[Cell] = []
    part_of, size = 0, 0  # instructions that are parts of the last one still; bytes of all
    for item, start in zip(context.items, offsets, strict=True):
        step = Step.at(int(block.code) + start)
        found = known.get(int(step.handler)) if not item.second else None
        if found is not None:
            part_of, count = found
            host = disassemble("x86_64", ctypes.string_at(int(step.handler), count), int(step.handler))
            lines = annotated(host, {_ENV: context.place, _STEP: _step_field})
            cells.append(Cell([f"({part_of} steps as one)", *lines], count))
            size += count
        else:
            alone = "(the next part)" if part_of > 0 or item.second else "(alone)"
            cells.append(Cell([alone]))
        part_of -= not item.fused
    note = "a hot block runs these in the place of their first step's handler; they have the operands inside"
    return Column("interpreter: superinstructions", cells, size, note)


COLUMNS: dict[str, Callable[[Context], Column]] = {
    "reference": reference, "interpreter": interpreter, "baseline": baseline,
}  # fmt: skip


def _handlers(context: Context) -> dict[int, tuple[str, int]]:
    """(what it is for, bytes of code) of each handler, by its host address."""
    ctx = context.engine.ctx
    head = PackHead.at(int(ctx.pack))
    indices = (
        (int(ctx.stencils), int(head.n_forms) * VARIANTS, ""),
        (int(ctx.fused), int(head.n_fusable) * CONDITIONS * FUSED_VARIANTS, ""),
        (int(ctx.special), N_SPECIAL, "special"),
    )
    found = {}
    for table, count, kind in indices:
        for number, offset in enumerate((ctypes.c_uint32 * count).from_address(table)):
            if offset:
                at = int(ctx.pack) + offset
                stencil = StencilHead.at(at)
                name = _SPECIALS.get(number, "") if kind else ""
                found[at + int(stencil.code)] = (name, int(stencil.code_size))
    return found


def _superinstructions(context: Context) -> dict[int, tuple[int, int]]:
    """(steps, bytes of code) of each superinstruction that is loaded, by its host address."""
    supers = int(context.engine.ctx.supers)
    found = {}
    if supers:
        head = SuperHead.at(supers)
        at = supers + int(head.entries)
        for _ in range(int(head.n_entries)):
            entry = SuperEntry.at(at)
            if entry.head:
                code = StencilHead.at(supers + int(entry.head))
                found[supers + int(entry.head) + int(code.code)] = (int(entry.n), int(code.code_size))
            at += SuperEntry.size + int(entry.n) * PART_KEY
    return found


def _step_text(context: Context, step: Step, offset: int, name: str, *, fused: bool) -> str:
    """A step's operands, as far as its form has any."""
    record, pack = step.record, int(context.engine.ctx.pack)
    form = context.guest.tables.forms[int(record.form)] if not name else None
    parts = [f"handler +{int(step.handler) - pack:#x}"]
    if form is not None:
        parts += [f"r{token} {context.place(int(record.r[token]))}" for token in tokens(form.template)]
        names = {op.name for op in form.template.ops}
        parts += [f"imm {int(record.imm):#x}"] if "imm" in names else []
        if fused or names & {"imm2", "goto", "goto_if"}:
            parts.append(f"target {int(record.target):#x}")
    elif name == "jump":
        parts.append(f"target {int(record.target):#x}")
    parts.append(f"pc {int(record.pc):#x}")
    return f"(step +{offset}{': ' + name if name else ''}: {', '.join(parts)})"


def _step_field(offset: int) -> str:
    """What is at an offset from a step."""
    number, inside = divmod(offset, Step.size)
    of = "" if not number else "next step's " if number == 1 else f"step +{number}'s "
    start = Step.offset("record")
    fields = {**Step.field_offsets, **{name: start + at for name, at in Record.field_offsets.items()}}
    del fields["record"]
    at, name = max((at, name) for name, at in fields.items() if at <= inside)
    return f"{of}{name}[{(inside - at) // 2}]" if name == "r" else of + name
