"""Native code that tools insert: shown blocks become insertions for the runtime, templates become stencils.

The native runtime leaves with EXIT_INSTRUMENT for a block whose insertions it does not know; `insert` fills
Ctx.insertions in. Each insertion is a stencil, made from the template of a snippet: numbers are holes, so the same
stencil serves all counters. Stencils lie behind the stencil pack, and in files of the cache, by the hash of their
template.
"""

from __future__ import annotations

import ctypes
import hashlib
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from dbt.errors import InternalError, UserError

from . import layout
from .formats import NUMBERS, FormInfo, StencilHead
from .layout import MAX_INSERTIONS, MODE_STEPS, TOKENS, Record, Step
from .runtime import PACK_RESERVE, SNIPPET_ROOM

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dbt.frontends.forms import Form
    from dbt.instrument import Block
    from dbt.ir.values import Template

    from .baseline import Baseline

    Shown = Callable[[int, "Sequence[Decoded]"], Block]  # a block's address and records, seen by the plugins

_INSERTION = Struct(f"<II{TOKENS}HI{NUMBERS}q")
_RECORD = Struct(f"<HBB{TOKENS}HqqQ")
_MASK64 = (1 << 64) - 1
_ROOM = 1 << 15  # host bytes of a block's insertions
_STEPS_ROOM = 60_000  # the same on the interpreter: places in a block are 16-bit offsets
_HEAD = Struct("<QQ")  # of a file: magic, checksum of the rest
_MAGIC = 0x3150494E53474144  # 'DAGSNIP1', little-endian


class Decoded(NamedTuple):
    """A record of the runtime."""

    form: int
    length: int
    r: tuple[int, ...]
    imm: int
    target: int
    pc: int


class Inserted:
    """What is inserted into the native code of one address space."""

    def __init__(self, baseline: Baseline, forms: Sequence[Form], show: Shown) -> None:
        self._baseline = baseline
        self._forms = forms
        self._show = show
        self._stencils: dict[str, int] = {}  # by the text of the template: offset from the pack
        self._used = 0  # bytes of the room behind the pack

    def insert(self) -> None:
        """EXIT_INSTRUMENT: ask the plugins about the block at env.pc, and tell the runtime."""
        baseline = self._baseline
        env = baseline.cpu.env
        ctx, pc = baseline.ctx, int(env.pc)
        records = self._records(int(ctx.records), int(env.value))
        block = self._show(pc, records)
        snippets = block.ordered()
        if len(snippets) > MAX_INSERTIONS:
            raise UserError(f"{len(snippets)} insertions in the block at {pc:#x}", f"At most {MAX_INSERTIONS}.")
        templates = [s.template() for s in snippets]
        texts = [t.text() for t in templates]
        self._compile({text: t for text, t in zip(texts, templates, strict=True) if text not in self._stencils}, block)
        data, room = [], 0
        for snippet, text in zip(snippets, texts, strict=True):
            record = records[snippet.instruction.index]
            tokens = [record.r[k] for k in snippet.tokens] + [0] * (TOKENS - len(snippet.tokens))
            stencil = self._stencils[text]
            steps = int(ctx.mode) & MODE_STEPS
            room += 2 * Step.size if steps else int(StencilHead.at(int(ctx.pack) + stencil).code_size)
            data.append(_INSERTION.pack(snippet.instruction.index, stencil, *tokens, 0, *_signed(snippet.numbers)))
        limit = _STEPS_ROOM if int(ctx.mode) & MODE_STEPS else _ROOM
        if room > limit:
            raise UserError(f"{room} bytes are inserted into the block at {pc:#x}", f"At most {limit}.")
        ctypes.memmove(int(ctx.insertions), b"".join(data), sum(map(len, data)))
        ctx.n_insertions = len(data)
        ctx.instrumented = pc

    def _records(self, address: int, n: int) -> list[Decoded]:
        data = ctypes.string_at(address, n * Record.size)
        return [
            Decoded(form, length, tuple(rest[:TOKENS]), rest[TOKENS], rest[TOKENS + 1], rest[TOKENS + 2])
            for form, _variant, length, *rest in _RECORD.iter_unpack(data)
        ]

    # ---- stencils

    def _compile(self, missing: dict[str, Template], block: Block) -> None:
        """Take stencils from the cache, or have the worker make them, with those that other blocks will want."""
        baseline = self._baseline
        store = baseline.store
        wanted = {text: t for text, t in missing.items() if not self._load(text, baseline.job)}
        if not wanted:
            return
        store.build([("snippets", baseline.job, "".join({**wanted, **self._siblings(block)}))])
        for text in wanted:
            if not self._load(text, baseline.job):
                raise InternalError(f"inserted code is not compiled:\n{text}")

    def _siblings(self, block: Block) -> dict[str, None]:
        """Where addresses of accesses are looked at: the same for the other forms of the guest's code in memory."""
        found: dict[str, None] = {}
        for snippet in block.inserted:
            again = snippet.again
            if again is not None:
                for form in self._forms_in_memory():
                    found.update(dict.fromkeys(again(form)))
                break
        return found

    def _forms_in_memory(self) -> list[Form]:
        """The forms that occur in executable memory and access memory."""
        baseline = self._baseline
        forms = self._forms
        seen = (ctypes.c_uint8 * (len(forms) * (1 + layout.CONDITIONS)))()
        at = ctypes.addressof(seen)
        for start, end, _prot in baseline.cpu.memory.executable_ranges():
            baseline.runtime.scan(baseline.ctx_address, start, end - start, at, at + len(forms))
        infos = int(baseline.ctx.forms)
        return [f for f in forms if seen[f.id] and FormInfo.at(infos + f.id * FormInfo.size).accesses]

    def _load(self, text: str, kind: str) -> bool:
        """Put a stencil or handler from the cache behind the pack; False if there is none, or a damaged one."""
        baseline = self._baseline
        name = file_name(text, kind)
        try:
            with open(baseline.store.open(name), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return False
        if len(data) < _HEAD.size or _HEAD.unpack_from(data) != (_MAGIC, crc32(data[_HEAD.size :])):
            return False
        taken = baseline.place_snippet(name, data, self._used)
        if self._used + taken > SNIPPET_ROOM:
            raise UserError("too many different insertions", "Pass what differs as a Snippet.constant.")
        self._stencils[text] = PACK_RESERVE - SNIPPET_ROOM + self._used + _HEAD.size
        self._used += taken
        return True


def _signed(numbers: list[int]) -> list[int]:
    found = [(n & _MASK64 ^ 1 << 63) - (1 << 63) for n in numbers]
    return found + [0] * (NUMBERS - len(found))


def file_name(text: str, kind: str) -> str:
    """The file of the stencil, or handler, for a template."""
    suffix = "handler" if kind == "handlers" else "snippet"
    return f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.{suffix}"


def file_bytes(blob: bytes) -> bytes:
    """The contents of that file."""
    return _HEAD.pack(_MAGIC, crc32(blob)) + blob
