"""Rows: the encodings of instructions, each written directly above the one function that says what they do.

A pattern lists an encoding from its highest bit down, in the manual's order and vocabulary: `01` fixed bits, `x` bits
that do not matter, `name:5` a field (`name`: one bit). Fields named in `static` choose structure: every value that
`where` accepts becomes a form of its own, and the function gets it as an int. Other fields are operands: a parameter
has the field's name and its annotation is the kind (see operands.py), or the row gives it by keyword:

    @a64("sf opc:2 100101 hw:2 imm16:16 Rd:5", static="sf opc", where="opc == 2", asm="movz {Rd}, {imm}",
         imm=Imm("imm16"))
    def MOVZ(cpu: Lifter, sf: int, imm: Imm, Rd: X) -> None: ...

Keywords may be operands, plain constants for the function, or functions of the statics that return either. A function
may have several rows. The decorator only annotates: forms.py makes forms of an explicit list of modules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from dbt.errors import InternalError

Semantics = TypeVar("Semantics", bound=Callable[..., None])
Statics = Mapping[str, int]
Asm = str | Callable[..., str]
Given = object  # an Operand, a constant, or a function of statics that returns one of them

_PIECE: Final = re.compile(r"[01x]+|[A-Za-z_]\w*(:[1-9]\d*)?")


class RowError(InternalError):
    """A row that contradicts itself, its function or another row. Our own mistake, found when tables are built."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed pattern: `value` is what the bits of `mask` must be; fields are (lowest bit, width)."""

    text: str
    width: int
    mask: int
    value: int
    fields: Mapping[str, tuple[int, int]]

    @classmethod
    def parse(cls, text: str, width: int) -> Pattern:
        """The pattern of an encoding of `width` bits."""
        mask = value = bits = 0
        for piece in text.split():
            if not _PIECE.fullmatch(piece):
                raise RowError(f"pattern {text!r}: {piece!r} is neither bits nor a field")
            bits += len(piece) if piece[0] in "01x" else int(piece.partition(":")[2] or 1)
        if bits != width:
            raise RowError(f"pattern {text!r} has {bits} bits instead of {width}")
        position = width
        fields: dict[str, tuple[int, int]] = {}
        for piece in text.split():
            if piece[0] in "01x":
                position -= len(piece)
                for offset, bit in enumerate(reversed(piece)):
                    if bit != "x":
                        mask |= 1 << (position + offset)
                        value |= int(bit) << (position + offset)
            else:
                name, _, digits = piece.partition(":")
                if name in fields:
                    raise RowError(f"pattern {text!r}: field {name} occurs twice")
                position -= int(digits or 1)
                fields[name] = (position, int(digits or 1))
        return cls(text, width, mask, value, fields)


@dataclass(frozen=True, slots=True)
class Row:
    """One encoding row as written; forms.py checks it against its function."""

    pattern: Pattern
    function: Callable[..., None]
    statics: tuple[str, ...]
    where: str | Callable[..., bool] | None
    asm: Asm
    feature: str | None
    undefined: bool
    given: Mapping[str, Given] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """The name of the function: stencils are compiled by groups."""
        return self.function.__name__

    def combinations(self) -> Iterator[dict[str, int]]:
        """The values of the static fields for which the encoding is allocated."""
        for name in self.statics:
            if name not in self.pattern.fields:
                raise RowError(f"{self.group}: static {name!r} is not a field of {self.pattern.text!r}")
        accept = self._filter()
        total = 1
        for name in self.statics:
            total <<= self.pattern.fields[name][1]
        for number in range(total):
            values, rest = {}, number
            for name in reversed(self.statics):
                width = self.pattern.fields[name][1]
                values[name], rest = rest & ((1 << width) - 1), rest >> width
            values = {name: values[name] for name in self.statics}
            if accept(values):
                yield values

    def _filter(self) -> Callable[[Statics], bool]:
        where = self.where
        if where is None:
            return lambda _: True
        if isinstance(where, str):
            code = compile(where, f"<where of {self.group}>", "eval")
            # A row is our own source; globals let a filter name the module's constants.
            return lambda values: bool(eval(code, self.function.__globals__, dict(values)))  # noqa: S307
        return lambda values: bool(call_with(where, values))


class Encoding:
    """The decorator of a guest's rows: `a64 = Encoding(32)`."""

    __slots__ = ("width",)

    def __init__(self, width: int) -> None:
        self.width = width

    def __call__(
        self,
        pattern: str,
        *,
        static: str = "",
        where: str | Callable[..., bool] | None = None,
        asm: Asm = "",
        feature: str | None = None,
        **given: Given,
    ) -> Callable[[Semantics], Semantics]:
        """Put a row above a function. `where`: an expression in, or a function of, statics; `asm`: see text.py."""
        return self._annotate(pattern, static, where, asm, feature, undefined=False, given=given)

    def undefined(
        self, pattern: str, *, static: str = "", where: str | Callable[..., bool] | None = None
    ) -> Callable[[Semantics], Semantics]:
        """Say that part of the encodings of a row below is UNDEFINED (fixes more bits than that row)."""
        return self._annotate(pattern, static, where, "", None, undefined=True, given={})

    def _annotate(
        self,
        pattern: str,
        static: str,
        where: str | Callable[..., bool] | None,
        asm: Asm,
        feature: str | None,
        *,
        undefined: bool,
        given: Mapping[str, Given],
    ) -> Callable[[Semantics], Semantics]:
        parsed = Pattern.parse(pattern, self.width)

        def annotate(function: Semantics) -> Semantics:
            row = Row(parsed, function, tuple(static.split()), where, asm, feature, undefined, given)
            vars(function).setdefault("rows", []).insert(0, row)
            return function

        return annotate


def call_with(function: Callable[..., object], values: Mapping[str, object]) -> object:
    """Call a row's function of statics with those that its parameters name; others must have a default."""
    names = argument_names(function)
    optional = names[len(names) - len(function.__defaults__ or ()) :]
    missing = [name for name in names if name not in values and name not in optional]
    if missing:
        code = function.__code__
        raise RowError(f"{code.co_filename}:{code.co_firstlineno}: {', '.join(missing)}: not a static field of the row")
    return function(**{name: values[name] for name in names if name in values})


def argument_names(function: Callable[..., object]) -> tuple[str, ...]:
    """The parameters (inspect.signature takes 100 times as long)."""
    return function.__code__.co_varnames[: function.__code__.co_argcount]
