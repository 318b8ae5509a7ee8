"""What tools insert on the reference engine: it calls `before` for each instruction, templates are evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.errors import GuestFault

from .formats import NUMBERS
from .inserted import Decoded
from .layout import MAX_BLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dbt.instrument import Snippet

    from .instrumentation import Instrumentation

PlainStep = tuple["Callable[..., int]", "Sequence[int]", int, int, int, int, "list[int]"]
_MASK64 = (1 << 64) - 1


class PlainInserted:
    """What is inserted into the code that one CPU's reference engine runs."""

    def __init__(self, tools: Instrumentation) -> None:
        self._tools = tools
        self._cpu = tools.cpu
        self.quiet = False  # nothing runs: the instruction's insertions have
        self._steps: dict[int, list[PlainStep]] = {}  # of the block that the engine is in
        self._known: dict[int, tuple[bytes, dict[int, list[PlainStep]]]] = {}  # all its blocks, with their bytes
        self._expected = -1
        self._fields: list[int] = [0] * NUMBERS
        self._namespace: dict[str, object] | None = None
        self._functions: dict[str, Callable[..., int]] = {}

    def forget(self) -> None:
        """Plugins have changed."""
        self._known.clear()
        self._expected = -1

    def leave_block(self) -> None:
        """What runs next begins a block."""
        self._expected = -1

    def before(self, pc: int) -> int:
        """Called by the reference engine before each instruction: run what is inserted there; where to go on."""
        if self.quiet:
            return pc
        if pc != self._expected or pc not in self._steps:
            self._steps = self._block(pc)
        self._expected = pc + 4
        pending, self._tools.pending = self._tools.pending, None
        if pending is not None and pending.pc == pc:
            return pc
        env = self._cpu.env
        env.pc = pc
        known = self._tools.changes
        for function, r, imm, target, at, npc, numbers in self._steps.get(pc, ()):
            self._fields[:] = numbers
            function(r, imm, target, at, npc)
            if self._tools.changes != known:
                break
        moved = int(env.pc)
        return moved if moved == pc else self.before(moved)

    def _block(self, pc: int) -> dict[int, list[PlainStep]]:
        """Insertions of the block at `pc` by address. Where nothing can be decoded, the engine will say so."""
        code, steps = self._known.get(pc, (b"", {}))
        try:
            if code and self._cpu.memory.read(pc, len(code)) == code:
                return steps
        except GuestFault:
            pass
        tables = self._tools.tables
        records: list[Decoded] = []
        at = pc
        while len(records) < MAX_BLOCK:
            try:
                found = tables.decode(int.from_bytes(self._cpu.memory.read(at, 4), "little"), at)
            except GuestFault:
                break
            if not found.form.id:
                break
            r, imm, target = found.r, found.imm & _MASK64, found.target & _MASK64
            records.append(Decoded(found.form.id, found.length, r, imm, target, at))
            at += found.length
            if self._tools.ends(found.form):
                break
        steps = {record.pc: [] for record in records}
        if records:
            for snippet in self._tools.show(pc, records).ordered():
                steps[snippet.instruction.pc].append(self._step(snippet, records[snippet.instruction.index]))
            self._known[pc] = self._cpu.memory.read(pc, at - pc), steps
        return steps

    def _step(self, snippet: Snippet, record: Decoded) -> PlainStep:
        template = snippet.template()
        text = template.text()
        function = self._functions.get(text)
        if function is None:
            from dbt.backends.reference.generate import compile_template

            if self._namespace is None:
                state = self._cpu.reference().state
                self._namespace = {**state.namespace, "numbers": self._fields, "event": self._tools.plain_event}
            function = self._functions[text] = compile_template(template, self._namespace)
        tokens = [record.r[k] for k in snippet.tokens]
        numbers = [*snippet.numbers, *[0] * (NUMBERS - len(snippet.numbers))]
        npc = record.pc + record.length
        return function, tokens, record.imm, record.target, record.pc, npc, numbers
