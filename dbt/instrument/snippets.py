"""What plugins insert: IR that runs before an instruction, changes only memory of the host, and may call Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.engine.formats import NUMBERS
from dbt.errors import UserError
from dbt.ir.builder import Builder
from dbt.ir.ops import END, FLAGS_IN, FLAGS_OUT, FP, LEAVE, LOAD, OPS, PUT, STORE
from dbt.ir.types import I64, Type, int_type
from dbt.ir.values import Place, Value

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.frontends.forms import Form

    from .accesses import Access
    from .blocks import Event, Instruction
    from .counters import Counter, Ring

_WORD: Final = 8
_FORBIDDEN: Final = PUT | FLAGS_OUT | FP | END


class Snippet(Builder):
    """IR that runs before an instruction: a Builder with what concerns the instruction and the host's memory."""

    def __init__(self, instruction: Instruction) -> None:
        super().__init__()
        self.instruction: Final = instruction
        self.numbers: Final[list[int]] = []
        self.tokens: Final[list[int]] = []  # numbers of the instruction's register tokens
        self.calls = False
        self.again: Callable[[Form], list[str]] | None = None  # the same for other forms, as text of templates
        self._copies: dict[Value, Value] = {}

    # operands
    def constant(self, value: int) -> Value:
        """A number of 64 bits, of which the compiled code knows nothing, so that it serves others as well.

        There are four for a snippet; further ones become part of the code.
        """
        if len(self.numbers) == NUMBERS:
            return self.const(I64, value)
        self.numbers.append(value)
        return self.number(len(self.numbers) - 1)

    def register(self, name: str) -> Value:
        """A register of the guest before the instruction: i64; of v0..v31 the low half."""
        if name == "pc":
            return self.pc()
        places = self.instruction.block.cpu.info.registers
        if name not in places:
            raise UserError(f"no register {name!r}", "Registers: x0..x30, w0..w30, sp, pc, v0..v31, tpidr_el0.")
        offset, size = places[name]
        value = self.get(int_type(min(size, _WORD) * 8), Place(None, offset))
        return value.zext(64)

    def address(self, access: Access) -> Value:
        """The address of an access of the instruction: i64, with the top byte that the guest gave it."""
        return self._copy(access.base) + access.offset if access.offset else self._copy(access.base)

    def _copy(self, value: Value) -> Value:
        """A value of the form's template, computed here."""
        found = self._copies.get(value)
        if found is None:
            op = value.op
            attrs = dict(op.attrs)
            place = attrs.get("place")
            if isinstance(place, Place) and place.token is not None:
                if place.token not in self.tokens:
                    self.tokens.append(place.token)
                attrs["place"] = Place(self.tokens.index(place.token), place.offset)
            args = [self._copy(arg) for arg in op.args]
            found = self._copies[value] = self.value(op.name, *args, type=value.type, **attrs)
        return found

    # the host's memory
    def host_load(self, type_: Type, address: Value) -> Value:
        """Read memory of the host."""
        return self.load(type_, address, space="host")

    def host_store(self, address: Value, value: Value) -> None:
        """Write memory of the host."""
        self.store(address, value, space="host")

    def add(self, counter: Counter, value: Value | int = 1) -> None:
        """Add to a counter. With a condition's `zext(64)` as value, it counts where the condition holds."""
        cell = self.constant(counter.address)
        self.host_store(cell, self.host_load(I64, cell) + value)

    def write(self, ring: Ring, *fields: Value, when: Value | None = None) -> None:
        """Write a record of i64 values; `when`, an i1: only if it holds."""
        if len(fields) != ring.fields:
            raise UserError(f"{len(fields)} fields for a ring of {ring.fields}", "Give one value for each field.")
        head = self.constant(ring.address)
        at = self.host_load(I64, head)
        for i, field in enumerate(fields):
            self.host_store(at + _WORD * i if i else at, field)
        size = _WORD * ring.fields
        after = at + (size if when is None else when.select(self.const(I64, size), self.const(I64, 0)))
        self.host_store(head, after)
        full = after.eq(self.host_load(I64, head + _WORD))
        self.event(full, self.constant(self.instruction.block.number_of(ring.flush, self.instruction)))

    def call(self, function: Callable[[Event], object], when: Value | None = None) -> None:
        """Call Python; `when`, an i1: only if it holds."""
        self._need_exact("calls Python")
        self.calls = True
        number = self.constant(self.instruction.block.number_of(function, self.instruction))
        self.event(1 if when is None else when, number)

    # what holds for all of it
    def _need_exact(self, what: str) -> None:
        if not self.instruction.block.exact:
            raise UserError(f"inserted code {what}, but flags are not kept exact", "Set `exact = True` in the plugin.")

    def check(self) -> None:
        """Raise UserError for anything that could change what the guest does."""
        for op in self.ops:
            effects = OPS[op.name].effects
            if effects & FLAGS_IN:
                self._need_exact("looks at flags")
            if effects & (LOAD | STORE) and op.attrs.get("space") != "host":
                raise UserError(f"inserted code uses {op.name} on the guest's memory", "Read it in a callback.")
            if effects & _FORBIDDEN or (effects & LEAVE and op.name != "event") or op.name == "helper":
                raise UserError(f"inserted code uses {op.name}, which would change the guest", "Compute, count, write.")
