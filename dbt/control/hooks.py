"""Hooks: functions that are called when a guest asks its kernel, faults, or meets an instruction that is none.

A hook may be added and removed at any time, also by a hook. As long as it returns None, everything goes on as if it
were not there. What it raises comes out of `run`, and the CPU stands where it can go on: before the system call, at the
instruction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbt.engine import layout
from dbt.exits import Breakpoint, Exit, MemoryFault, Misaligned, SystemCall, Undefined, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.engine.cpu import Cpu
    from dbt.linux.process import Process

SYSTEM_CALL, FAULT, UNDEFINED = "system call", "fault", "undefined"
_INSTRUCTION = 4  # bytes of A64


class Hook:
    """A function in its place; `remove` takes it away, as often as one likes."""

    def __init__(self, hooks: Hooks, kind: str, function: Callable[..., Any]) -> None:
        self._hooks = hooks
        self.kind = kind
        self.function = function

    def remove(self) -> None:
        """Call the function no more."""
        self._hooks.remove(self)


class Hooks:
    """The hooks of one CPU. `changed` is called when there are the first or no more of a kind."""

    def __init__(self, cpu: Cpu, changed: Callable[[], None] = lambda: None) -> None:
        self._cpu = cpu
        self._hooks: list[Hook] = []
        self.changed = changed

    def add(self, kind: str, function: Callable[..., Any]) -> Hook:
        """Have a function called from now on."""
        hook = Hook(self, kind, function)
        self._hooks.append(hook)
        self.changed()
        return hook

    def remove(self, hook: Hook) -> None:
        """Take a hook away; one that is gone does no harm."""
        if hook in self._hooks:
            self._hooks.remove(hook)
            self.changed()

    def of(self, kind: str) -> list[Hook]:
        """The hooks of a kind, in the order in which they were added."""
        return [hook for hook in self._hooks if hook.kind == kind]

    def offer(self, found: Exit) -> bool:
        """Ask the hooks about what the CPU stopped for; True if one has dealt with it, so that it may go on."""
        if not self._hooks:
            return False
        match found:
            case SystemCall():
                return self._system_call(found)
            case MemoryFault() | Misaligned():
                return any(hook.function(found) for hook in self.of(FAULT))
            case Undefined() | Unsupported() | Breakpoint():
                return self._undefined(found)
        return False

    def _system_call(self, call: SystemCall) -> bool:
        cpu = self._cpu
        for hook in self.of(SYSTEM_CALL):
            try:
                result = hook.function(call)
            except BaseException:
                if cpu.reg("pc") == call.pc:
                    cpu.set_reg("pc", call.pc - _INSTRUCTION)
                raise
            if result is not None:
                place = cpu.info.syscall_result // 8
                cpu.x[place] = int(result) & 0xFFFFFFFFFFFFFFFF
                return True
        return False

    def _undefined(self, found: Exit) -> bool:
        cpu = self._cpu
        for hook in self.of(UNDEFINED):
            if hook.function(found):
                if cpu.reg("pc") == found.pc:
                    cpu.set_reg("pc", found.pc + _INSTRUCTION)
                return True
        return False


class ProcessTools:
    """What stands between a guest process and its CPU's exits while tools are attached (Process.tools)."""

    def __init__(self, process: Process, hooks: Hooks, describe: Callable[[Cpu, int], Exit]) -> None:
        self._process = process
        self._hooks = hooks
        self._describe = describe
        self.stopped = layout.EXIT_NONE  # the last reason that was the caller's

    def filter(self, reason: int) -> int:
        """Deal with an exit, or leave it to the process; EXIT_NONE if nothing is left to do."""
        process = self._process
        cpu = process.cpu
        if reason == layout.EXIT_SYSCALL:
            answered = cpu.env.value if process.native_calls else 0
            if not answered and self._hooks.of(SYSTEM_CALL) and self._hooks.offer(self._describe(cpu, reason)):
                return layout.EXIT_NONE
            # The kernel knows nothing of watchpoints: it gets at all pages that the guest may access.
            if cpu.traps is not None:
                with cpu.traps.lifted():
                    process.system_call()
            else:
                process.system_call()
            return layout.EXIT_NONE
        if reason in _FOR_HOOKS and self._hooks.offer(self._describe(cpu, reason)):
            return layout.EXIT_NONE
        if reason > layout.EXIT_HINT or reason in {layout.EXIT_BUDGET, layout.EXIT_UNTIL}:
            self.stopped = reason
            return layout.EXIT_UNTIL
        return reason


_FOR_HOOKS = (
    layout.EXIT_FAULT,
    layout.EXIT_BUS,
    layout.EXIT_FETCH,
    layout.EXIT_ALIGNMENT,
    layout.EXIT_UNDEFINED,
    layout.EXIT_UNIMPLEMENTED,
    layout.EXIT_BREAKPOINT,
)
