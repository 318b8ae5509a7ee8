"""Dragoman: runs programs and machines of one architecture on another, and lets tools look inside.

    import dbt
    program = dbt.open_program("busybox", ["busybox", "echo", "hello"])
    print(program.run())            # Exited(status=0)

    cpu = dbt.open_cpu("aarch64")
    cpu.memory.map(0x10000, 0x1000, "rwx")
    cpu.memory.write(0x10000, code)
    print(cpu.run(0x10000, until=0x10008))

The library is dbt.api; everything public in it is reachable here. It is imported when it is first used, so that the
command line does not wait for it.
"""

from __future__ import annotations

from dbt import version

__version__ = version.VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dbt.api import (
        CPU,
        AccessRefused,
        Breakpoint,
        BudgetSpent,
        Exit,
        Exited,
        Interrupted,
        Killed,
        MemoryFault,
        Program,
        Reached,
        Snapshot,
        SystemCall,
        Undefined,
        Unsupported,
        Watched,
        open_cpu,
        open_program,
    )
    from dbt.control.code_hooks import BlockEntry, InstructionEntry, MemoryAccess
    from dbt.instrument import (
        Access,
        Block,
        Counter,
        Counters,
        Event,
        Instruction,
        Plugin,
        Ring,
        Snippet,
    )

__all__ = [
    "CPU",
    "Access",
    "AccessRefused",
    "Block",
    "BlockEntry",
    "Breakpoint",
    "BudgetSpent",
    "Counter",
    "Counters",
    "Event",
    "Exit",
    "Exited",
    "Instruction",
    "InstructionEntry",
    "Interrupted",
    "Killed",
    "MemoryAccess",
    "MemoryFault",
    "Plugin",
    "Program",
    "Reached",
    "Ring",
    "Snapshot",
    "Snippet",
    "SystemCall",
    "Undefined",
    "Unsupported",
    "Watched",
    "__version__",
    "open_cpu",
    "open_program",
]
_INSTRUMENT = ("Access", "Block", "Counter", "Counters", "Event", "Instruction", "Plugin", "Ring", "Snippet")

_CODE_HOOKS = ("BlockEntry", "InstructionEntry", "MemoryAccess")


def __getattr__(name: str) -> object:
    if name in __all__:
        if name in _INSTRUMENT:
            from dbt import instrument

            return getattr(instrument, name)
        if name in _CODE_HOOKS:
            from dbt.control import code_hooks

            return getattr(code_hooks, name)
        from dbt import api

        return getattr(api, name)
    raise AttributeError(f"module 'dbt' has no attribute {name!r}")
