"""Why a CPU stands still, as a value of dbt.exits; and Ctrl-C while it runs."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Final

from dbt.control.traps import EXIT_WATCH, READ, Traps
from dbt.engine import layout
from dbt.errors import GuestFault, InternalError
from dbt.exits import (
    AccessRefused,
    Breakpoint,
    BudgetSpent,
    Exit,
    Interrupted,
    MemoryFault,
    Misaligned,
    Reached,
    SystemCall,
    Undefined,
    Unsupported,
    Watched,
)

if TYPE_CHECKING:
    from types import TracebackType

    from dbt.engine.cpu import Cpu

_WORD: Final = 4


def describe(cpu: Cpu, reason: int, traps: Traps) -> Exit:
    """The exit reason of an engine as a value."""
    pc = cpu.reg("pc")
    value = int(cpu.env.value)
    if reason == EXIT_WATCH and traps.hit is not None:
        touched = traps.hit.access
        kind = "read" if touched.kind == READ else "write"
        return Watched(pc, touched.address, touched.size, kind, traps.hit.instruction)
    if reason == layout.EXIT_BUS and traps.refused is not None:
        return AccessRefused(pc, value, "read" if traps.refused.kind == READ else "write", traps.refused.size)
    match reason:
        case layout.EXIT_UNTIL:
            return Reached(pc)
        case layout.EXIT_BUDGET:
            return BudgetSpent(pc)
        case layout.EXIT_POLL:
            cpu.env.poll = 0
            return Interrupted(pc)
        case layout.EXIT_SYSCALL:
            info = cpu.info
            read = [int(cpu.x[place // 8]) for place in (info.syscall_number, *info.syscall_args)]
            return SystemCall(pc, read[0], tuple(read[1:]))
        case layout.EXIT_FAULT | layout.EXIT_BUS:
            return MemoryFault(pc, value, "write" if cpu.faults.is_write() else "read")
        case layout.EXIT_FETCH:
            return MemoryFault(pc, pc, "fetch")
        case layout.EXIT_ALIGNMENT:
            return Misaligned(pc, value)
        case layout.EXIT_BREAKPOINT:
            return Breakpoint(pc, value)
        case layout.EXIT_UNDEFINED | layout.EXIT_UNIMPLEMENTED:
            try:
                code = cpu.memory.read(pc, _WORD)
            except GuestFault:
                code = b""
            return Undefined(pc, code) if reason == layout.EXIT_UNDEFINED else Unsupported(pc, code)
    raise InternalError(f"unexpected exit: {cpu.describe_exit(reason)}")


class Interrupts:
    """While a CPU runs in the main thread, Ctrl-C makes it leave, and Python's handler is called then."""

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu
        self.noted = False  # something has arrived

    def __enter__(self) -> None:
        self._main = threading.current_thread() is threading.main_thread()  # the one that Python handles signals in
        if self._main:
            self._cpu.signals.borrow(signal.SIGINT)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._main:
            return
        self._cpu.signals.give_back(signal.SIGINT)
        noted = self._cpu.signals.take()
        self.noted = bool(noted)
        if noted:
            self._cpu.signals.unblock()
        for signo, _info in noted:
            handler = signal.getsignal(signo)
            if callable(handler):
                handler(signo, None)
