"""The lifter: the IR builder that semantics functions see, which also hands out a form's tokens and immediates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.engine.layout import TOKENS
from dbt.ir.builder import Builder

from .operands import REGISTER, TARGET, Extraction, Imm
from .pattern import RowError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Lifter(Builder):
    """Builds the template of one form. `fields` are those of its row; a guest may add helpers in a subclass."""

    def __init__(self, name: str, fields: Mapping[str, tuple[int, int]]) -> None:
        super().__init__()
        self.name = name
        self.extractions: list[Extraction] = []
        self._fields = fields
        self._tokens: dict[tuple[tuple[str, ...], tuple[int, ...]], int] = {}
        self._slots: set[int] = set()

    def parts(self, names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
        """Where fields are in the instruction word."""
        for name in names:
            if name not in self._fields:
                raise RowError(f"{self.name}: {name!r} is not a field")
        return tuple(self._fields[name] for name in names)

    def token(self, names: tuple[str, ...], table: tuple[int, ...]) -> int:
        """The number of the record's token that is `table[fields]`; the same one for the same question."""
        key = (names, table)
        number = self._tokens.get(key)
        if number is None:
            parts = self.parts(names)
            entries = 1 << sum(width for _, width in parts)
            if entries > len(table):
                raise RowError(f"{self.name}: {' '.join(names)} is wider than {len(table)} registers")
            number = self._tokens[key] = len(self._tokens)
            if number >= TOKENS:
                raise RowError(f"{self.name}: more than {TOKENS} register tokens")
            self.extractions.append(Extraction(REGISTER, number, parts, table[:entries]))
        return number

    def immediate(self, imm: Imm) -> int:
        """Takes a slot of the record for an immediate: IMMEDIATE or TARGET."""
        slot = imm.PLAIN_SLOT
        if slot in self._slots:
            slot = TARGET
        if slot in self._slots:
            raise RowError(f"{self.name}: more than two immediates")
        self._slots.add(slot)
        self.extractions.append(imm.extraction(self.parts(imm.names), slot))
        return slot
