"""A guest architecture: its rows, registers, features, and how they are found by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Final

from .forms import Form, enumerate_forms, rows_of
from .pattern import RowError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    from .lifter import Lifter
    from .tables import Tables

GUESTS: Final = {"a64": "a64", "aarch64": "a64", "arm64": "a64"}  # name or alias: folder of frontends/


@dataclass(frozen=True, slots=True)
class Feature:
    """An optional part of the architecture: where Linux announces it (`hwcap` 1 or 2, `bit`), and what it is."""

    name: str
    hwcap: int
    bit: int
    description: str


@dataclass(slots=True)
class Guest:
    """One guest architecture. `modules` are the names of the modules with its rows, relative to `package`."""

    name: str
    aliases: tuple[str, ...]
    package: str
    modules: Sequence[str]
    width: int  # bits of an instruction
    machine: int  # e_machine of its ELF files
    lifter: type[Lifter]
    registers: Mapping[str, tuple[int, int]]  # name: (byte offset in Env.guest, size in bytes)
    all_features: Sequence[Feature]
    _forms: list[Form] | None = field(default=None, repr=False)
    _defined: list[Form] | None = field(default=None, repr=False)
    _tables: Tables | None = field(default=None, repr=False)

    def row_modules(self) -> list[ModuleType]:
        """The imported modules that hold the rows."""
        return [import_module(f"{self.package}.{name}") for name in self.modules]

    @property
    def forms(self) -> list[Form]:
        """All forms by id; form 0 is 'undefined'."""
        if self._defined is None:
            self._defined = [form for form in self._all_forms() if not form.row.undefined]
        return self._defined

    @property
    def tables(self) -> Tables:
        """The decoder's tables."""
        if self._tables is None:
            from .tables import Tables

            self._tables = Tables(self._all_forms(), self.width)
        return self._tables

    def _all_forms(self) -> list[Form]:
        if self._forms is None:
            self._forms = enumerate_forms(self.row_modules(), self.width, self.lifter)
        return self._forms

    @property
    def features(self) -> list[Feature]:
        """What rows implement, in the order of `all_features`."""
        known = {feature.name: feature for feature in self.all_features}
        used: set[str] = set()
        for row in rows_of(self.row_modules()):
            if row.feature is not None:
                if row.feature not in known:
                    raise RowError(f"{row.group}: unknown feature {row.feature!r}")
                used.add(row.feature)
        return [feature for feature in self.all_features if feature.name in used]

    @property
    def hwcap(self) -> tuple[int, int]:
        """AT_HWCAP and AT_HWCAP2."""
        words = [0, 0]
        for feature in self.features:
            words[feature.hwcap - 1] |= 1 << feature.bit
        return words[0], words[1]


def load_guest(name: str) -> Guest:
    """The guest of that name or alias (KeyError: there is none)."""
    guest = import_module(f"dbt.frontends.{GUESTS[name]}.guest").GUEST
    assert isinstance(guest, Guest)
    return guest
