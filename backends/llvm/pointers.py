"""Registers with which a region reaches guest memory, kept as host pointers as well.

base + (register AND mask) is computed where a register is written, and where the new value is another one plus a small
number it is that one's pointer plus the number: so a loop over an array masks nothing, and accesses to the frame of a
function go by one pointer. That is right while no end of the range lies between the two values. If one does, the
pointer is in the guard zone, and the host faults, which is looked at again (FaultLocation.find).

How far a pointer may get off is limited: a register is *near* if it has been masked, or an access by it has not faulted
since it was written (then it is in the range). Only from a register that is near on all ways does another one follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.engine.former import MASK64, successors
from dbt.engine.places import offset_of
from dbt.ir.types import I64
from dbt.ir.values import Place

from .region_source import WORD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.frontends.forms import Form

    from dbt.engine.former import Region, Step
    from dbt.engine.places import Places, Unit
    from dbt.ir.values import Template, Value

STEP: Final = 1 << 15  # a pointer follows another one over less; guard zones absorb several such steps


class Root(NamedTuple):
    """A value that is a register and a number: its unit's number, and the number."""

    unit: int
    distance: int


class Effects(NamedTuple):
    """What an instruction does with such registers: accesses come before writes."""

    accesses: tuple[Root, ...]  # plain ones
    writes: dict[int, Root | None]  # by unit: what it gets, None: something else


class Pointers:
    """`used`: the set of such registers of a region. `template` gives the template of a form."""

    def __init__(self, region: Region, places: Places, template: Callable[[Form], Template]) -> None:
        self._places: Final = places
        self._template: Final = template
        self._effects: Final[dict[int, Effects]] = {}
        self._near: dict[int, int] = {}
        self.used = 0
        if not region.index_bits:
            return  # whole sums are masked
        for block in region.blocks.values():
            for step in block.steps:
                for op in template(step.decoded.form).ops:
                    if op.name in ("load", "store"):
                        self.used |= self._bases(op.args[0], step)
        if self.used:
            self._near = self._nearby(region)

    def number(self, place: Place, step: Step) -> int | None:
        """The number of the unit that a place is in, if it is one of these registers."""
        unit = self._unit(place, step)
        return None if unit is None else unit.number

    def near(self, pc: int) -> int:
        """The registers that are near where a block begins."""
        return self._near.get(pc, 0)

    def followed(self, step: Step, written: int, near: int) -> Root | None:
        """What pointer the one of a register that an instruction writes follows; None: it is masked."""
        root = self.effects(step).writes[written]
        near = self._accessed(step, near)
        return root if root is not None and (root.distance == 0 or near >> root.unit & 1) else None

    def after(self, step: Step, near: int) -> int:
        """The registers that are near behind an instruction."""
        before = near = self._accessed(step, near)
        for unit, source in self.effects(step).writes.items():
            stays = source is None or (source.distance == 0 and before >> source.unit & 1)
            near = near | 1 << unit if stays else near & ~(1 << unit)
        return near

    def _accessed(self, step: Step, near: int) -> int:
        """The registers that are near between an instruction's accesses and its writes."""
        for root in self.effects(step).accesses:
            near |= 1 << root.unit
        return near

    def effects(self, step: Step) -> Effects:
        """What an instruction does."""
        found = self._effects.get(step.pc)
        if found is None:
            found = self._effects[step.pc] = self._found(step)
        return found

    def root(self, value: Value, step: Step) -> Root | None:
        """What a value is, if it is one of these registers and a small number."""
        distance = 0
        while value.op.name in ("add", "sub"):
            number = _number(value.op.args[1], step)
            if number is None or value.type is not I64:
                return None
            distance += number if value.op.name == "add" else -number
            value = value.op.args[0]
        if value.op.name != "get" or value.type is not I64:
            return None
        place = value.op.attrs["place"]
        assert isinstance(place, Place)
        unit = self._unit(place, step)
        distance = (distance + (1 << 63) & MASK64) - (1 << 63)
        if unit is None or unit.offset != offset_of(place, step.decoded) or abs(distance) >= STEP:
            return None
        return Root(unit.number, distance)

    def _found(self, step: Step) -> Effects:
        accesses: list[Root] = []
        writes: dict[int, Root | None] = {}
        for op in self._template(step.decoded.form).ops:
            if op.name in ("load", "store") and op.attrs["space"] != "host":
                root = self.root(op.args[0], step)
                if root is not None:
                    accesses.append(root)
            place = op.attrs.get("place")
            if op.name == "put" and isinstance(place, Place):
                unit = self._unit(place, step)
                if unit is not None:
                    writes[unit.number] = None if unit.number in writes else self.root(op.args[0], step)
        return Effects(tuple(accesses), writes)

    def _unit(self, place: Place, step: Step) -> Unit | None:
        unit = self._places.unit(offset_of(place, step.decoded))
        return unit if unit is not None and self.used >> unit.number & 1 else None

    def _bases(self, address: Value, step: Step) -> int:
        """The registers in a sum."""
        if address.op.name in ("add", "sub"):
            return self._bases(address.op.args[0], step) | self._bases(address.op.args[1], step)
        place = address.op.attrs.get("place")
        if address.op.name != "get" or address.type is not I64 or not isinstance(place, Place):
            return 0
        unit = self._places.unit(offset_of(place, step.decoded))
        return 1 << unit.number if unit is not None and unit.size == WORD_BYTES else 0

    def _nearby(self, region: Region) -> dict[int, int]:
        near = dict.fromkeys(region.blocks, self.used)
        waiting = list(region.blocks)
        while waiting:
            block = region.blocks[waiting.pop()]
            found = near[block.pc]
            for step in block.steps:
                found = self.after(step, found)
            for target in successors(block, region.return_sites):
                if near.get(target, 0) & ~found:
                    near[target] &= found
                    waiting.append(target)
        return near


def _number(value: Value, step: Step) -> int | None:
    if value.op.name == "const":
        return int(str(value.op.attrs["value"]))
    return step.decoded.imm if value.op.name == "imm" else None
