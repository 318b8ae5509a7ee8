"""The serialised tables: their layout, and a decoder that knows nothing but the bytes."""

from __future__ import annotations

import struct
from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.frontends import tables as module
from dbt.frontends.guest import load_guest

from dbt.engine.formats import FormInfo, Node, OperandInfo

if TYPE_CHECKING:
    from dbt.frontends.tables import TableBytes

MASK64 = (1 << 64) - 1


@pytest.fixture(scope="module")
def serialised() -> TableBytes:
    return load_guest("a64").tables.serialise()


@pytest.mark.parametrize(
    ("declared", "packed"),
    [(Node, module._NODE), (FormInfo, module._FORM), (OperandInfo, module._OPERAND)],
    ids=["Node", "FormInfo", "OperandInfo"],
)
def test_formats_are_the_structs(declared: type, packed: struct.Struct) -> None:
    assert declared.size == packed.size  # type: ignore[attr-defined]


def test_counts(serialised: TableBytes) -> None:
    sizes = {"nodes": 12, "children": 4, "forms": 24, "operands": 20, "tokens": 2, "constants": 8}
    for name, size in sizes.items():
        assert len(getattr(serialised, name)) == size * serialised.counts[name]
    assert 0 < serialised.n_fusable < 255, "FormInfo.fuse_first is a byte"


def decode(tables: TableBytes, word: int, pc: int) -> tuple[int, list[int], int, int]:
    """As dbt/engine/decode.py does it."""
    child = 0
    while child >= 0:
        shift, mask, base = struct.unpack_from("<III", tables.nodes, 12 * child)
        (child,) = struct.unpack_from("<i", tables.children, 4 * (base + (word >> shift & mask)))
    number = ~child
    fixed, value, first, count = struct.unpack_from("<IIIB", tables.forms, 24 * number)
    if word & fixed != value:
        number = 0
        first, count = struct.unpack_from("<IB", tables.forms, 8)
    tokens = [0] * 6
    values = [0, 0]
    for index in range(first, first + count):
        kind, slot, n, sign, shift, base, has_table, _, table, *parts = struct.unpack_from(
            "<8BI4B4B", tables.operands, 20 * index
        )
        number_ = 0
        for low, width in zip(parts[:n], parts[4 : 4 + n], strict=True):
            number_ = number_ << width | word >> low & ((1 << width) - 1)
        if kind == 0:
            (tokens[slot],) = struct.unpack_from("<H", tables.tokens, 2 * (table + number_))
            continue
        if has_table:
            (number_,) = struct.unpack_from("<q", tables.constants, 8 * (table + number_))
        if sign:
            number_ = (number_ & ((1 << sign) - 1) ^ 1 << sign - 1) - (1 << sign - 1)
        number_ = (number_ << shift) + (0, pc, pc & ~0xFFF)[base] & MASK64
        values[kind - 1] = number_ - (1 << 64) if number_ >> 63 else number_
    return number, tokens, values[0], values[1]


def test_bytes_decode_as_objects_do(serialised: TableBytes) -> None:
    random = Random(1)
    guest = load_guest("a64")
    for form in guest.forms:
        for _ in range(4):
            word = form.value | random.getrandbits(32) & ~form.mask
            pc = random.getrandbits(46) & ~3
            found = guest.tables.decode(word, pc)
            assert decode(serialised, word, pc) == (found.form.id, list(found.r), found.imm, found.target), form.name
