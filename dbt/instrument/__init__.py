"""Instrumentation: plugins see each block when it is translated and insert code of their own, which runs with it.

    class Hot(dbt.Plugin):
        def block(self, block: dbt.Block) -> None:
            block.count(self.counters[block.pc])

What is inserted runs before an instruction. It may read the guest's registers and flags and compute with all operations
of the IR, and it changes nothing but memory of the host: counters, and rings that Python drains in batches. It may also
call Python, with the guest stopped exactly there. docs/instrumentation.md tells it with examples.
"""

from __future__ import annotations

from typing import Final

from dbt.engine.layout import TOKENS

from .accesses import Access
from .blocks import Block, Event, Instruction
from .counters import Counter, Counters, Ring
from .plugin import Plugin
from .snippets import Snippet

__all__: Final = [
    "TOKENS", "Access", "Block", "Counter", "Counters", "Event", "Instruction", "Plugin", "Ring", "Snippet",
]  # fmt: skip
