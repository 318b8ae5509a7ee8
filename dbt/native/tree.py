"""The typed tree: what the checker makes of a native function, and what both emitters read.

Every expression has its type; every conversion is a node; nothing implicit is left. Operands are evaluated from left
to right, and the value of an assignment before the address it is stored to, as Python does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .function import Assembly, Native, Table
    from .types import Function


@dataclass(slots=True)
class Expr:
    """An expression; every one has a type."""

    type: Any


@dataclass(slots=True)
class Literal(Expr):
    """An integer, a bool, or (of a pointer type) an address. Of type CONST: an untyped constant."""

    value: int


@dataclass(slots=True)
class Local(Expr):
    """The value of a parameter or local variable."""

    name: str


@dataclass(slots=True)
class FunctionRef(Expr):
    """The address of a native function."""

    function: Native


@dataclass(slots=True)
class TableRef(Expr):
    """The address of a constant table."""

    table: Table
    name: str


@dataclass(slots=True)
class SymbolRef(Expr):
    """The address of a label of assembly text."""

    assembly: Assembly
    symbol: str


@dataclass(slots=True)
class Load(Expr):
    """The value in memory at an address."""

    address: Expr
    volatile: bool = False


@dataclass(slots=True)
class Offset(Expr):
    """base + index * scale in bytes; index is a 64-bit integer."""

    base: Expr
    index: Expr
    scale: int


@dataclass(slots=True)
class Binary(Expr):
    """op: add sub mul and or xor shl shr div rem; both operands and the result have the same type."""

    op: str
    left: Expr
    right: Expr


@dataclass(slots=True)
class Compare(Expr):
    """op: eq ne lt le gt ge."""

    op: str
    left: Expr
    right: Expr


@dataclass(slots=True)
class Not(Expr):
    """The other truth value."""

    operand: Expr


@dataclass(slots=True)
class Logical(Expr):
    """`and` and `or` of bools, evaluated as far as needed."""

    op: str
    operands: list[Expr]


@dataclass(slots=True)
class Select(Expr):
    """`a if condition else b`."""

    condition: Expr
    then: Expr
    otherwise: Expr


@dataclass(slots=True)
class Convert(Expr):
    """Between integers, pointers and bools, by value: extend by the source's sign, or truncate."""

    operand: Expr


@dataclass(slots=True)
class Call(Expr):
    """A call of a function or through a pointer."""

    target: Expr
    kind: Function
    arguments: list[Expr]


@dataclass(slots=True)
class Intrinsic(Expr):
    """ctz syscall atomic_add ...; `text` belongs to asm (template, constraints)."""

    name: str
    arguments: list[Expr]
    text: tuple[str, ...] = ()


@dataclass(slots=True)
class New(Expr):
    """Stack space, one piece for each place in the source; its contents are undefined."""

    slot: int
    size: int


@dataclass(slots=True)
class Stmt:
    """A statement, and the line of the file it comes from."""

    line: int


@dataclass(slots=True)
class Assign(Stmt):
    """To a local variable."""

    name: str
    value: Expr


@dataclass(slots=True)
class Store(Stmt):
    """To memory."""

    address: Expr
    value: Expr
    volatile: bool = False


@dataclass(slots=True)
class Eval(Stmt):
    """A call for its effect."""

    value: Expr


@dataclass(slots=True)
class TailCall(Stmt):
    """`tail(f, ...)`: go to a function and never come back."""

    call: Call


@dataclass(slots=True)
class If(Stmt):
    """Two branches."""

    condition: Expr
    body: list[Stmt]
    orelse: list[Stmt]


@dataclass(slots=True)
class While(Stmt):
    """`while condition`."""

    condition: Expr
    body: list[Stmt]


@dataclass(slots=True)
class For(Stmt):
    """Python's `for name in range(start, stop, step)`; step is a constant other than 0."""

    name: str
    kind: Any
    start: Expr
    stop: Expr
    step: int
    body: list[Stmt]


@dataclass(slots=True)
class Switch(Stmt):
    """Values are distinct; `default` may be empty."""

    subject: Expr
    cases: list[tuple[list[int], list[Stmt]]]
    default: list[Stmt]


@dataclass(slots=True)
class Break(Stmt):
    """Out of the innermost loop."""


@dataclass(slots=True)
class Continue(Stmt):
    """On with the next round."""


@dataclass(slots=True)
class Return(Stmt):
    """Leave the function."""

    value: Expr | None


@dataclass(slots=True)
class FunctionTree:
    """A checked function. `locals` holds parameters, variables and the checker's own temporaries."""

    native: Native
    kind: Function
    parameters: list[str]
    locals: dict[str, Any] = field(default_factory=dict)
    slots: list[int] = field(default_factory=list)  # sizes of the pieces of stack space
    body: list[Stmt] = field(default_factory=list)
