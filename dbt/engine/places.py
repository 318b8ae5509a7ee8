"""Guest registers as the optimizer sees them: units that are kept in SSA values, numbered, and sets of them as ints."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.ir.state import StateOffsets
from dbt.ir.values import Place

if TYPE_CHECKING:
    from dbt.frontends.guest import Guest
    from dbt.frontends.tables import Decoded


class Unit(NamedTuple):
    """One register: its number, and where it is in Env."""

    number: int
    offset: int
    size: int  # bytes


def offset_of(place: Place, decoded: Decoded) -> int:
    """Where in Env a place of an instruction's template is."""
    return place.offset if place.token is None else place.offset + decoded.r[place.token]


class Places:
    """The units of a guest. State that lowering reaches by itself (StateOffsets) is no unit and stays in Env."""

    def __init__(self, guest: Guest) -> None:
        state = import_module(f"{guest.package}.state")
        self.zero: Final[int] = state.ZERO  # reads as 0
        self.junk: Final[int] = state.JUNK  # is never read
        self.units: Final[list[Unit]] = []
        self._at: Final[dict[int, Unit]] = {}
        self._forms: Final[dict[int, list[tuple[bool, Place]]]] = {}
        untouched = set(StateOffsets())
        for offset, size in sorted(set(guest.registers.values())):
            if offset not in untouched and offset not in self._at:
                unit = Unit(len(self.units), offset, size)
                self.units.append(unit)
                self._at.update((byte, unit) for byte in range(offset, offset + size))

    def unit(self, offset: int) -> Unit | None:
        """The unit that a byte of Env belongs to."""
        return self._at.get(offset)

    def of(self, decoded: Decoded) -> tuple[int, int]:
        """The sets of units that an instruction reads and writes."""
        places = self._forms.get(decoded.form.id)
        if places is None:
            places = self._forms[decoded.form.id] = [
                (op.name == "put", place)
                for op in decoded.form.template.ops
                if isinstance(place := op.attrs.get("place"), Place)
            ]
        reads = writes = 0
        for written, place in places:
            unit = self._at.get(offset_of(place, decoded))
            if unit is not None:
                if written:
                    writes |= 1 << unit.number
                else:
                    reads |= 1 << unit.number
        return reads, writes
