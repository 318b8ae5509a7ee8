"""The engines' side of instrumentation (dbt/instrument): keeps the plugins, shows them blocks, serves events.

What is inserted is native code (inserted.py), or templates that the reference engine evaluates (inserted_plain.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dbt.errors import UserError
from dbt.instrument import Block, Event, Instruction, Plugin, Ring

from .formats import FormInfo
from .inserted import Inserted
from .inserted_plain import PlainInserted
from .layout import EXIT_BUDGET, MODE_ALL_FLAGS, MODE_COUNT, MODE_HOT, MODE_INSTRUMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from dbt.frontends.forms import Form

    from .cpu import Cpu
    from .inserted import Decoded

_MASK64 = (1 << 64) - 1


class Pending(NamedTuple):
    """An event that Python has seen, of an instruction that has not run yet."""

    pc: int
    site: int
    flushes: int
    left: int  # instructions of the block from this one on


class Instrumentation:
    """Plugins of one CPU and what they have inserted."""

    def __init__(self, cpu: Cpu) -> None:
        self.cpu = cpu
        self.plugins: list[Plugin] = []
        self.enter_reason = 0
        self._events: list[tuple[Callable[..., object], Instruction | None, int]] = []
        self._numbers: dict[tuple[Callable[..., object], int], int] = {}
        self._hot = 0  # MODE_HOT, if it was on before
        self.changes = 0  # of the list of plugins
        self.pending: Pending | None = None
        self.plain = PlainInserted(self)
        self.before = self.plain.before  # for the reference engine
        self._native: Inserted | None = None
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
        self.changes += 1
        # Numbers are in the code that is forgotten; what is recorded in a ring of a plugin in use stays to be drained.
        kept = self._rings() if self.plugins else set()
        self._events = [(ring.flush, None, 0) for ring in kept]
        self._numbers = {(ring.flush, -1): number for number, ring in enumerate(kept)}
        self.plain.forget()
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
        self.pending = None
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
        self.plain.leave_block()
        pending, self.pending = self.pending, None
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
        self.plain.quiet = True
        try:
            executed = self.cpu.executed
            reason = self.cpu.interpret(1)
            self.cpu.executed = executed
        finally:
            self.plain.quiet = False
        self.enter_reason = reason
        return bool(reason != EXIT_BUDGET)

    def event(self) -> None:
        """EXIT_EVENT: call whom it is for. An exception goes to the caller of `run`, which may go on afterwards."""
        env = self.cpu.env
        function, instruction, left = self._events[int(env.value)]
        baseline = self.cpu.baseline
        assert baseline is not None
        env.value = 0
        self.pending = pending = Pending(int(env.pc), int(env.site), _changes_of(baseline.ctx), left)
        try:
            self._call(function, instruction)
        except BaseException:
            if baseline.ctx.mode & MODE_COUNT:  # the rest of the block has not run, though it was counted
                env.budget += left
                self.pending = pending._replace(flushes=-1, left=0)
            raise

    def insert(self) -> None:
        """EXIT_INSTRUMENT: ask the plugins about the block at env.pc, and tell the runtime."""
        baseline = self.cpu.baseline
        assert baseline is not None
        if self._native is None:
            self._native = Inserted(baseline, self.tables.forms, self.show)
        self._native.insert()

    def plain_event(self, number: int) -> None:
        """The same as `event`, from the reference engine."""
        function, instruction, left = self._events[number]
        try:
            self._call(function, instruction)
        except BaseException:
            self.pending = Pending(int(self.cpu.env.pc), 0, -1, left)
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

    # ---- blocks

    def show(self, pc: int, records: Sequence[Decoded]) -> Block:
        """Show a block to the plugins."""
        forms = self.tables.forms
        block = Block(self.cpu, pc, self.number_of)
        for index, record in enumerate(records):
            form = forms[record.form]
            ends = self.ends(form)
            block.instructions.append(Instruction(block, index, record.pc, record.length, form, ends))
        for plugin in list(self.plugins):
            block.exact = plugin.exact
            plugin.block(block)
        return block

    @property
    def tables(self) -> Any:
        """The guest's decoder, as Python has it."""
        if self._guest is None:
            from dbt.frontends.guest import load_guest

            self._guest = load_guest(self.cpu.info.name)
        return self._guest.tables

    def ends(self, form: Form) -> int:
        """FormInfo.ends of a form."""
        baseline = self.cpu.baseline
        if baseline is None:
            return int(self.tables.metadata(form).ends)
        return int(FormInfo.at(int(baseline.ctx.forms) + form.id * FormInfo.size).ends)


def _changes_of(ctx: Any) -> int:
    """A number that is another one when code has been forgotten."""
    return int(ctx.n_flushes) + int(ctx.n_dropped)
