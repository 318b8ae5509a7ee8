"""`dragoman trace`: instructions, memory accesses and system calls as lines of text.

Inserted code writes records of two words {site, address} to a ring; the text of a site is made once, when its block is
translated, so that most of the work is done in batches.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from dbt.instrument import Plugin, Ring

from .assembly import disassemble
from .commands import Output, load, run, run_options
from .symbols import Names

if TYPE_CHECKING:
    import argparse
    from typing import NoReturn

    from dbt.instrument import Access, Block, Instruction
    from dbt.launch import Origin

_KINDS: Final = {"read": "reads", "write": "writes", "update": "updates"}


class Trace(Plugin):
    """Writes lines with `write`: instructions as `PID PC NAME+OFFSET TEXT`, accesses below them."""

    def __init__(self, output: Output, *, instructions: bool = True, memory: bool = True) -> None:
        super().__init__()
        self._output: Final = output
        self._instructions: Final = instructions
        self._memory: Final = memory
        self._sites: list[tuple[str, str]] = []  # (before the address, behind it); no address: ''
        self._numbers: dict[tuple[str, str], int] = {}
        self._names: Final = Names()
        self._pid = os.getpid()
        self.ring: Final = Ring(2, self._drain)

    def block(self, block: Block) -> None:
        """Insert records; with instructions shown, an access needs no name of its own."""
        path, offset, _first = block.where
        machine = block.cpu.info.name
        code = block.cpu.memory.read(block.pc, block.size)
        lines = disassemble(machine, code, block.pc) if self._instructions else []
        for instruction in block.instructions:
            at = instruction.pc - block.pc
            where = f"{instruction.pc:#012x} {self._names.at(path, offset + at)}"
            if self._instructions:
                instruction.record(self.ring, self._site(f"{where:<40} {lines[at // 4].text}", ""), 0)
            if self._memory:
                for access in instruction.accesses:
                    self._access(instruction, access, where)

    def _access(self, instruction: Instruction, access: Access, where: str) -> None:
        lead = " " * 12 if self._instructions else f"{where:<40}"
        size = f"{access.size} byte{'s' if access.size > 1 else ''}"
        site = self._site(f"{lead} {_KINDS[access.kind]} {size} at 0x", "address")
        instruction.record(self.ring, site, access)

    def _site(self, *text: str) -> int:
        key = (text[0], text[1])
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._sites)
            self._sites.append(key)
        return number

    def _drain(self, records: list[tuple[int, ...]]) -> None:
        sites, pid = self._sites, self._pid
        lines = []
        for site, address in records:
            text, has_address = sites[site]
            lines.append(f"{pid} {text}{address:x}\n" if has_address else f"{pid} {text}\n")
        self._output.write("".join(lines))

    def line(self, text: str) -> None:
        """A line of something else, in its place: it begins with the process already."""
        self.ring.flush()
        self._output.write(text + "\n")

    def forked(self) -> None:
        """The child's lines bear its own number."""
        self._pid = os.getpid()


def trace(options: argparse.Namespace, origin: Origin) -> NoReturn:
    """The command."""
    every = not (options.instructions or options.memory or options.syscalls)
    calls = options.syscalls or every
    process = load(run_options(options, origin), origin=origin, strace=calls)
    output = Output(process, options.output)
    plugin = Trace(
        output,
        instructions=options.instructions or every,
        memory=options.memory or every,
    )  # fmt: skip
    if calls:
        from dbt.linux import strace

        strace.write = plugin.line
    run(process, plugin if options.instructions or options.memory or every else None, output)
