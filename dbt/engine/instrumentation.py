"""The engines' side of instrumentation (dbt/instrument): asks the plugins, has their code compiled, serves events.

The native runtime leaves with EXIT_INSTRUMENT for a block whose insertions it does not know; `insert` fills
Ctx.insertions in. Each insertion is a stencil, made from the template of a snippet: numbers are holes, so the same
stencil serves all counters. Stencils lie behind the stencil pack, and in files of the cache, by the hash of their
template. The reference engine calls `before` and evaluates the same templates.
"""

from __future__ import annotations

import ctypes
import hashlib
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from dbt.errors import InternalError, UserError
from dbt.instrument import Block, Event, Instruction, Plugin, Ring, Snippet

from . import layout
from .layout import (
    EXIT_BUDGET,
    MAX_BLOCK,
    MAX_INSERTIONS,
    MODE_ALL_FLAGS,
    MODE_COUNT,
    MODE_HOT,
    MODE_INSTRUMENT,
    MODE_STEPS,
    NUMBERS,
    TOKENS,
    FormInfo,
    Record,
    StencilHead,
    Step,
)
from .runtime import PACK_RESERVE, SNIPPET_ROOM

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from dbt.frontends.forms import Form
    from dbt.ir.values import Template

    from .cpu import Cpu

_INSERTION = Struct(f"<II{TOKENS}HI{NUMBERS}q")
_RECORD = Struct(f"<HBB{TOKENS}HqqQ")
_MASK64 = (1 << 64) - 1
_ROOM = 1 << 15  # host bytes of a block's insertions
_STEPS_ROOM = 60_000  # the same on the interpreter: places in a block are 16-bit offsets
_HEAD = Struct("<QQ")  # of a file: magic, checksum of the rest
_MAGIC = 0x3150494E53474144  # 'DAGSNIP1', little-endian


class Decoded(NamedTuple):
    """A record of the runtime."""

    form: int
    length: int
    r: tuple[int, ...]
    imm: int
    target: int
    pc: int


class Pending(NamedTuple):
    """An event that Python has seen, of an instruction that has not run yet."""

    pc: int
    site: int
    flushes: int
    left: int  # instructions of the block from this one on


PlainStep = tuple["Callable[..., int]", "Sequence[int]", int, int, int, int, "list[int]"]


class Instrumentation:
    """Plugins of one CPU and what they have inserted."""

    def __init__(self, cpu: Cpu) -> None:
        self.cpu = cpu
        self.plugins: list[Plugin] = []
        self.enter_reason = 0
        self._events: list[tuple[Callable[..., object], Instruction | None, int]] = []
        self._numbers: dict[tuple[Callable[..., object], int], int] = {}
        self._stencils: dict[str, int] = {}  # by the text of the template: offset from the pack
        self._used = 0  # bytes of the room behind the pack
        self._hot = 0  # MODE_HOT, if it was on before
        self._changes = 0  # of the list of plugins
        self._pending: Pending | None = None
        self._quiet = False
        self._steps: dict[int, list[PlainStep]] = {}  # of the block that the reference engine is in
        self._plain: dict[int, tuple[bytes, dict[int, list[PlainStep]]]] = {}  # all its blocks, with their bytes
        self._expected = -1
        self._fields: list[int] = [0] * NUMBERS
        self._namespace: dict[str, object] | None = None
        self._functions: dict[str, Callable[..., int]] = {}
        self._guest: Any = None

    # ---- plugins

    def add(self, plugin: Plugin) -> None:
        """From the next boundary on, `plugin` sees what runs, also what is translated already."""
        if plugin in self.plugins:
            raise UserError("this plugin is in use already", "Make another one.")
        self.plugins.append(plugin)
        self._changed()

    def remove(self, plugin: Plugin) -> None:
        """From the next boundary on, nothing that `plugin` inserted runs. What rings hold is drained."""
        if plugin not in self.plugins:
            raise UserError("this plugin is not in use", "Each plugin can be removed once.")
        self.plugins.remove(plugin)
        rings = self._rings()
        self._changed()
        for ring in rings:
            ring.flush()

    def _changed(self) -> None:
        """All translations are forgotten: blocks ask again. Never while translated code runs: Python is running."""
        self._changes += 1
        # Numbers are in the code that is forgotten; what is recorded in a ring of a plugin in use stays to be drained.
        kept = self._rings() if self.plugins else set()
        self._events = [(ring.flush, None, 0) for ring in kept]
        self._numbers = {(ring.flush, -1): number for number, ring in enumerate(kept)}
        self._plain.clear()
        self._expected = -1
        if self.cpu._reference is not None:  # noqa: SLF001
            self.cpu._reference.before = self.before if self.plugins else None  # noqa: SLF001
        baseline = self.cpu.baseline
        if baseline is not None:
            mode = int(baseline.ctx.mode) & ~(MODE_INSTRUMENT | MODE_ALL_FLAGS)
            if self.plugins:
                self._hot |= mode & MODE_HOT  # regions have no insertions: none are made while a plugin is in use
                mode &= ~MODE_HOT
            else:
                mode, self._hot = mode | self._hot, 0
            if self.plugins:
                mode |= MODE_INSTRUMENT | (MODE_ALL_FLAGS if any(p.exact for p in self.plugins) else 0)
            baseline.ctx.mode = mode
            baseline.ctx.n_insertions = 0
            baseline.ctx.instrumented = _MASK64
            baseline.flush()

    def forked(self) -> None:
        """In a forked child: what is in the rings is the parent's to report."""
        for ring in self._rings():
            ring.clear()
        for plugin in list(self.plugins):
            plugin.forked()

    def replaced(self) -> None:
        """The guest's memory is about to be replaced (exec)."""
        self._pending = None
        for plugin in list(self.plugins):
            plugin.replaced()
        self._changed()

    def finish(self) -> None:
        """The guest has ended."""
        for ring in self._rings():
            ring.flush()
        for plugin in list(self.plugins):
            plugin.finish()

    def _rings(self) -> set[Ring]:
        owners = (getattr(function, "__self__", None) for function, _instruction, _left in self._events)
        return {owner for owner in owners if isinstance(owner, Ring)}

    def close(self) -> None:
        """The CPU is closed: nothing that was inserted can run any more."""
        self.plugins.clear()
        self._events.clear()

    # ---- running

    def enter(self) -> bool:
        """Before the native runtime runs: go on behind an event. True: leave with `enter_reason` instead."""
        self._expected = -1
        pending, self._pending = self._pending, None
        baseline = self.cpu.baseline
        if pending is None or baseline is None or int(self.cpu.env.pc) != pending.pc:
            return False
        ctx = baseline.ctx
        if _changes_of(ctx) == pending.flushes:
            ctx.resume = pending.site
            return False
        # The code behind the event is gone. What was inserted has run, the instruction has not.
        if ctx.mode & MODE_COUNT:
            self.cpu.env.budget += pending.left - 1
        self._quiet = True
        try:
            executed = self.cpu.executed
            reason = self.cpu.interpret(1)
            self.cpu.executed = executed
        finally:
            self._quiet = False
        self.enter_reason = reason
        return bool(reason != EXIT_BUDGET)

    def event(self) -> None:
        """EXIT_EVENT: call whom it is for. An exception goes to the caller of `run`, which may go on afterwards."""
        env = self.cpu.env
        function, instruction, left = self._events[int(env.value)]
        baseline = self.cpu.baseline
        assert baseline is not None
        env.value = 0
        self._pending = pending = Pending(int(env.pc), int(env.site), _changes_of(baseline.ctx), left)
        try:
            self._call(function, instruction)
        except BaseException:
            if baseline.ctx.mode & MODE_COUNT:  # the rest of the block has not run, though it was counted
                env.budget += left
                self._pending = pending._replace(flushes=-1, left=0)
            raise

    def _call(self, function: Callable[..., object], instruction: Instruction | None) -> None:
        if instruction is None:
            function()
        else:
            function(Event(instruction, self.cpu))

    def number_of(self, function: Callable[..., object], instruction: Instruction) -> int:
        """The number by which inserted code asks for a call; a ring's has no instruction."""
        is_ring = isinstance(getattr(function, "__self__", None), Ring)
        key = (function, -1 if is_ring else instruction.pc)
        number = self._numbers.get(key)
        left = len(instruction.block.instructions) - instruction.index
        entry = (function, None if is_ring else instruction, left)
        if number is None:
            number = self._numbers[key] = len(self._events)
            self._events.append(entry)
        elif not is_ring:
            self._events[number] = entry
        return number

    # ---- native code

    def insert(self) -> None:
        """EXIT_INSTRUMENT: ask the plugins about the block at env.pc, and tell the runtime."""
        env = self.cpu.env
        baseline = self.cpu.baseline
        assert baseline is not None
        ctx, pc = baseline.ctx, int(env.pc)
        records = self._records(int(ctx.records), int(env.value))
        block = self._block(pc, records)
        snippets = block.ordered()
        if len(snippets) > MAX_INSERTIONS:
            raise UserError(f"{len(snippets)} insertions in the block at {pc:#x}", f"At most {MAX_INSERTIONS}.")
        templates = [s.template() for s in snippets]
        texts = [t.text() for t in templates]
        self._compile({text: t for text, t in zip(texts, templates, strict=True) if text not in self._stencils}, block)
        data, room = [], 0
        for snippet, text in zip(snippets, texts, strict=True):
            record = records[snippet.instruction.index]
            tokens = [record.r[k] for k in snippet.tokens] + [0] * (TOKENS - len(snippet.tokens))
            stencil = self._stencils[text]
            steps = int(ctx.mode) & MODE_STEPS
            room += 2 * Step.size if steps else int(StencilHead.at(int(ctx.pack) + stencil).code_size)
            data.append(_INSERTION.pack(snippet.instruction.index, stencil, *tokens, 0, *_signed(snippet.numbers)))
        limit = _STEPS_ROOM if int(ctx.mode) & MODE_STEPS else _ROOM
        if room > limit:
            raise UserError(f"{room} bytes are inserted into the block at {pc:#x}", f"At most {limit}.")
        ctypes.memmove(int(ctx.insertions), b"".join(data), sum(map(len, data)))
        ctx.n_insertions = len(data)
        ctx.instrumented = pc

    def _records(self, address: int, n: int) -> list[Decoded]:
        data = ctypes.string_at(address, n * Record.size)
        return [
            Decoded(form, length, tuple(rest[:TOKENS]), rest[TOKENS], rest[TOKENS + 1], rest[TOKENS + 2])
            for form, _variant, length, *rest in _RECORD.iter_unpack(data)
        ]

    def _block(self, pc: int, records: Sequence[Decoded]) -> Block:
        """Show a block to the plugins."""
        forms = self._forms()
        block = Block(self.cpu, pc, self.number_of)
        for index, record in enumerate(records):
            form = forms[record.form]
            ends = self._ends(form)
            block.instructions.append(Instruction(block, index, record.pc, record.length, form, ends))
        for plugin in list(self.plugins):
            block.exact = plugin.exact
            plugin.block(block)
        return block

    def _forms(self) -> Sequence[Form]:
        if self._guest is None:
            from dbt.frontends.guest import load_guest

            self._guest = load_guest(self.cpu.info.name)
        forms: Sequence[Form] = self._guest.tables.forms
        return forms

    def _ends(self, form: Form) -> int:
        baseline = self.cpu.baseline
        if baseline is None:
            return int(self._guest.tables.metadata(form).ends)
        return int(FormInfo.at(int(baseline.ctx.forms) + form.id * FormInfo.size).ends)

    # ---- stencils

    def _compile(self, missing: dict[str, Template], block: Block) -> None:
        """Take stencils from the cache, or have the worker make them, with those that other blocks will want."""
        baseline = self.cpu.baseline
        assert baseline is not None
        store = baseline.store
        wanted = {text: t for text, t in missing.items() if not self._load(text, baseline.job)}
        if not wanted:
            return
        store.build([("snippets", baseline.job, "".join({**wanted, **self._siblings(block)}))])
        for text in wanted:
            if not self._load(text, baseline.job):
                raise InternalError(f"inserted code is not compiled:\n{text}")

    def _siblings(self, block: Block) -> dict[str, None]:
        """Where addresses of accesses are looked at: the same for the other forms of the guest's code in memory."""
        baseline = self.cpu.baseline
        assert baseline is not None
        found: dict[str, None] = {}
        for snippet in block.inserted:
            again = snippet.again
            if again is not None:
                for form in self._forms_in_memory():
                    found.update(dict.fromkeys(again(form)))
                break
        return found

    def _forms_in_memory(self) -> list[Form]:
        """The forms that occur in executable memory and access memory."""
        baseline = self.cpu.baseline
        assert baseline is not None
        forms = self._forms()
        seen = (ctypes.c_uint8 * (len(forms) * (1 + layout.CONDITIONS)))()
        at = ctypes.addressof(seen)
        for start, end, _prot in self.cpu.memory.executable_ranges():
            baseline.runtime.scan(baseline.ctx_address, start, end - start, at, at + len(forms))
        infos = int(baseline.ctx.forms)
        return [f for f in forms if seen[f.id] and FormInfo.at(infos + f.id * FormInfo.size).accesses]

    def _load(self, text: str, kind: str) -> bool:
        """Put a stencil or handler from the cache behind the pack; False if there is none, or a damaged one."""
        baseline = self.cpu.baseline
        assert baseline is not None
        name = file_name(text, kind)
        try:
            with open(baseline.store.open(name), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return False
        if len(data) < _HEAD.size or _HEAD.unpack_from(data) != (_MAGIC, crc32(data[_HEAD.size :])):
            return False
        taken = baseline.place_snippet(name, data, self._used)
        if self._used + taken > SNIPPET_ROOM:
            raise UserError("too many different insertions", "Pass what differs as a Snippet.constant.")
        self._stencils[text] = PACK_RESERVE - SNIPPET_ROOM + self._used + _HEAD.size
        self._used += taken
        return True

    # ---- the reference engine

    def before(self, pc: int) -> int:
        """Called by the reference engine before each instruction: run what is inserted there; where to go on."""
        if self._quiet:
            return pc
        if pc != self._expected or pc not in self._steps:
            self._steps = self._plain_block(pc)
        self._expected = pc + 4
        pending, self._pending = self._pending, None
        if pending is not None and pending.pc == pc:
            return pc
        env = self.cpu.env
        env.pc = pc
        known = self._changes
        for function, r, imm, target, at, npc, numbers in self._steps.get(pc, ()):
            self._fields[:] = numbers
            function(r, imm, target, at, npc)
            if self._changes != known:
                break
        moved = int(env.pc)
        return moved if moved == pc else self.before(moved)

    def _plain_block(self, pc: int) -> dict[int, list[PlainStep]]:
        """Insertions of the block at `pc` by address. Where nothing can be decoded, the engine will say so."""
        from dbt.errors import GuestFault

        code, steps = self._plain.get(pc, (b"", {}))
        try:
            if code and self.cpu.memory.read(pc, len(code)) == code:
                return steps
        except GuestFault:
            pass
        self._forms()
        tables = self._guest.tables
        records: list[Decoded] = []
        at = pc
        while len(records) < MAX_BLOCK:
            try:
                found = tables.decode(int.from_bytes(self.cpu.memory.read(at, 4), "little"), at)
            except GuestFault:
                break
            if not found.form.id:
                break
            r, imm, target = found.r, found.imm & _MASK64, found.target & _MASK64
            records.append(Decoded(found.form.id, found.length, r, imm, target, at))
            at += found.length
            if self._ends(found.form):
                break
        steps = {record.pc: [] for record in records}
        if records:
            for snippet in self._block(pc, records).ordered():
                steps[snippet.instruction.pc].append(self._step(snippet, records[snippet.instruction.index]))
            self._plain[pc] = self.cpu.memory.read(pc, at - pc), steps
        return steps

    def _step(self, snippet: Snippet, record: Decoded) -> PlainStep:
        template = snippet.template()
        text = template.text()
        function = self._functions.get(text)
        if function is None:
            from dbt.backends.reference.generate import compile_template

            if self._namespace is None:
                state = self.cpu.reference().state
                self._namespace = {**state.namespace, "numbers": self._fields, "event": self._plain_event}
            function = self._functions[text] = compile_template(template, self._namespace)
        tokens = [record.r[k] for k in snippet.tokens]
        numbers = [*snippet.numbers, *[0] * (NUMBERS - len(snippet.numbers))]
        npc = record.pc + record.length
        return function, tokens, record.imm, record.target, record.pc, npc, numbers

    def _plain_event(self, number: int) -> None:
        function, instruction, left = self._events[number]
        try:
            self._call(function, instruction)
        except BaseException:
            self._pending = Pending(int(self.cpu.env.pc), 0, -1, left)
            raise


def _changes_of(ctx: Any) -> int:
    """A number that is another one when code has been forgotten."""
    return int(ctx.n_flushes) + int(ctx.n_dropped)


def _signed(numbers: list[int]) -> list[int]:
    found = [(n & _MASK64 ^ 1 << 63) - (1 << 63) for n in numbers]
    return found + [0] * (NUMBERS - len(found))


def file_name(text: str, kind: str) -> str:
    """The file of the stencil, or handler, for a template."""
    suffix = "handler" if kind == "handlers" else "snippet"
    return f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.{suffix}"


def file_bytes(blob: bytes) -> bytes:
    """The contents of that file."""
    return _HEAD.pack(_MAGIC, crc32(blob)) + blob
