"""The library: programs and bare CPUs that Python drives.

Addresses and register values are ints; sizes are in bytes. What a guest does wrong is a value (dbt.exits), what the
caller does wrong raises dbt.errors.UserError.
"""

from __future__ import annotations

from dbt.control.snapshot import Snapshot
from dbt.exits import (
    AccessRefused,
    Breakpoint,
    BudgetSpent,
    Exit,
    Exited,
    Interrupted,
    Killed,
    MemoryFault,
    Misaligned,
    Reached,
    SystemCall,
    Undefined,
    Unsupported,
    Watched,
)
from dbt.library.cpu import CPU, open_cpu
from dbt.library.memory import Memory
from dbt.library.program import Program, open_program
from dbt.library.registers import Registers

__all__ = [
    "CPU",
    "AccessRefused",
    "Breakpoint",
    "BudgetSpent",
    "Exit",
    "Exited",
    "Interrupted",
    "Killed",
    "Memory",
    "MemoryFault",
    "Misaligned",
    "Program",
    "Reached",
    "Registers",
    "Snapshot",
    "SystemCall",
    "Undefined",
    "Unsupported",
    "Watched",
    "open_cpu",
    "open_program",
]
