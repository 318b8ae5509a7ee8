"""Register file and guest memory as Python source: calls into state.State."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .source import MASK64, Writer, place_of, type_of

if TYPE_CHECKING:
    from dbt.ir.types import Type
    from dbt.ir.values import Op, Place, Value


def _place(place: Place, type_: Type) -> tuple[str, str]:
    """(view, index) of a place."""
    bits = min(type_.bits, 64)
    shift = {8: 0, 16: 1, 32: 2, 64: 3}[bits]
    if place.token is None:
        return f"G{bits}", str(place.offset >> shift)
    offset = f"r[{place.token}]" + (f" + {place.offset}" if place.offset else "")
    return f"G{bits}", f"{offset} >> {shift}" if shift else offset


class MemoryWriter(Writer):
    """Places and accesses."""

    def op_get(self, op: Op) -> str:
        """Read the register file."""
        place, type_ = place_of(op), type_of(op)
        view, index = _place(place, type_)
        if type_.bits == 128:
            whole = f"{view}[{index}] | {view}[({index}) + 1] << 64"
            return f"({whole},)" if type_.lanes else whole
        if not type_.lanes:
            return f"{view}[{index}]"
        return f"tuple({view}[{index}:({index}) + {type_.lanes}])"

    def op_put(self, op: Op) -> str:
        """Write the register file."""
        place, type_, (value,) = place_of(op), op.args[0].type, self.args(op)
        view, index = _place(place, type_)
        if type_.bits == 128:
            lane = f"{value}[0]" if type_.lanes else value
            return f"{view}[{index}], {view}[({index}) + 1] = {lane} & {MASK64}, {lane} >> 64"
        if not type_.lanes:
            return f"{view}[{index}] = {value}"
        targets = ", ".join(f"{view}[i + {k}]" for k in range(type_.lanes))
        self.lines.append(f"i = {index}")
        return f"{targets}, = {value}"

    # memory
    def _loaded(self, text: str, type_: Type) -> str:
        return f"split({text}, {type_.bits}, {type_.lanes})" if type_.lanes else text

    def _stored(self, value: Value) -> str:
        name = self.names[value]
        return f"join({name}, {value.type.bits})" if value.type.lanes else name

    def op_load(self, op: Op) -> str:
        """Memory or I/O."""
        access = f"{self.args(op)[0]}, {type_of(op).width // 8}"
        space, endian = op.attrs["space"], op.attrs["endian"]
        plain = space == "memory" and endian == "little"
        return self._loaded(f"load({access})" if plain else f"load_as({access}, {space!r}, {endian!r})", type_of(op))

    def op_store(self, op: Op) -> str:
        """Memory or I/O."""
        access = f"{self.args(op)[0]}, {op.args[1].type.width // 8}, {self._stored(op.args[1])}"
        space, endian = op.attrs["space"], op.attrs["endian"]
        plain = space == "memory" and endian == "little"
        return f"store({access})" if plain else f"store_as({access}, {space!r}, {endian!r})"

    def op_load_exclusive(self, op: Op) -> str:
        """Load and arm."""
        return f"load_exclusive({self.args(op)[0]}, {type_of(op).width // 8})"

    def op_store_exclusive(self, op: Op) -> str:
        """Check and store."""
        address, value = self.args(op)
        return f"store_exclusive({address}, {op.args[1].type.width // 8}, {value})"

    def op_clear_exclusive(self, _op: Op) -> str:
        """Disarm."""
        return "clear_exclusive()"

    def op_rmw(self, op: Op) -> str:
        """Update."""
        address, value = self.args(op)
        size, endian = op.args[1].type.width // 8, op.attrs["endian"]
        return f"rmw({str(op.attrs['op'])!r}, {address}, {size}, {value}, {endian!r})"

    def op_cas(self, op: Op) -> str:
        """Compare and swap."""
        address, expected, new = self.args(op)
        return f"cas({address}, {op.args[1].type.width // 8}, {expected}, {new}, {op.attrs['endian']!r})"

    def op_fence(self, _op: Op) -> str:
        """Python runs one guest thread at a time, in order."""
        return ""
