"""Hooks: functions that are called when a guest asks its kernel, faults, or meets an instruction that is none.

A hook may be added and removed at any time, also by a hook. As long as it returns None, everything goes on as if it
were not there. What it raises comes out of `run`, and the CPU stands where it can go on: before the system call, at the
instruction.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

from dbt.control import arguments
from dbt.engine import layout
from dbt.exits import Breakpoint, Exit, MemoryFault, Misaligned, SystemCall, Undefined, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

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
        arguments.function(function, "a hook")
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
                if result is not None:
                    arguments.number(result, "the result of a system call")
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
        self._wanted = False  # the caller wants it to stop
        self._native = True

    def changed(self) -> None:
        """Have system calls come through Python while somebody wants to see them, or pages are trapped."""
        native = not self._hooks.of(SYSTEM_CALL) and self._process.cpu.traps is None
        if native != self._native:
            self._native = native
            self._process.native(on=native)

    def interrupt(self) -> None:
        """Have the process stop soon, for the caller."""
        self._wanted = True
        self._process.cpu.stop()

    def filter(self, reason: int) -> int:
        """Deal with an exit, or leave it to the process; EXIT_NONE if nothing is left to do."""
        process = self._process
        cpu = process.cpu
        if reason == layout.EXIT_POLL and self._wanted:
            self._wanted = False
            cpu.take_stop()
            self.stopped = reason
            return layout.EXIT_UNTIL
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


class CallersInterrupt:
    """Host signals of a program that Python runs: Ctrl-C is the caller's, everything else the guest's."""

    def __init__(self, inner: Any, env: Any) -> None:  # noqa: ANN401 - Signals or PlainSignals, a view of a struct
        self._inner = inner
        self._env = env
        self._later: list[tuple[int, bytes]] = []
        self._active = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - all the rest is as it was
        return getattr(self._inner, name)

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():  # the one that Python handles signals in
            self._active = True
            self._inner.borrow(signal.SIGINT)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active:
            self._active = False
            self._inner.give_back(signal.SIGINT)

    def install(self, signo: int, flags: int = 0) -> None:
        if signo != signal.SIGINT or not self._active:
            self._inner.install(signo, flags)

    def restore(self, signo: int, how: int, flags: int = 0) -> None:
        if signo != signal.SIGINT or not self._active:
            self._inner.restore(signo, how, flags)

    def take(self) -> list[tuple[int, bytes]]:
        """As dbt.engine.signals; calls Python's handler for Ctrl-C, which is likely to raise."""
        noted: list[tuple[int, bytes]] = self._later + self._inner.take()
        self._later = []
        if self._active and any(signo == signal.SIGINT for signo, _ in noted):
            self._later = [entry for entry in noted if entry[0] != signal.SIGINT]
            self._env.poll = 1  # what is left of the delivery is for the next run
            handler = signal.getsignal(signal.SIGINT)
            if callable(handler):
                handler(signal.SIGINT, None)
            noted, self._later = self._later, []
            self._env.poll = 0
        return noted


_FOR_HOOKS = (
    layout.EXIT_FAULT,
    layout.EXIT_BUS,
    layout.EXIT_FETCH,
    layout.EXIT_ALIGNMENT,
    layout.EXIT_UNDEFINED,
    layout.EXIT_UNIMPLEMENTED,
    layout.EXIT_BREAKPOINT,
)
