"""Forms: a row with its static fields fixed. Each is one template, one stencil, one leaf of the decoder.

Enumeration is quick and checks rows against their functions. Templates are built when first asked for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from dbt.engine.layout import EXIT_UNDEFINED

from .operands import Extraction, Operand
from .pattern import Pattern, Row, RowError, argument_names, call_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import ModuleType

    from dbt.ir.builder import Template

    from .lifter import Lifter

_PLACEHOLDER: Final = re.compile(r"\{(\w+)(?::(\w*))?\}")
MAX_FORMS: Final = 1 << 16


class Form:
    """One form. `mask` and `value` are its fixed bits; id 0 is 'undefined', which every uncovered word decodes to."""

    __slots__ = ("_lifted", "_make", "id", "mask", "name", "parameters", "row", "statics", "value")

    def __init__(
        self, name: str, row: Row, statics: Mapping[str, int], parameters: Sequence[object], make: type[Lifter]
    ) -> None:
        self.id = 0
        self.name = name
        self.row = row
        self.statics = statics
        self.parameters = parameters
        self.mask, self.value = row.pattern.mask, row.pattern.value
        for field, number in statics.items():
            position, width = row.pattern.fields[field]
            self.mask |= ((1 << width) - 1) << position
            self.value |= number << position
        self._make = make
        self._lifted: tuple[Template, tuple[Extraction, ...]] | None = None

    def __repr__(self) -> str:
        return f"<form {self.id} {self.name}>"

    @property
    def group(self) -> str:
        """The name of its function."""
        return self.row.group

    @property
    def template(self) -> Template:
        """Its semantics, with tokens and immediates as operands."""
        return self._lift()[0]

    @property
    def extractions(self) -> tuple[Extraction, ...]:
        """How its operands are decoded; known once the template is."""
        return self._lift()[1]

    def _lift(self) -> tuple[Template, tuple[Extraction, ...]]:
        if self._lifted is None:
            cpu = self._make(self.name, self.row.pattern.fields)
            arguments = [p.bind(cpu) if isinstance(p, Operand) else p for p in self.parameters]
            self.row.function(cpu, *arguments)
            self._lifted = cpu.template(self.name), tuple(cpu.extractions)
        return self._lifted

    def operand(self, name: str) -> Operand:
        """The description of the operand that parameter or field `name` is."""
        names = parameter_names(self.row.function)
        if name in names:
            found = self.parameters[names.index(name)]
            if isinstance(found, Operand):
                return found
        raise KeyError(name)


def parameter_names(function: Callable[..., None]) -> tuple[str, ...]:
    """All but the lifter."""
    code = function.__code__
    return code.co_varnames[1 : code.co_argcount]


def placeholders(asm: str) -> list[tuple[str, str]]:
    """The (name, style) of an assembly template."""
    return [(m[1], m[2] or "") for m in _PLACEHOLDER.finditer(asm)]


def undefined_form(width: int, make: type[Lifter]) -> Form:
    """Form 0."""
    row = Row(Pattern.parse("x" * width, width), UNDEFINED, (), None, "undefined", None, undefined=False)
    return Form("UNDEFINED", row, {}, (), make)


def UNDEFINED(cpu: Lifter) -> None:
    """What words do that no row covers."""
    cpu.exit(EXIT_UNDEFINED)


def enumerate_forms(modules: Iterable[ModuleType], width: int, make: type[Lifter]) -> list[Form]:
    """All forms of the modules' rows, in the order of the source, numbered from 1; form 0 is in front.

    Rows marked undefined yield forms too (their id is 0): they cut holes into more general rows.
    """
    forms = [undefined_form(width, make)]
    number = 1
    names: dict[str, Row] = {}
    for row in rows_of(modules):
        for form in _forms_of_row(row, make):
            if not row.undefined:
                if form.name in names:
                    raise RowError(f"two forms are called {form.name}")
                names[form.name] = row
                form.id = number
                number += 1
            forms.append(form)
    if number > MAX_FORMS:
        raise RowError(f"{number} forms; a record holds a number below {MAX_FORMS}")
    return forms


def rows_of(modules: Iterable[ModuleType]) -> list[Row]:
    """The rows of all functions defined in the modules."""
    rows: list[Row] = []
    groups: dict[str, str] = {}
    for module in modules:
        for function in vars(module).values():
            found: list[Row] = getattr(function, "rows", []) if callable(function) else []
            if not found or function.__module__ != module.__name__:
                continue
            if groups.setdefault(function.__name__, module.__name__) != module.__name__:
                raise RowError(f"{function.__name__} is in {module.__name__} and {groups[function.__name__]}")
            rows += found
    return rows


def _forms_of_row(row: Row, make: type[Lifter]) -> Iterable[Form]:
    own: list[Row] = [r for r in vars(row.function)["rows"] if not r.undefined]
    prefix = row.group if len(own) < 2 or row.undefined else f"{row.group}.{1 + own.index(row)}"
    kinds = {} if row.undefined else _kinds(row)
    asked = _callable_names(row)
    for statics in row.combinations():
        name = "_".join([prefix, *(f"{field}{value}" for field, value in statics.items())])
        yield Form(name, row, statics, () if row.undefined else _parameters(row, statics, kinds, asked), make)


def _kinds(row: Row) -> dict[str, type]:
    """The annotations of the parameters that are classes of the function's module."""
    found: dict[str, type] = {}
    function = row.function
    for name in parameter_names(function):
        annotation = function.__annotations__.get(name)
        if isinstance(annotation, str):
            annotation = function.__globals__.get(annotation)
        if isinstance(annotation, type):
            found[name] = annotation
    return found


def _parameters(row: Row, statics: Mapping[str, int], kinds: Mapping[str, type], asked: set[str]) -> list[object]:
    """What the function is called with; checks that parameters, fields and keywords (`asked`: for names) agree."""
    where = f"{row.group}: row {row.pattern.text!r}"
    given, asm = resolve(row, statics)
    names = parameter_names(row.function)
    parameters: list[object] = []
    for name in names:
        kind = kinds.get(name)
        if name in given:
            value = given[name]
            if isinstance(value, Operand) and kind is not None and not isinstance(value, kind):
                raise RowError(f"{where}: {name} is a {type(value).__name__}, the function wants a {kind.__name__}")
            parameters.append(value)
        elif name in statics:
            parameters.append(statics[name])
        elif name in row.pattern.fields:
            if kind is None or not issubclass(kind, Operand):
                raise RowError(f"{where}: {name} is not static, so its annotation must be a kind of operand")
            parameters.append(kind(name))
        else:
            raise RowError(f"{where}: parameter {name} is neither a field nor a keyword")
    used = {name for name, _ in placeholders(asm)} | asked | set(statics)
    for value in (*parameters, *given.values()):
        if isinstance(value, Operand):
            for name in value.names:
                if name not in row.pattern.fields:
                    raise RowError(f"{where}: operand field {name!r} is not in the pattern")
            used.update(value.names)
    for name in row.pattern.fields:
        if name not in used:
            raise RowError(f"{where}: nothing uses field {name}")
    known = {*names, *(name for name, _ in placeholders(asm)), *asked}
    for name in given:
        if name not in known:
            raise RowError(f"{where}: nothing uses keyword {name}")
    return parameters


def resolve(row: Row, statics: Mapping[str, int], word: int = 0) -> tuple[dict[str, object], str]:
    """The row's keywords and assembly template: functions of statics are called, those of asm may look at any field."""
    values: dict[str, object] = {name: v for name, v in row.given.items() if not callable(v)}
    values.update(statics)
    given = dict(values)
    for name, value in row.given.items():
        if callable(value):
            given[name] = call_with(value, values)
    if isinstance(row.asm, str):
        asm = row.asm
    else:
        fields = {name: word >> low & ((1 << width) - 1) for name, (low, width) in row.pattern.fields.items()}
        asm = str(call_with(row.asm, {**given, **fields, **statics}))
    return {name: given[name] for name in row.given}, asm


def _callable_names(row: Row) -> set[str]:
    functions = [value for value in (*row.given.values(), row.asm) if callable(value)]
    return {name for function in functions for name in argument_names(function)}
