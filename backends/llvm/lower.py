"""Templates to LLVM IR: the frame that the lowering functions of each kind of op hang in.

A lowering function takes the `Lowering` and the op and returns what stands for its result: an LLVM operand (text), an
`Immediate` (a number of the record that still waits for a register), or None for an op without a result. The functions
are registered by op name in the `LOWER` tables of lower_int, lower_vector, lower_memory, lower_flags, lower_control and
fp. They write through `low.emit`, `low.line` and `low.call` and read arguments with `low.use`.

Guest memory: host address = base + (address AND mask). Env loads of operands that only feed a select are volatile, or
LLVM turns 'select of loads' into 'load of a selected address'.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.ir.ops import END, FLAGS_OUT, OPS
from dbt.ir.types import I128
from dbt.ir.values import IRError

from .source import Flags, Immediate, Source
from .text import llvm_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dbt.ir.state import StateOffsets
    from dbt.ir.types import Type
    from dbt.ir.values import Op, Place, Template, Value

    from .text import Body

    Operand = str | Immediate | None
    Lower = Callable[["Lowering", Op], Operand]


BITWISE: Final = frozenset(("get", "put", "load", "store", "and", "or", "xor", "bitcast"))


class Pending(NamedTuple):
    """Flags that were set by a `flags` op and are still its operands, not words."""

    kind: str
    bits: int
    a: str
    b: str
    result: str
    carry: str | None


class Lowering:
    """Lowers one template (or two in a row) into the body of `source`."""

    def __init__(self, source: Source, offsets: StateOffsets, helpers: Sequence[str] = ()) -> None:
        self.source: Final = source
        self.body: Final[Body] = source.body
        self.offsets: Final = offsets
        self.helpers: Final = helpers  # names in the order of Env.helpers
        self.flags: Flags | Pending = Flags("%n", "%z", "%c", "%v")
        self.selected: Final[set[int]] = set()  # values that selects choose from
        self._sets_flags = False
        self.uses: Final[Counter[int]] = Counter()  # of values by other ops
        self._numeric: Final[set[int]] = set()  # 128-bit integers that are more than moved
        self._values: Final[dict[int, str | Immediate]] = {}
        self._held: Final[dict[Immediate, str]] = {}

    # what lowering functions use
    def emit(self, text: str) -> str:
        """Append an instruction; its result."""
        return self.body.emit(text)

    def line(self, text: str) -> None:
        """Append an instruction without a result."""
        self.body.line(text)

    def call(self, result: str, name: str, *arguments: tuple[str, str]) -> str:
        """Call an LLVM intrinsic with (type, operand) pairs."""
        return self.body.call(result, name, *arguments)

    def operand(self, value: Value) -> str | Immediate:
        """What stands for a value: text, or an immediate that is in no register yet."""
        return self._values[value.index]

    def use(self, value: Value) -> str:
        """An operand for a value that may stand anywhere."""
        found = self._values[value.index]
        return found if isinstance(found, str) else self.hold(found)

    def hold(self, immediate: Immediate) -> str:
        """An immediate in a register; the same register for the same one while in one block."""
        held = self._held.get(immediate)
        if held is None:
            held = self._held[immediate] = self.source.value(immediate)
        return held

    def fold(self, value: Value) -> str:
        """An operand for a place where one instruction can take a 32-bit constant."""
        found = self._values[value.index]
        if isinstance(found, str):
            return found
        return self.source.folded(found) or self.hold(found)

    def typed(self, value: Value) -> str:
        """Type and operand, as instructions list them."""
        return f"{llvm_type(value.type)} {self.use(value)}"

    def read(self, pointer: str, type_: str, *, ordered: bool = False) -> str:
        """Load a value of an LLVM type from guest memory. `ordered`: acquire."""
        if ordered and type_.startswith("i"):
            return self.emit(f"load atomic volatile {type_}, ptr {pointer} acquire, align {int(type_[1:]) // 8}")
        value = self.emit(f"load volatile {type_}, ptr {pointer}, align 1")
        if ordered:
            self.line("fence acquire")
        return value

    def write(self, pointer: str, type_: str, value: str) -> None:
        """Store a value of an LLVM type to guest memory, in no order."""
        self.line(f"store volatile {type_} {value}, ptr {pointer}, align 1")

    def is_moved(self, value: Value) -> bool:
        """Whether an i128 is only moved or combined bitwise: then it is better held in a vector register."""
        return value.type is I128 and value.index not in self._numeric

    def is_index(self, value: Value) -> bool:  # noqa: ARG002 - regions know
        """Whether a value is known to be so small that it may be added to a masked address."""
        return False

    def known_pointer(self, address: Value) -> str:  # noqa: ARG002 - regions keep some
        """The host pointer of a guest address where it is there already; empty: it is to be computed."""
        return ""

    def written(self, place: Place) -> None:
        """A register has been written."""

    def compared(self, number: Value) -> bool:
        """Whether flags or a comparison may be taken from an operation with this number."""
        return self._sets_flags or self.uses[number.index] > 1

    def env(self, offset: int) -> str:
        """Pointer to a byte offset in Env."""
        return self.emit(f"getelementptr i8, ptr %env, i64 {offset}")

    @contextmanager
    def side_block(self) -> Iterator[None]:
        """What is written inside does not dominate what follows: immediates held there are forgotten after it."""
        before = dict(self._held)
        yield
        self._held.clear()
        self._held.update(before)

    def before(self, op: Op) -> None:
        """Called in front of each op: for code that has to be told apart by instructions."""

    def after(self, op: Op) -> None:
        """Called behind each op."""

    # the driver
    def run(self, template: Template) -> None:
        """Lower every op. The last one ends the function or, with no END op, the next edge does."""
        table = lowering_table()
        self._sets_flags = any(OPS[op.name].effects & FLAGS_OUT for op in template.ops)
        for op in template.ops:
            self.uses.update(arg.index for arg in op.args)
            if op.name not in BITWISE:
                self._numeric.update(arg.index for arg in op.args)
                if op.result is not None:
                    self._numeric.add(op.result.index)
            if op.name == "select":
                self.selected.update(arg.index for arg in op.args[1:])
        for op in template.ops:
            self.before(op)
            lower = table.get(op.name)
            if lower is None:
                raise IRError(f"{template.name}: the LLVM back end has no lowering for {op.name}")
            result = lower(self, op)
            if op.result is not None:
                if result is None:
                    raise IRError(f"{template.name}: lowering of {op!r} gave no result")
                self._values[op.result.index] = result
            self.after(op)
        if not template.ops or not OPS[template.ops[-1].name].effects & END:
            from .lower_flags import words

            self.source.next(words(self))


_TABLE: Final[dict[str, Lower]] = {}


def lowering_table() -> dict[str, Lower]:
    """Every lowering function by op name. Each op of the IR's table has exactly one."""
    if not _TABLE:
        from . import fp, lower_control, lower_flags, lower_int, lower_memory, lower_vector

        for module in (lower_int, lower_vector, lower_memory, lower_flags, lower_control, fp):
            for name, function in module.LOWER.items():
                if name not in OPS or name in _TABLE:
                    raise IRError(f"{module.__name__} registers {name!r}, which is unknown or has a lowering already")
                _TABLE[name] = function
    return _TABLE


def int_text(value: int, type_: Type) -> str:
    """A constant of a scalar integer type."""
    return str(bool(value)).lower() if type_.bits == 1 else str(value & ((1 << type_.bits) - 1))
