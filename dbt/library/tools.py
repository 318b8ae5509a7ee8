"""What bare CPUs and programs have in common: breakpoints, watchpoints, hooks and plugins.

They may come and go at any time, in callbacks and in other threads, and take effect at the next boundary between
instructions, also in code that is translated already and runs (dbt/engine/boundary.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from typing import TYPE_CHECKING, Self

import dbt
from dbt.control import arguments as check
from dbt.control.hooks import FAULT, SYSTEM_CALL, UNDEFINED, Hook, Hooks
from dbt.control.traps import Traps, Watch
from dbt.engine import layout
from dbt.engine.memory import branch_address
from dbt.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.control.code_hooks import BlockEntry, CodeHook, CodeHooks, InstructionEntry, MemoryAccess
    from dbt.engine.cpu import Cpu
    from dbt.exits import Breakpoint, MemoryFault, Misaligned, SystemCall, Undefined, Unsupported
    from dbt.instrument import Plugin


class Tools:
    """The tools of one CPU, a program's or a bare one."""

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu
        self._traps = Traps(cpu)
        self._hooks = Hooks(cpu)
        self._code: CodeHooks | None = None
        self._breakpoints: Counter[int] = Counter()
        self._until: frozenset[int] = frozenset()  # of the run that is or was last

    @property
    def cpu(self) -> Cpu:
        """The engine's CPU; raises UserError if it is closed."""
        return self._cpu.opened()

    @property
    def traps(self) -> Traps:
        """Watchpoints and devices; raises UserError if the CPU is closed, as do the next ones."""
        self._cpu.opened()
        return self._traps

    @property
    def hooks(self) -> Hooks:
        """Hooks on what the CPU stops for."""
        self._cpu.opened()
        return self._hooks

    @property
    def stops(self) -> frozenset[int]:
        """Where the guest is to stop."""
        return self._until.union(self._breakpoints)

    def begin(self, until: set[int]) -> None:
        """A run begins, which ends at these addresses as well."""
        if len(until.union(self._breakpoints)) > layout.MAX_STOPS:
            raise UserError(f"{len(until)} addresses to stop at are too many", f"At most {layout.MAX_STOPS}.")
        self._until = frozenset(map(branch_address, until))
        self._cpu.set_stops(self.stops)

    def set_breakpoint(self, address: int) -> None:
        """Stop before an instruction; as often as this is called, `clear_breakpoint` has to be."""
        if len(self.stops) >= layout.MAX_STOPS:
            raise UserError(f"there are {len(self.stops)} addresses to stop at", "Remove some of them.")
        self.cpu.boundary.change(lambda: self._count_breakpoint(branch_address(address), 1))

    def clear_breakpoint(self, address: int) -> None:
        """The opposite."""
        self._cpu.boundary.change(lambda: self._count_breakpoint(branch_address(address), -1))

    def _count_breakpoint(self, address: int, by: int) -> None:
        self._breakpoints[address] += by
        if not self._breakpoints[address]:
            del self._breakpoints[address]
        self._cpu.set_stops(self.stops)

    def code_hooks(self) -> CodeHooks:
        """Hooks on blocks, instructions and accesses; imported when they are first asked for."""
        cpu = self.cpu
        if self._code is None:
            from dbt.control.code_hooks import CodeHooks

            self._code = CodeHooks(cpu)
        return self._code


class Stop:
    """A breakpoint of `break_at`; `remove` it at any time, and as often as you like."""

    def __init__(self, tools: Tools, address: int) -> None:
        self._tools = tools
        self._there = True
        self.address = address
        tools.set_breakpoint(address)

    def remove(self) -> None:
        """Stop there no more."""
        if self._there:
            self._there = False
            self._tools.clear_breakpoint(self.address)


class Tooled(ABC):
    """The interface to a guest's tools."""

    _tools: Tools

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Give back all memory. Closing twice does no harm."""

    def instrument(self, plugin: Plugin) -> None:
        """Have `plugin` see all code and insert its own, from the next boundary on: see dbt.instrument.

        For the thread that runs the guest, in a callback or while it is stopped.
        """
        check.instance(plugin, dbt.Plugin, "plugin")
        with self._tools.cpu.boundary:
            self._tools.cpu.instrument().add(plugin)

    def remove(self, plugin: Plugin) -> None:
        """Take away what `plugin` has inserted, from the next boundary on."""
        with self._tools.cpu.boundary:
            self._tools.cpu.instrument().remove(plugin)

    def break_at(self, address: int) -> Stop:
        """Have every `run` stop before the instruction at an address (Reached), until the result is removed."""
        return Stop(self._tools, check.address(address))

    def watch(self, address: int, size: int, access: str = "write", *, before: bool = False) -> Watch:
        """Stop (Watched) where an instruction touches [address, address + size): a "read", "write" or "access" (both).

        It stops behind the instruction, or `before` it, with nothing done. What the kernel reads and writes for a
        program does not count.
        """
        return self._tools.traps.watch(address, size, access, before=before)

    def on_system_call(self, function: Callable[[SystemCall], int | None]) -> Hook:
        """Call a function for each system call: None lets it happen, a number is its result instead."""
        return self._tools.hooks.add(SYSTEM_CALL, function)

    def on_fault(self, function: Callable[[MemoryFault | Misaligned], object]) -> Hook:
        """Call a function for each fault: if it returns a true value the instruction is tried again.

        Otherwise a bare CPU stops, and a program gets its signal.
        """
        return self._tools.hooks.add(FAULT, function)

    def on_undefined(self, function: Callable[[Undefined | Unsupported | Breakpoint], object]) -> Hook:
        """Call a function for each instruction that cannot be run: a true value means that it has done the work.

        Then the guest goes on behind the instruction, or where the function has set pc. Otherwise a bare CPU stops, and
        a program gets its signal.
        """
        return self._tools.hooks.add(UNDEFINED, function)

    def on_block(self, function: Callable[[BlockEntry], object], start: int = 0, end: int | None = None) -> CodeHook:
        """Call a function before each block that has bytes in [start, end) runs. See docs/library.md, 'Hooks'.

        A block is what the engine takes for one: instructions in a row, the last one usually a branch.
        """
        return self._tools.code_hooks().add("block", function, start, end)

    def on_instruction(
        self, function: Callable[[InstructionEntry], object], start: int = 0, end: int | None = None
    ) -> CodeHook:
        """Call a function before each instruction in [start, end)."""
        return self._tools.code_hooks().add("instruction", function, start, end)

    def on_memory(
        self,
        function: Callable[[MemoryAccess], object],
        start: int = 0,
        end: int | None = None,
        access: str = "access",
    ) -> CodeHook:
        """Call a function before each "read", "write" or "access" (both) of bytes in [start, end).

        What the kernel reads and writes for a program is not seen.
        """
        return self._tools.code_hooks().add("memory", function, start, end, access)
