"""`dragoman explain`: one block as guest code, IR, optimised IR and what the engines make of it, side by side.

An engine adds a column with a function in ENGINES; it gets the block's records and returns a cell for each of them.
Instructions that an engine makes one of (a fused pair) share the cell of the first.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import time
from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.engine.layout import (
    EXIT_NAMES,
    EXIT_STENCIL,
    EXIT_UNDEFINED,
    NO_FLAGS,
    POLL,
    WIDE,
    Block,
    Record,
)
from dbt.errors import UsageError
from dbt.ir.text import format_op

from .assembly import Line, disassemble
from .commands import load
from .page import page
from .symbols import Names

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import TextIO

    from dbt.engine.baseline import Baseline
    from dbt.frontends.forms import Form
    from dbt.frontends.guest import Guest
    from dbt.ir.values import Template
    from dbt.linux.process import Process
    from dbt.run import RunOptions

_VARIANTS: Final = ((NO_FLAGS, "flags not needed"), (WIDE, "64-bit immediates"), (POLL, "polls"))
_REPEATS: Final = 300
FUSED: Final = "fused with the one above"


class Item(NamedTuple):
    """One instruction of the block, with its record."""

    form: Form
    variant: int
    r: tuple[int, ...]
    imm: int
    target: int
    line: Line
    fused: bool  # it and the next one are one stencil
    second: bool  # the next one


class Cell(NamedTuple):
    """What an engine has for an instruction: lines of text, and how many bytes (0: that says nothing)."""

    lines: list[str]
    size: int = 0


class Column(NamedTuple):
    """An engine's part: `head` is for code in front of the first instruction."""

    name: str
    cells: list[Cell]
    size: int = 0
    note: str = ""


class Explanation(NamedTuple):
    """A block with all that is known of it."""

    program: str
    name: str  # symbol and offset
    pc: int
    items: list[Item]
    ir: list[list[str]]
    optimised: list[list[str]]
    columns: list[Column]
    stages: list[tuple[str, float]]  # (stage, microseconds)

    @property
    def size(self) -> int:
        """Of the guest's code in bytes."""
        return sum(len(item.line.code) for item in self.items)


class Context:
    """What an engine's function gets."""

    def __init__(self, process: Process, guest: Guest, pc: int) -> None:
        self.process: Final = process
        self.guest: Final = guest
        self.pc: Final = pc
        self.items: list[Item] = []
        info = process.cpu.info
        self.registers: Final = {
            offset: name for name, (offset, _size) in reversed(info.registers.items()) if name[0] != "w"
        }

    @property
    def baseline(self) -> Baseline:
        found = self.process.cpu.baseline
        assert found is not None
        return found

    def place(self, offset: int) -> str:
        """A place in Env.guest by name."""
        for distance in range(16):
            name = self.registers.get(offset - distance)
            if name is not None and (name[0] == "v" or distance < 8):
                return f"{name}+{distance}" if distance else name
        return {248: "zero", 264: "junk"}.get(offset, f"@{offset}")

    def template(self, item: Item, following: Item | None) -> Template:
        """The IR of an instruction (or a fused pair) after the passes."""
        from dbt.backends.llvm.stencils import Request, template_of

        second = following.form.id if item.fused and following is not None else -1
        return template_of(self.guest, Request(item.form.id, item.variant & ~POLL, second))


# ---- engines


def baseline(context: Context) -> Column:
    """Host code as it was emitted, cut at the instructions."""
    engine = context.baseline
    block = find_block(engine, context.pc)
    offsets = (ctypes.c_uint16 * int(block.n)).from_address(int(engine.ctx.offsets) + 2 * int(block.first))
    ends = [*offsets[1:], int(block.size)]
    code = ctypes.string_at(int(block.code), int(block.size))
    cells = []
    for item, start, behind in zip(context.items, offsets, ends, strict=True):
        if item.second:
            cells.append(Cell([]))
            continue
        end = int(block.size) if item.fused else behind
        lines = disassemble("x86_64", code[start:end], int(block.code) + start)
        cells.append(Cell([_annotated(context, line.text) for line in lines], end - start))
    note = "rdi: registers, rsi: memory base, rdx: address mask, r12 r13 r14 r15: flag words n z c v"
    return Column("baseline: x86-64", cells, int(block.size), note)


def reference(context: Context) -> Column:
    """The Python that the reference engine runs."""
    from dbt.backends.reference.generate import generate

    cells = [Cell([line[4:] for line in generate(i.form.template).splitlines()[1:]]) for i in context.items]
    return Column("reference: Python", cells, 0, "r: register tokens, G64: the register file")


ENGINES: dict[str, Callable[[Context], Column]] = {"baseline": baseline, "reference": reference}


def _annotated(context: Context, text: str) -> str:
    """Host code with the names of guest registers."""
    found = re.search(r"\[rdi(?: \+ (0x[0-9a-f]+|\d+))?\]", text)
    if found is None:
        return text
    offset = int(found[1] or "0", 0)
    return f"{text}  ; {context.place(offset)}" if offset < 2048 else text


def find_block(engine: Baseline, pc: int) -> Block:
    """The block at a guest address, which has been translated."""
    for number in range(int(engine.ctx.n_blocks)):
        block: Block = Block.at(int(engine.ctx.blocks) + number * Block.size)
        if block.pc == pc:
            return block
    raise AssertionError(hex(pc))


# ---- making


def make(process: Process, pc: int, engines: list[str]) -> Explanation:
    """Explain the block at `pc`."""
    from dbt.frontends.guest import load_guest

    guest = load_guest(process.cpu.info.name)
    context = Context(process, guest, pc)
    n, size = _translate(context)
    # Once more behind what follows it, so that the records that are left in Ctx.records are those of this block.
    context.baseline.flush()
    if not _is_translated(context, pc + size):
        process.cpu.set_stops({pc + size})
    _translate(context)
    context.items = _items(context, n)
    ir, optimised = [], []
    for item, following in zip(context.items, [*context.items[1:], None], strict=True):
        ir.append(operations(context, item, item.form.template))
        text = (
            [f"({FUSED})"] if item.second else operations(context, item, context.template(item, following), following)
        )
        optimised.append(text)
    columns = [ENGINES[name](context) for name in engines]
    area = process.cpu.memory.area_at(pc)
    path = area.name if area is not None else ""
    base = min((a.start for a in process.cpu.memory.areas if a.name == path), default=0)
    name = Names().at(path, pc - base)
    return Explanation(process.exe, name, pc, context.items, ir, optimised, columns, _stages(context, size))


def _translate(context: Context) -> tuple[int, int]:
    """Translate the block; how many instructions and bytes it has. Raises UsageError where there is no code."""
    engine, pc = context.baseline, context.pc
    if not _is_translated(context, pc):
        reason = int(context.process.cpu.env.exit)
        what = "no instruction" if reason == EXIT_UNDEFINED else f"nothing to show ({EXIT_NAMES[reason]})"
        raise UsageError(f"explain: there is {what} at {pc:#x}", "Give the address of code, or a function's name.")
    block = find_block(engine, pc)
    return int(block.n), int(block.guest_size)


def _is_translated(context: Context, pc: int) -> bool:
    """Translate the block at `pc`; False if that is not possible, for the reason in Env.exit."""
    engine, cpu = context.baseline, context.process.cpu
    if cpu.memory.code_changed:
        engine._tell_mappings()  # noqa: SLF001 - as Baseline.run does
    while not engine.runtime.translate_at(cpu.env_address, pc):
        if int(cpu.env.exit) != EXIT_STENCIL or not engine._compile(int(cpu.env.value)):  # noqa: SLF001
            return False
    return True


def _items(context: Context, n: int) -> list[Item]:
    engine, forms = context.baseline, context.guest.tables.forms
    block = find_block(engine, context.pc)
    offsets = (ctypes.c_uint16 * n).from_address(int(engine.ctx.offsets) + 2 * int(block.first))
    code = context.process.cpu.memory.read(context.pc, int(block.guest_size))
    lines = disassemble(context.process.cpu.info.name, code, context.pc)
    fused = n > 1 and offsets[n - 2] == offsets[n - 1]
    items = []
    for i, line in enumerate(lines):
        r = Record.at(int(engine.ctx.records) + i * Record.size)
        target = int(r.target)
        items.append(
            Item(forms[r.form], int(r.variant), tuple(r.r), int(r.imm), target, line, fused and i == n - 2,
                 fused and i == n - 1)
        )  # fmt: skip
    return items


def operations(context: Context, item: Item, template: Template, following: Item | None = None) -> list[str]:
    """The IR with the instruction's registers and numbers in the place of tokens."""
    end = following if following is not None and item.fused else item
    npc = end.line.address + len(end.line.code)
    numbers = {"imm": item.imm, "imm2": item.target, "pc": end.line.address, "npc": npc}
    found = []
    for op in template.ops:
        text = format_op(op)
        text = re.sub(
            r"\[r(\d)(?:\+(\d+))?\]", lambda m: f"[{context.place(item.r[int(m[1])] + int(m[2] or 0))}]", text
        )
        text = re.sub(r"\[@(\d+)\]", lambda m: f"[{context.place(int(m[1]))}]", text)
        if op.name in numbers:
            text += f" {_number(numbers[op.name])}"
        if op.name in ("goto", "goto_if"):
            text += f" -> {end.target:#x}"
        found.append(text)
    return found


def _number(value: int) -> str:
    return hex(value) if abs(value) > 9 else str(value)


def _stages(context: Context, size: int) -> list[tuple[str, float]]:
    """Microseconds for the block: decoding alone, and all of translation."""
    engine = context.baseline
    runtime, ctx, env = engine.runtime, engine.ctx_address, context.process.cpu.env_address
    seen = (ctypes.c_uint8 * (len(context.guest.tables.forms) * 17))()
    at = ctypes.addressof(seen)
    pairs = at + len(context.guest.tables.forms)

    def best(work: Callable[[], object]) -> float:
        times = []
        for _ in range(_REPEATS):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return 1e6 * min(times)

    def whole() -> None:
        runtime.flush(ctx)
        runtime.translate_at(env, context.pc)

    nothing = best(lambda: runtime.scan(ctx, context.pc, 0, at, pairs))
    decode = best(lambda: runtime.scan(ctx, context.pc, size, at, pairs)) - nothing
    before = int(engine.ctx.n_instructions)
    whole()
    share = len(context.items) / (int(engine.ctx.n_instructions) - before)  # blocks that it falls into come with it
    both = share * (best(whole) - best(lambda: runtime.flush(ctx)))
    form = context.items[0].form
    count = len(form.template.ops)

    def lifted() -> None:
        form._lifted = None  # noqa: SLF001 - measured: the semantics function runs again
        assert form.template

    lift = best(lifted)
    return [
        ("decode", max(decode, 0.0)),
        ("liveness, variants, emit", max(both - decode, 0.0)),
        (f"semantics to IR of {form.name}, {count} ops, once for all", lift),
    ]


def resolve(process: Process, at: str | None) -> int:
    """A guest address from a number or a symbol with an offset; None: the entry point."""
    if at is None:
        return int(process.cpu.env.pc)
    word, plus, distance = at.partition("+")
    try:
        offset = int(distance, 0) if plus else 0
        if word[:1].isdigit():
            return int(word, 0) + offset
    except ValueError:
        raise UsageError(f"explain: {at!r} is no address", "For example: 0x400580, main, main+0x10.") from None
    for path in dict.fromkeys(area.name for area in process.cpu.memory.areas if area.name[:1] == "/"):
        found = Names().file(path).offset(word)
        if found is not None:
            return found + offset + min(area.start for area in process.cpu.memory.areas if area.name == path)
    raise UsageError(f"explain: no function {word!r} in {process.exe}", "Give its address, if symbols are stripped.")


# ---- showing


def remarks(item: Item) -> str:
    """What was chosen for an instruction."""
    chosen = [name for bit, name in _VARIANTS if item.variant & bit]
    if item.fused:
        chosen.append("fused with the next one")
    return ", ".join(chosen)


def text(found: Explanation, width: int) -> str:
    """For a terminal."""
    columns = ["IR", "optimised IR", *(c.name for c in found.columns)]
    each = max((width - 2 - 3 * (len(columns) - 1)) // len(columns), 16)
    rule = "─" * width
    sizes = "".join(f", {c.size} bytes of {c.name}" for c in found.columns if c.size)
    lines = [f"{found.name} in {found.program}: {len(found.items)} instructions, {found.size} bytes{sizes}"]
    lines += [f"  {stage}: {microseconds:.2f} µs" for stage, microseconds in found.stages]
    lines += [f"  {c.name}: {c.note}" for c in found.columns if c.note]
    lines += [rule, "  " + " │ ".join(name.ljust(each) for name in columns).rstrip()]
    for i, item in enumerate(found.items):
        sizes = ", ".join(f"{c.cells[i].size} bytes" for c in found.columns if c.cells[i].size)
        tail = "; ".join(part for part in (sizes, remarks(item)) if part)
        word = item.line.code[::-1].hex()
        lines += [rule, f"{item.line.address:#x}  {word}  {item.line.text:<36} {tail}".rstrip()]
        cells = [found.ir[i], _or_same(found.ir[i], found.optimised[i]), *(_cell(c, item, i) for c in found.columns)]
        for k in range(max(map(len, cells))):
            parts = [_fit(cell[k], each) if k < len(cell) else " " * each for cell in cells]
            lines.append(("  " + " │ ".join(parts)).rstrip())
    return "\n".join([*lines, rule]) + "\n"


def _or_same(before: list[str], after: list[str]) -> list[str]:
    return ["(the same)"] if before and before == after else after


def _cell(column: Column, item: Item, i: int) -> list[str]:
    return [f"({FUSED})"] if item.second and column.size else column.cells[i].lines


def _fit(line: str, width: int) -> str:
    return line.ljust(width) if len(line) <= width else line[: width - 1] + "…"


_STYLE: Final = """
.facts { display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0; }
.fact { padding: 10px 16px; } .fact b { display: block; font-size: 19px; font-weight: 600; }
.scroll { overflow-x: auto; }
.grid { display: grid; min-width: 1100px; }
.grid > div { padding: 8px 14px; border-bottom: 1px solid var(--line); border-right: 1px solid var(--line);
  min-width: 0; } .grid > div.last { border-right: 0; }
.grid .title { font-weight: 600; background: var(--back); position: sticky; top: 0; }
.grid pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; padding-left: 2ch; text-indent: -2ch; }
.guest { font-weight: 600; } .badge { display: inline-block; font-size: 11.5px; margin: 4px 6px 0 0; padding: 0 8px;
  border-radius: 9px; background: var(--bar); }
.bytes { float: right; font-size: 11.5px; color: var(--dim); margin-left: 8px; }
.op { color: var(--accent); } .note { color: var(--dim); white-space: nowrap; }
h1 code { font-size: inherit; }
"""


def html(found: Explanation) -> str:
    """For a browser."""
    name, program = escape(found.name), escape(found.program)
    parts = [f"<h1><code>{name}</code></h1>", f'<p class="dim">{program}, block at {found.pc:#x}</p>']
    facts = [(f"{len(found.items)}", "guest instructions"), (f"{found.size} bytes", "guest code")]
    each = [(c, c.size / len(found.items)) for c in found.columns if c.size]
    facts += [(f"{c.size} bytes", f"{c.name}, {size:.1f} for an instruction") for c, size in each]
    facts += [(f"{microseconds:.2f} µs", stage) for stage, microseconds in found.stages]
    parts.append('<div class="facts">')
    parts += [f'<div class="panel fact"><b>{escape(b)}</b><span class="dim">{escape(t)}</span></div>' for b, t in facts]
    titles = ["guest", "IR", "optimised IR", *(c.name for c in found.columns)]
    shape = f"grid-template-columns: minmax(250px, 1.1fr) repeat({len(titles) - 1}, minmax(0, 1.5fr))"
    parts += ["</div>", f'<div class="panel scroll"><div class="grid" style="{shape}">']
    parts += [_div("title" + _last(i, titles), escape(title)) for i, title in enumerate(titles)]
    for i, item in enumerate(found.items):
        badges = "".join(f'<span class="badge">{escape(r)}</span>' for r in remarks(item).split(", ") if r)
        where = f'<span class="bytes">{item.line.code[::-1].hex()}</span>'
        where += f'<span class="dim mono">{item.line.address:#x}</span>'
        parts.append(_div("", f'{where}<pre class="guest">{escape(item.line.text)}</pre>{badges}'))
        cells = [Cell(found.ir[i]), Cell(_or_same(found.ir[i], found.optimised[i]))]
        cells += [Cell(_cell(c, item, i), c.cells[i].size) for c in found.columns]
        for k, cell in enumerate(cells):
            size = f'<span class="bytes">{cell.size} bytes</span>' if cell.size else ""
            body = "".join(f"<pre>{_coloured(line)}</pre>" for line in cell.lines)
            parts.append(_div(_last(k + 1, titles).strip(), size + body))
    parts.append("</div></div>")
    parts += [f'<p class="dim">{escape(c.name)}: {escape(c.note)}</p>' for c in found.columns if c.note]
    return page(f"{found.name} explained", _STYLE, "\n".join(parts))


def _last(i: int, titles: list[str]) -> str:
    return " last" if i == len(titles) - 1 else ""


def _div(style: str, body: str) -> str:
    return f'<div class="{style}">{body}</div>' if style else f"<div>{body}</div>"


def _coloured(line: str) -> str:
    """The operation in colour, comments dimmed."""
    if line.startswith("("):
        return f'<span class="note">{escape(line)}</span>'
    code, semicolon, comment = line.partition("  ;")
    result, equals, rest = code.partition(" = ") if code.startswith("%") else ("", "", code)
    word, space, tail = rest.partition(" ")
    shown = f'{escape(result + equals)}<span class="op">{escape(word)}</span>{escape(space + tail)}'
    return shown + (f'<span class="note">{escape(semicolon + comment)}</span>' if semicolon else "")


def explain(options: argparse.Namespace, run_options: RunOptions, out: TextIO) -> int:
    """The command."""
    names = (options.engines or "baseline").split(",")
    for name in names:
        if name not in ENGINES:
            raise UsageError(
                f"explain: no engine {name!r}", f"One or more of {','.join(ENGINES)}, with commas between."
            )
    process = load(run_options)
    found = make(process, resolve(process, options.at), names)
    if options.html:
        with open(options.html, "w", encoding="utf-8") as file:
            file.write(html(found))
    else:
        out.write(text(found, options.width or max(shutil.get_terminal_size((120, 24)).columns, 60)))
    return 0


__all__ = ["ENGINES", "Cell", "Column", "Context", "Explanation", "Item", "explain", "html", "make", "text"]
