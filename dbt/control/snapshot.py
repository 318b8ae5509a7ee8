"""Snapshots: registers, mappings and memory of a guest, kept apart from it, and put back as often as one likes.

How state is taken and put back is in state.py; here are the bytes that carry it elsewhere: a magic word, a version, the
head as a literal of Python, the pages that are not zero compressed, and a checksum.

A snapshot does not hold what is not the guest's: files and descriptors, shared mappings, other processes, the clock.
"""

from __future__ import annotations

import ast
import os
import zlib
from typing import TYPE_CHECKING, Final, NoReturn

from dbt.control import arguments
from dbt.errors import UserError

from . import state as states
from .pages import Pages
from .snapshot_head import checked
from .state import Range, State

if TYPE_CHECKING:
    from dbt.engine.cpu import Cpu
    from dbt.linux.process import Process

MAGIC: Final = b"DRAGSNAP"
VERSION: Final = 1
_CHUNK: Final = 1 << 20


class Snapshot:
    """The state of a guest at one moment. Opaque; `to_bytes` and `from_bytes` carry it to another process."""

    def __init__(self, state: State) -> None:
        self.state: Final = state  # for those who take and restore it

    def __repr__(self) -> str:
        state = self.state
        size = sum(entry.end - entry.start for entry in state.ranges)
        return f"<Snapshot of {state.guest} at pc {state.registers['pc']:#x}, {size >> 10} KiB mapped>"

    def to_bytes(self) -> bytes:
        """All of it, to be kept in a file."""
        state = self.state
        extents = list(state.pages.extents())
        head = {
            "guest": state.guest,
            "registers": state.registers,
            "monitor": state.monitor,
            "ranges": [tuple(entry) for entry in state.ranges],
            "size": state.pages.size,
            "extents": extents,
            "process": state.process,
        }
        text = repr(head).encode()
        pack = zlib.compressobj(1)
        parts = [MAGIC, VERSION.to_bytes(4, "little"), len(text).to_bytes(4, "little"), text]
        for start, end in extents:
            parts += [
                pack.compress(os.pread(state.pages.fd, min(_CHUNK, end - at), at)) for at in range(start, end, _CHUNK)
            ]
        parts.append(pack.flush())
        raw = b"".join(parts)
        return raw + zlib.crc32(raw).to_bytes(4, "little")

    @classmethod
    def from_bytes(cls, data: bytes) -> Snapshot:
        """What `to_bytes` made, also in another process; raises UserError if it is something else."""
        data = arguments.data(data, "a snapshot")
        if data[:8] != MAGIC or len(data) < 20:
            raise UserError("this is no snapshot", "Give the bytes that Snapshot.to_bytes() made.")
        version = int.from_bytes(data[8:12], "little")
        if version != VERSION:
            raise UserError(f"a snapshot of version {version} cannot be read", f"This Dragoman reads {VERSION}.")
        if zlib.crc32(data[:-4]).to_bytes(4, "little") != data[-4:]:
            raise UserError("the snapshot is damaged: its checksum differs", "Take it again.")
        try:
            size = int.from_bytes(data[12:16], "little")
            head = checked(ast.literal_eval(data[16 : 16 + size].decode()))
            pages = Pages(head["size"])
            unpack = zlib.decompressobj()
            rest = data[16 + size : -4]
            for start, end in head["extents"]:
                at = start
                while at < end:
                    part = unpack.decompress(rest, min(_CHUNK, end - at))
                    rest = unpack.unconsumed_tail
                    at += os.pwrite(pages.fd, part, at) or _too_short()
            pages.seal()
            ranges = [Range(*entry) for entry in head["ranges"]]
            return cls(State(head["guest"], head["registers"], head["monitor"], ranges, pages, head["process"]))
        except (
            ValueError,
            KeyError,
            TypeError,
            SyntaxError,
            OSError,
            MemoryError,
            RecursionError,
            zlib.error,
        ) as error:
            raise UserError(f"the snapshot makes no sense: {error}", "Take it again.") from None


def _too_short() -> NoReturn:
    raise ValueError("too short")


def take(cpu: Cpu, process: Process | None = None) -> Snapshot:
    """The state of a CPU, and of the process that runs on it, now."""
    return Snapshot(states.take(cpu, process))


def restore(cpu: Cpu, snapshot: Snapshot, process: Process | None = None) -> None:
    """Make a CPU's state, and that of a process on it, what it was."""
    states.restore(cpu, snapshot.state, process)
