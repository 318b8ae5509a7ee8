"""The tables that decode a guest's instructions, for the native decoder as bytes and for Python as objects.

Both walk the same decision tree and the same extractions, laid out as the structs of dbt/engine/layout.py. The tree is
built at once; what needs templates (operands, flags) is found out form by form, or for all of them by `serialise`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.engine.layout import TOKENS

from .operands import IMMEDIATE, MAX_PARTS, REGISTER, Extraction
from .tree import Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .forms import Form
    from .guest import Guest
    from .metadata import Metadata

# formats.Node, FormInfo, OperandInfo; a test compares them.
_NODE: Final = struct.Struct("<III")
_FORM: Final = struct.Struct("<III11B1x")
_OPERAND: Final = struct.Struct("<8BI4B4B")


class Decoded(NamedTuple):
    """One decoded instruction: what layout.Record holds, with the form itself."""

    form: Form
    length: int
    r: tuple[int, ...]
    imm: int
    target: int
    pc: int


class TableBytes(NamedTuple):
    """The serialised tables, each an array of the struct or integer named, and how many elements it has."""

    nodes: bytes  # Node
    children: bytes  # i32
    forms: bytes  # FormInfo, by form id
    operands: bytes  # OperandInfo
    tokens: bytes  # u16
    constants: bytes  # i64
    counts: dict[str, int]  # of elements, by the names above
    n_fusable: int  # forms that may start a fused pair: FormInfo.fuse_first counts them from 1


class Tables:
    """Decoder tables over a guest's forms."""

    def __init__(self, forms: Sequence[Form], width: int) -> None:
        self.forms = [form for form in forms if not form.row.undefined]
        self.tree = Tree(forms, width)
        self._length = width // 8
        self._metadata: list[Metadata | None] = [None] * len(self.forms)

    def decode(self, word: int, pc: int = 0) -> Decoded:
        """Decode one instruction word at address `pc`."""
        form = self.forms[self.tree.find(word)]
        if word & form.mask != form.value:
            form = self.forms[0]
        r = [0] * TOKENS
        values = [0, 0]
        for extraction in form.extractions:
            value = extraction.value(word, pc)
            if extraction.kind == REGISTER:
                r[extraction.slot] = value
            else:
                values[extraction.kind - IMMEDIATE] = value
        return Decoded(form, self._length, tuple(r), values[0], values[1], pc)

    def metadata(self, form: Form) -> Metadata:
        """What FormInfo says of a form's template."""
        found = self._metadata[form.id]
        if found is None:
            from .metadata import metadata_of

            found = self._metadata[form.id] = metadata_of(form.template)
        return found

    def fusable(self) -> list[Form]:
        """The forms that may start a fused pair, in the order of FormInfo.fuse_first. Builds all templates."""
        return [form for form in self.forms if self.metadata(form).fuse_first]

    def serialise(self) -> TableBytes:
        """Everything as bytes. Builds all templates."""
        store = _Store()
        forms = bytearray()
        n_fusable = 0
        for form in self.forms:
            m = self.metadata(form)
            first, count = store.operands_of(form.extractions)
            n_fusable += m.fuse_first
            forms += _FORM.pack(
                form.mask, form.value, first, count, m.flags_read, m.flags_written, m.flags_killed, m.ends, m.uses,
                n_fusable if m.fuse_first else 0, 0 if m.fuse_second is None else 1 + m.fuse_second,
                m.accesses, m.updates, m.part,
            )  # fmt: skip
        nodes = b"".join(_NODE.pack(*node) for node in self.tree.nodes)
        children = struct.pack(f"<{len(self.tree.children)}i", *self.tree.children)
        operands = b"".join(store.operands)
        tokens = struct.pack(f"<{len(store.tokens)}H", *store.tokens)
        constants = struct.pack(f"<{len(store.constants)}q", *store.constants)
        counts = {
            "nodes": len(self.tree.nodes), "children": len(self.tree.children), "forms": len(self.forms),
            "operands": len(store.operands), "tokens": len(store.tokens), "constants": len(store.constants),
        }  # fmt: skip
        return TableBytes(nodes, children, bytes(forms), operands, tokens, constants, counts, n_fusable)


class _Store:
    """Collects operands, token tables and constant tables, each distinct one once."""

    def __init__(self) -> None:
        self.operands: list[bytes] = []
        self.tokens: list[int] = []
        self.constants: list[int] = []
        self._seen: dict[tuple[Extraction, ...], int] = {}
        self._tables: dict[tuple[bool, tuple[int, ...]], int] = {}
        self._identical: dict[int, tuple[tuple[int, ...], int]] = {}

    def operands_of(self, extractions: tuple[Extraction, ...]) -> tuple[int, int]:
        """(index of the first, number)."""
        first = self._seen.get(extractions)
        if first is None:
            first = self._seen[extractions] = len(self.operands)
            self.operands += [self._operand(e) for e in extractions]
        return first, len(extractions)

    def _operand(self, e: Extraction) -> bytes:
        padding = [0] * (MAX_PARTS - len(e.parts))
        return _OPERAND.pack(
            e.kind, e.slot, len(e.parts), e.sign, e.shift, e.pc_base, e.table is not None, 0,
            0 if e.table is None else self._table(e.table, is_tokens=e.kind == REGISTER),
            *(position for position, _ in e.parts), *padding, *(width for _, width in e.parts), *padding,
        )  # fmt: skip

    def _table(self, table: tuple[int, ...], *, is_tokens: bool) -> int:
        key = (is_tokens, table)
        start = self._tables.get(key)
        if start is None:
            values = self.tokens if is_tokens else self.constants
            start = self._tables[key] = len(values)
            values += table if is_tokens else (v - (1 << 64) if v >> 63 == 1 else v for v in table)
        return start


def build_tables(guest: Guest) -> Tables:
    """The guest's tables (kept by the guest)."""
    return guest.tables
