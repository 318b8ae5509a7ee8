"""Hooks on blocks, instructions and accesses to memory: one plugin (dbt/instrument) that calls Python for all.

Code outside of the hooks' ranges is translated as if they were not there; an access to memory is compared with the
range in native code, and Python is called for those inside only. One insertion for each instruction serves all hooks,
so that a hook which comes or goes in a callback takes nothing away from the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from dbt.control import arguments
from dbt.errors import UserError
from dbt.instrument import Event, Plugin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbt.engine.cpu import Cpu
    from dbt.instrument import Block, Instruction, Snippet

BLOCK, INSTRUCTION, MEMORY = "block", "instruction", "memory"
KINDS: Final = {"read": ("read", "update"), "write": ("write", "update"), "access": ("read", "write", "update")}
_PLAIN: Final = (1 << 56) - 1  # without Arm's top byte
_WORD: Final = 8


@dataclass(frozen=True, slots=True)
class BlockEntry:
    """A block of `size` bytes at `pc` is about to run."""

    pc: int
    size: int


@dataclass(frozen=True, slots=True)
class InstructionEntry:
    """The instruction at `pc` is about to run."""

    pc: int
    code: bytes


@dataclass(frozen=True, slots=True)
class MemoryAccess:
    """The instruction at `pc` is about to access [address, address + size): "read", "write" or "update" (both)."""

    pc: int
    address: int
    size: int
    access: str


class CodeHook:
    """A function in its place; `remove` takes it away, as often as one likes."""

    def __init__(
        self, hooks: CodeHooks, kind: str, function: Callable[..., object], start: int, end: int, access: str
    ) -> None:
        self._hooks = hooks
        self.kind: Final = kind
        self.function: Final = function
        self.start: Final = start
        self.end: Final = end
        self.accesses: Final = KINDS[access]

    def remove(self) -> None:
        """Call the function no more."""
        self._hooks.remove(self)

    def covers(self, start: int, end: int) -> bool:
        return start < self.end and self.start < end


class CodeHooks:
    """The hooks on one CPU's code."""

    def __init__(self, cpu: Cpu) -> None:
        self._cpu: Final = cpu
        self._hooks: list[CodeHook] = []
        self._plugin: _Caller | None = None

    def add(
        self, kind: str, function: Callable[..., object], start: int, end: int | None, access: str = "access"
    ) -> CodeHook:
        """Have a function called from the next boundary on."""
        arguments.function(function, "a hook")
        if arguments.text(access, "a kind of access") not in KINDS:
            raise UserError(f"{access!r} is no kind of access", f"Choose from {', '.join(KINDS)}.")
        arguments.number(start, "the start of a range")
        last = _PLAIN + 1 if end is None else arguments.number(end, "the end of a range")
        if not 0 <= start < last <= _PLAIN + 1:
            raise UserError(f"{start:#x}..{last:#x} is not a range of addresses", "Give a start below the end.")
        hook = CodeHook(self, kind, function, start, last, access)
        self._cpu.boundary.change(lambda: self._changed([*self._hooks, hook]))
        return hook

    def remove(self, hook: CodeHook) -> None:
        """Take a hook away; one that is gone does no harm."""
        self._cpu.boundary.change(lambda: self._remove(hook))

    def _remove(self, hook: CodeHook) -> None:
        if hook in self._hooks:
            self._changed([other for other in self._hooks if other is not hook])

    def _changed(self, hooks: list[CodeHook]) -> None:
        tools = self._cpu.instrument()
        plugin = _Caller(hooks, self) if hooks else None
        if plugin is not None:
            tools.add(plugin)
        if self._plugin is not None:
            tools.remove(self._plugin)
        self._plugin, self._hooks = plugin, hooks

    def there(self, hook: CodeHook) -> bool:
        return hook in self._hooks


class _Caller(Plugin):
    """Calls the hooks that there are; others need another one."""

    exact = True

    def __init__(self, hooks: list[CodeHook], owner: CodeHooks) -> None:
        super().__init__()
        self._owner = owner
        self._blocks = [hook for hook in hooks if hook.kind == BLOCK]
        self._instructions = [hook for hook in hooks if hook.kind == INSTRUCTION]
        self._memory = [hook for hook in hooks if hook.kind == MEMORY]
        self._low = min((hook.start for hook in self._memory), default=0)
        self._high = max((hook.end for hook in self._memory), default=0)
        self._addresses = [self.counters[number] for number in range(8)]  # of the accesses, neighbours in memory
        self._function: Callable[[Event], object] = self._call

    def block(self, block: Block) -> None:
        for instruction in block.instructions:
            pc, length = instruction.pc, instruction.length
            head = instruction.index == 0 and any(h.covers(pc, pc + block.size) for h in self._blocks)
            always = head or any(h.covers(pc, pc + length) for h in self._instructions)
            memory = bool(self._memory and instruction.accesses)
            if always or memory:
                instruction.add(partial(self._insert, always=always, memory=memory))

    def _insert(self, s: Snippet, *, always: bool, memory: bool) -> None:
        found = None
        if memory:
            cells = s.constant(self._addresses[0].address)
            for number, access in enumerate(s.instruction.accesses):
                address = s.address(access) & _PLAIN
                s.host_store(cells + _WORD * number if number else cells, address)
                if not always:
                    first = max(self._low - access.size + 1, 0)
                    inside = (address - s.constant(first)).ult(s.constant(self._high - first))
                    found = inside if found is None else found | inside
        s.call(self._function, found)

    def _call(self, event: Event) -> None:
        # What a callback changes is for the next instruction, but for the accesses, which are known by now.
        for hook, value in list(self._seen(event.instruction)):
            if self._owner.there(hook):
                hook.function(value)

    def _seen(self, instruction: Instruction) -> Iterator[tuple[CodeHook, object]]:
        pc, block = instruction.pc, instruction.block
        if instruction.index == 0:
            yield from ((hook, BlockEntry(pc, block.size)) for hook in self._blocks if hook.covers(pc, pc + block.size))
        hooks = [hook for hook in self._instructions if hook.covers(pc, pc + instruction.length)]
        if hooks:
            code = instruction.code
            yield from ((hook, InstructionEntry(pc, code)) for hook in hooks)
        for cell, access in zip(self._addresses, instruction.accesses if self._memory else (), strict=False):
            start = cell.value
            value = MemoryAccess(pc, start, access.size, access.kind)
            for hook in self._memory:
                if access.kind in hook.accesses and hook.covers(start, start + access.size):
                    yield hook, value
