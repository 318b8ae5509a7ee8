"""The text format of templates: printer and parser, which round-trip.

    template ADDS_sf0 {
      %0: i32 = get [r1]
      %1: i64 = imm
      %2: i32 = trunc %1
      %3: i32 = add %0, %2
      put [r0] %3
      flags [add] %0, %2, %3
    }

Required attributes stand in brackets in the table's order, others as `name=value` in braces at the end if they differ
from their default. A place is `r2+8` (token 2, offset 8) or `@264` (absolute). `#` starts a comment.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from .builder import Builder
from .ops import OPS
from .types import parse_type
from .values import IRError, Place

if TYPE_CHECKING:
    from .ops import Attr
    from .values import AttrValue, Op, Template, Value


def format_template(template: Template) -> str:
    """The whole template, one op a line."""
    lines = [f"template {template.name or '_'} {{", *(f"  {format_op(op)}" for op in template.ops), "}"]
    return "\n".join(lines) + "\n"


def format_op(op: Op) -> str:
    """One line."""
    info = OPS[op.name]
    required = " ".join(_format_value(op.attrs[a.name]) for a in info.attrs if a.required)
    optional = " ".join(
        f"{a.name}={_format_value(op.attrs[a.name])}"
        for a in info.attrs
        if not a.required and op.attrs[a.name] != a.default
    )
    result = f"%{op.result.index}: {op.result.type} = " if op.result is not None else ""
    args = ", ".join(f"%{a.index}" for a in op.args)
    parts = [op.name, f"[{required}]" if required else "", args, f"{{{optional}}}" if optional else ""]
    return result + " ".join(p for p in parts if p)


def _format_value(value: AttrValue) -> str:
    if isinstance(value, Place):
        return str(value)
    if isinstance(value, tuple):
        return "<" + ",".join(_format_int(int(item or 0)) for item in value) + ">"
    return str(value) if isinstance(value, str | bool) else _format_int(value)


def _format_int(value: int) -> str:
    """Short numbers are counts, long ones masks and addresses."""
    return hex(value) if value > 0xFF else str(value)


_LINE: Final = re.compile(
    r"(?:%(?P<index>\d+)\s*:\s*(?P<type>\w+)\s*=\s*)?(?P<name>\w+)\s*(?:\[(?P<required>[^]]*)\])?"
    r"\s*(?P<args>%\d+(?:\s*,\s*%\d+)*)?\s*(?:\{(?P<optional>[^}]*)\})?"
)
_HEAD: Final = re.compile(r"template\s+(\S+)\s*\{")


def parse_templates(text: str) -> list[Template]:
    """All templates of a text."""
    found: list[Template] = []
    reader: _Reader | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.partition("#")[0].strip()
        try:
            if line == "}" and reader is not None:
                found.append(reader.builder.template(reader.name))
                reader = None
            elif line and reader is not None:
                reader.line(line)
            elif line:
                reader = _Reader(_head(line))
        except (IRError, ValueError) as error:
            raise IRError(f"line {number}: {error}") from None
    if reader is not None:
        raise IRError(f"template {reader.name} is not closed")
    return found


def _head(line: str) -> str:
    head = _HEAD.fullmatch(line)
    if head is None:
        raise IRError(f"expected 'template NAME {{', found {line!r}")
    return "" if head[1] == "_" else head[1]


def parse_template(text: str) -> Template:
    """The one template of a text; without a head line, the text is the ops alone."""
    if not re.search(r"^\s*template\b", text, re.MULTILINE):
        text = f"template _ {{\n{text}\n}}"
    found = parse_templates(text)
    if len(found) != 1:
        raise IRError(f"expected one template, found {len(found)}")
    return found[0]


class _Reader:
    """Rebuilds one template through a builder, so that every op is checked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.builder = Builder()
        self.values: dict[int, Value] = {}

    def line(self, line: str) -> None:
        match = _LINE.fullmatch(line)
        if match is None:
            raise IRError(f"cannot read {line!r}")
        name, index = match["name"], match["index"]
        if name not in OPS:
            raise IRError(f"no op {name!r}")
        attrs = self._attrs(name, match["required"] or "", match["optional"] or "")
        args = [self._value(int(number)) for number in re.findall(r"\d+", match["args"] or "")]
        op = self.builder.emit(name, *args, type=parse_type(match["type"]) if index else None, **attrs)
        if (op.result is None) != (index is None):
            raise IRError(f"{name} has {'no' if op.result is None else 'a'} result")
        if op.result is not None:
            if int(index) in self.values:
                raise IRError(f"%{index} is defined twice")
            self.values[int(index)] = op.result

    def _value(self, index: int) -> Value:
        if index not in self.values:
            raise IRError(f"%{index} is used before it is defined")
        return self.values[index]

    def _attrs(self, name: str, required: str, optional: str) -> dict[str, AttrValue]:
        info = OPS[name]
        wanted = [a for a in info.attrs if a.required]
        words = required.split()
        if len(words) != len(wanted):
            raise IRError(f"{name} needs [{' '.join(a.name for a in wanted)}], found [{required}]")
        attrs = {attr.name: _parse_value(attr, word) for attr, word in zip(wanted, words, strict=True)}
        by_name = {a.name: a for a in info.attrs if not a.required}
        for word in optional.split():
            key, _, value = word.partition("=")
            if key not in by_name:
                raise IRError(f"{name} has no attribute {key!r}")
            attrs[key] = _parse_value(by_name[key], value)
        return attrs


def _parse_value(attr: Attr, word: str) -> AttrValue:
    if attr.kind == "PLACE":
        token, _, offset = word.partition("+")
        if word[0] == "@":
            return Place(None, int(word[1:], 0))
        if token[0] != "r":
            raise IRError(f"{word!r} is no place: write r0+8 or @264")
        return Place(int(token[1:]), int(offset or "0", 0))
    if word.startswith("<"):
        return tuple(int(item, 0) for item in word.strip("<>").split(",") if item)
    if attr.kind == "BOOL":
        if word not in ("True", "False"):
            raise IRError(f"{attr.name} is True or False, not {word!r}")
        return word == "True"
    return int(word, 0) if attr.kind in ("INT", "BITS") else word
