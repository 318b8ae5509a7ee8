"""`dragoman coverage`: which blocks have run, as a drcov file of version 2.

The format is that of DynamoRIO's drcov tool, with the module table of Linux: a text head, then for each block
{u32 offset from the module's base, u16 size, u16 module}, little-endian.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import TYPE_CHECKING, Final

from dbt.instrument import Plugin

from .commands import check_writable, load, own_path, run, run_options, write_file

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable
    from typing import NoReturn

    from dbt.instrument import Block
    from dbt.launch import Origin

_BLOCK: Final = Struct("<IHH")
Key = tuple[str, int, int, int, int]  # path, base, end and entry of the module, offset of the block


class Coverage(Plugin):
    """Counts blocks; writes the file when the program ends, each forked child its own."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = os.path.abspath(path)
        self._sizes: dict[Key, int] = {}
        self._child = False

    def block(self, block: Block) -> None:
        """A counter for each block of each module; after exec the same file may be somewhere else."""
        path, offset, base = block.where
        areas = [area for area in block.cpu.memory.areas if area.name == path and area.start >= base]
        end = max((area.end for area in areas), default=base) if path else base + offset + block.size
        key = (path or "anonymous", base, end, 0, offset)
        self._sizes[key] = block.size
        block.count(self.counters[key])

    def forked(self) -> None:
        """The child counts from here on."""
        self._child = True
        self.counters.clear()

    def blocks(self) -> list[tuple[Key, int]]:
        """(block, size) of those that have run."""
        counts = self.counters.values()
        return sorted((key, size) for key, size in self._sizes.items() if counts[key])

    def finish(self) -> None:
        """Write the file."""
        write_file(own_path(self.path, child=self._child), drcov(self.blocks()))


def drcov(blocks: Iterable[tuple[Key, int]]) -> bytes:
    """The contents of a file."""
    blocks = list(blocks)
    modules: dict[tuple[str, int], tuple[int, int]] = {}  # (path, base): number, end
    for (path, base, end, _entry, _offset), _size in blocks:
        number, before = modules.get((path, base), (len(modules), 0))
        modules[path, base] = (number, max(end, before))
    head = ["DRCOV VERSION: 2", "DRCOV FLAVOR: dragoman", f"Module Table: version 2, count {len(modules)}"]
    head.append("Columns: id, base, end, entry, path")
    head += [f" {i}, {base:#018x}, {end:#018x}, {0:#018x}, {path}" for (path, base), (i, end) in modules.items()]
    head.append(f"BB Table: {len(blocks)} bbs")
    table = b"".join(_BLOCK.pack(key[4] & 0xFFFFFFFF, size, modules[key[0], key[1]][0]) for key, size in blocks)
    return ("\n".join(head) + "\n").encode() + table


def coverage(options: argparse.Namespace, origin: Origin) -> NoReturn:
    """The command."""
    found = run_options(options, origin)
    process = load(found, origin=origin)
    path = options.output or f"{os.path.basename(found.path)}.drcov"
    check_writable(path)
    run(process, Coverage(path))
