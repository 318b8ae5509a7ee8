"""A block as its engine translated it: decoded instructions with what was chosen for each, their IR, and times."""

from __future__ import annotations

import ctypes
import re
import time
from typing import TYPE_CHECKING, Final

from dbt.engine.layout import EXIT_NAMES, EXIT_STENCIL, EXIT_UNDEFINED, MODE_HOT, MODE_STEPS, POLL, Block, Env, Record
from dbt.errors import UsageError
from dbt.ir.text import format_op
from dbt.tools.assembly import disassemble
from dbt.tools.symbols import Names

from .engines import COLUMNS, superinstructions, tokens
from .model import FUSED, Explanation, Item

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dbt.engine.baseline import Baseline
    from dbt.frontends.guest import Guest
    from dbt.ir.values import Op, Template
    from dbt.linux.process import Process

_REPEATS: Final = 300


class Context:
    """What an engine's function gets: the process, the guest, the block and its decoded `items`."""

    def __init__(self, process: Process, guest: Guest, pc: int) -> None:
        self.process: Final = process
        self.guest: Final = guest
        self.pc: Final = pc
        self.items: list[Item] = []
        self.place: Final = Naming(process).place

    @property
    def engine(self) -> Baseline:
        """The engine that has translated the block."""
        found = self.process.cpu.baseline
        assert found is not None
        return found

    @property
    def block(self) -> Block:
        """The block, which has been translated."""
        ctx = self.engine.ctx
        for number in range(int(ctx.n_blocks)):
            block: Block = Block.at(int(ctx.blocks) + number * Block.size)
            if block.pc == self.pc:
                return block
        raise AssertionError(hex(self.pc))

    def offsets(self) -> list[int]:
        """Where the code of each instruction begins, in bytes from the start of the block's."""
        ctx, block = self.engine.ctx, self.block
        return list((ctypes.c_uint16 * int(block.n)).from_address(int(ctx.offsets) + 2 * int(block.first)))

    def translate(self) -> bool:
        """Translate the block; False if that is not possible, for the reason in Env.exit."""
        return _is_translated(self, self.pc)

    def template(self, item: Item, following: Item | None) -> Template:
        """The IR of an instruction (or a fused pair) after the passes."""
        from dbt.backends.llvm.stencils import Request, template_of

        second = following.form.id if item.fused and following is not None else -1
        return template_of(self.guest, Request(item.form.id, item.variant & ~POLL, second))


class Naming:
    """Names for places in Env."""

    def __init__(self, process: Process) -> None:
        registers = process.cpu.info.registers
        self._registers: Final = {offset: name for name, (offset, _) in reversed(registers.items()) if name[0] != "w"}
        self._fields: Final = sorted((offset, name) for name, offset in Env.field_offsets.items())

    def place(self, offset: int) -> str:
        """The register, with a distance in bytes, or the field of Env at an offset."""
        for distance in range(16):
            name = self._registers.get(offset - distance)
            if name is not None and (name[0] == "v" or distance < 8):
                return f"{name}+{distance}" if distance else name
        start, field = max((known for known in self._fields if known[0] <= offset), default=(0, "guest"))
        if field == "guest":
            return {248: "zero", 264: "junk"}.get(offset, f"@{offset}")
        return f"{field}+{offset - start}" if offset > start else field


def explain_block(process: Process, pc: int, engines: Sequence[str]) -> Explanation:
    """Explain the block at `pc` of a process that has been loaded. Raises UsageError where there is no code.

    `engines`: of COLUMNS; what they show is as the process's own engine has translated the block.
    """
    from dbt.frontends.guest import load_guest

    context = Context(process, load_guest(process.cpu.info.name), pc)
    ctx = context.engine.ctx
    if int(ctx.mode) & MODE_STEPS:
        ctx.mode = int(ctx.mode) & ~MODE_HOT  # the steps themselves, without the one that counts entries
    n, size = _translate(context)
    # Once more behind what follows it, so that the records that are left in Ctx.records are those of this block.
    context.engine.flush()
    if not _is_translated(context, pc + size):
        process.cpu.set_stops({pc + size})
    _translate(context)
    context.items = _items(context, n)
    ir, optimised = [], []
    for item, following in zip(context.items, [*context.items[1:], None], strict=True):
        ir.append(_item_operations(context, item, item.form.template))
        template = context.template(item, following)
        optimised.append([FUSED] if item.second else _item_operations(context, item, template, following))
    columns = [COLUMNS[name](context) for name in engines]
    stages = _stages(context, size)
    if "interpreter" in engines:
        columns.append(superinstructions(context))  # the block is another one then
    return Explanation(process.exe, name_of(process, pc), pc, context.items, ir, optimised, columns, stages)


def name_of(process: Process, pc: int) -> str:
    """A guest address as a symbol with an offset."""
    area = process.cpu.memory.area_at(pc)
    path = area.name if area is not None else ""
    base = min((a.start for a in process.cpu.memory.areas if a.name == path), default=0)
    return Names().at(path, pc - base)


def no_code(pc: int, what: str) -> UsageError:
    """The error for an address that cannot be explained."""
    return UsageError(f"explain: there is {what} at {pc:#x}", "Give the address of code, or a function's name.")


def _translate(context: Context) -> tuple[int, int]:
    """Translate the block; how many instructions and bytes it has. Raises UsageError where there is no code."""
    if not context.translate():
        reason = int(context.process.cpu.env.exit)
        what = "no instruction" if reason == EXIT_UNDEFINED else f"nothing to show ({EXIT_NAMES[reason]})"
        raise no_code(context.pc, what)
    block = context.block
    return int(block.n), int(block.guest_size)


def _is_translated(context: Context, pc: int) -> bool:
    """Translate the block at `pc`; False if that is not possible, for the reason in Env.exit."""
    engine, cpu = context.engine, context.process.cpu
    if cpu.memory.code_changed:
        engine._tell_mappings()  # noqa: SLF001 - as Baseline.run does
    while not engine.runtime.translate_at(cpu.env_address, pc):
        if int(cpu.env.exit) != EXIT_STENCIL or not engine._compile(int(cpu.env.value)):  # noqa: SLF001
            return False
    return True


def _items(context: Context, n: int) -> list[Item]:
    engine, forms, offsets = context.engine, context.guest.tables.forms, context.offsets()
    code = context.process.cpu.memory.read(context.pc, int(context.block.guest_size))
    lines = disassemble(context.process.cpu.info.name, code, context.pc)
    fused = n > 1 and offsets[n - 2] == offsets[n - 1]
    items = []
    for i, line in enumerate(lines):
        r = Record.at(int(engine.ctx.records) + i * Record.size)
        used = tokens(forms[r.form].template)
        registers = tuple(token if number in used else 0 for number, token in enumerate(r.r))
        first, second = fused and i == n - 2, fused and i == n - 1
        imm, target = int(r.imm), int(r.target)
        items.append(Item(forms[r.form], int(r.variant), registers, imm, target, line, first, second))
    return items


def _item_operations(context: Context, item: Item, template: Template, following: Item | None = None) -> list[str]:
    end = following if following is not None and item.fused else item
    npc = end.line.address + len(end.line.code)
    numbers = {"imm": item.imm, "imm2": item.target, "pc": end.line.address, "npc": npc}
    return operations(template.ops, item.r, numbers, end.target, context.place)


def operations(
    ops: Sequence[Op], r: Sequence[int], numbers: dict[str, int], target: int, place: Callable[[int], str]
) -> list[str]:
    """IR with an instruction's registers and numbers in the place of tokens, a line for each operation.

    `r`: offsets of the registers in Env; `numbers`: what the operations of these names give; `target`: of a branch.
    """
    found = []
    for op in ops:
        text = format_op(op)
        text = re.sub(r"\[r(\d)(?:\+(\d+))?\]", lambda m: f"[{place(r[int(m[1])] + int(m[2] or 0))}]", text)
        text = re.sub(r"\[@(\d+)\]", lambda m: f"[{place(int(m[1]))}]", text)
        if op.name in numbers:
            text += f" {_number(numbers[op.name])}"
        if op.name in ("goto", "goto_if"):
            text += f" -> {target:#x}"
        found.append(text)
    return found


def _number(value: int) -> str:
    return hex(value) if abs(value) > 9 else str(value)


def _stages(context: Context, size: int) -> list[tuple[str, float]]:
    """Microseconds for the block: decoding alone, and all of translation."""
    engine = context.engine
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
    what = "steps" if engine.job == "handlers" else "stencils"
    return [
        ("decode", max(decode, 0.0)),
        (f"liveness, variants, emission of {what}", max(both - decode, 0.0)),
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
