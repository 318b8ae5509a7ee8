"""A bare CPU: no kernel, only what Python maps and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.control import arguments as check
from dbt.control.snapshot import Snapshot, restore, take
from dbt.engine import layout
from dbt.engine.cpu import Cpu
from dbt.errors import UserError
from dbt.exits import BudgetSpent, Exit, Interrupted, Reached, SystemCall

from .memory import Memory
from .registers import Registers
from .stops import Interrupts, describe
from .tools import Tooled, Tools

if TYPE_CHECKING:
    from collections.abc import Iterable


class CPU(Tooled):
    """A virtual CPU with memory of its own. Close it, or use it in a `with` statement."""

    def __init__(self, guest: str = "aarch64", engine: str = "baseline", *, address_bits: int | None = None) -> None:
        check.text(guest, "a guest")
        check.text(engine, "an engine")
        if address_bits is not None and not 32 <= check.number(address_bits, "address_bits") <= 46:
            raise UserError(f"{address_bits} bits of addresses are not possible", "Choose from 32 to 46.")
        self._cpu = Cpu(guest, engine, address_bits=address_bits)
        self._cpu.keep_flags(on=True)
        self._tools = Tools(self._cpu)
        self.memory = Memory(self._cpu, self._tools.traps)
        self.registers = Registers(self._cpu)

    def close(self) -> None:
        """Give back all memory. Closing twice does no harm. Raises UserError while it runs, also in a callback."""
        self._cpu.close()

    @property
    def guest(self) -> str:
        return self._cpu.info.name

    @property
    def engine(self) -> str:
        return self._cpu.engine

    @property
    def executed(self) -> int:
        """Instructions that ran in calls with a budget, and in `step`."""
        return self._cpu.executed

    def run(self, start: int | None = None, *, until: int | Iterable[int] = (), budget: int | None = None) -> Exit:
        """Run from `start` (default: where it stopped) until something happens, and say what.

        `until`: stop before an instruction at one of these addresses (not before the first one that runs).
        `budget`: run at most so many instructions. Raises KeyboardInterrupt on Ctrl-C, between two instructions.
        """
        cpu, tools = self._tools.cpu, self._tools
        if budget is not None:
            check.number(budget, "a budget", 0, 1 << 63)
        addresses = check.addresses(until, "until")
        if start is not None:
            check.address(start)
        with cpu.boundary.outermost():
            tools.begin(addresses)
            if start is not None:
                cpu.set_reg("pc", start)
            first = cpu.executed
            while True:
                found = self._run(None if budget is None else budget - (cpu.executed - first))
                if isinstance(found, Interrupted):
                    if cpu.take_stop():
                        return found
                elif not tools.hooks.offer(found):
                    return found
                # A hook, or somebody at this boundary, may have changed where to stop.
                pc = cpu.reg("pc")
                if pc in tools.stops and (pc != found.pc or isinstance(found, SystemCall | Interrupted)):
                    return Reached(pc)

    def _run(self, budget: int | None) -> Exit:
        """Run until something happens, hooks or not."""
        cpu = self._cpu
        if budget is not None and budget <= 0:
            return BudgetSpent(cpu.reg("pc"))
        if cpu.reg("pc") in self._tools.stops:
            reason = cpu.step()
            if reason != layout.EXIT_BUDGET:
                return self._exit(reason)
            if cpu.reg("pc") in self._tools.stops:
                return Reached(cpu.reg("pc"))
            if budget == 1:
                return BudgetSpent(cpu.reg("pc"))
            budget = None if budget is None else budget - 1
        cpu.signals.take_faults()
        interrupts = Interrupts(cpu)
        with interrupts:
            reason = cpu.run(budget)
        if interrupts.noted and reason == layout.EXIT_POLL:
            cpu.stop()
        return self._exit(reason)

    def step(self) -> Exit:
        """Run one instruction; BudgetSpent if nothing else happened."""
        cpu = self._tools.cpu
        with cpu.boundary.outermost():
            found = self._exit(cpu.step())
            return BudgetSpent(cpu.reg("pc")) if self._tools.hooks.offer(found) else found

    def stop(self) -> None:
        """Make `run` return Interrupted soon; from another thread."""
        self._cpu.stop()

    def snapshot(self) -> Snapshot:
        """Registers, mappings and memory as they are now. Breakpoints, hooks and devices are not in it."""
        with self._tools.cpu.boundary:
            return take(self._cpu)

    def restore(self, snapshot: Snapshot) -> None:
        """Make registers, mappings and memory what they were, in time that grows with what was written to since."""
        check.instance(snapshot, Snapshot, "snapshot")
        with self._tools.cpu.boundary:
            restore(self._cpu, snapshot)

    def serve_gdb(self, where: str | int) -> None:
        """Let one gdb drive this CPU: on a port of 127.0.0.1, HOST:PORT, or a Unix socket's path. See docs/gdb.md."""
        from dbt.gdb.server import listen, serve

        self._tools.cpu.boundary.outermost()
        serve(self._tools.cpu, None, listen(where), traps=self._tools.traps)

    def _exit(self, reason: int) -> Exit:
        return describe(self._cpu, reason, self._tools.traps)


def open_cpu(guest: str = "aarch64", engine: str = "baseline", *, address_bits: int | None = None) -> CPU:
    """A bare CPU with empty memory. `engine` is one of those that `dragoman features` lists.

    `baseline` is for speed; `interpreter` runs budgets and single steps exactly and natively, and needs no memory that
    is both writable and executable; `reference` is plain Python.
    """
    return CPU(guest, engine, address_bits=address_bits)
