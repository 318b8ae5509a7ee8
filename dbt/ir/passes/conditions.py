"""Conditions computed straight from the operands of the op that sets the flags, without flag words in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.ir.ops import INVERSE
from dbt.ir.types import I1, I64
from dbt.ir.values import IRError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dbt.ir.builder import Builder
    from dbt.ir.values import AttrValue, Value

# Conditions with a shorter form behind a subtraction or comparison of a and b; the others are their inverse.
_AFTER_SUB = {"eq": "eq", "cs": "uge", "hi": "ugt", "ge": "sge", "gt": "sgt"}
# Behind a floating-point comparison of a and b: (predicate, operands swapped, inverted).
_AFTER_FCMP = {
    "eq": ("eq", False, False), "ne": ("eq", False, True), "cs": ("gt", True, True), "cc": ("gt", True, False),
    "mi": ("gt", True, False), "pl": ("gt", True, True), "hi": ("ge", True, True), "ls": ("ge", True, False),
    "ge": ("ge", False, False), "lt": ("ge", False, True), "gt": ("gt", False, False), "le": ("gt", False, True),
}  # fmt: skip


def condition(build: Builder, cc: str, name: str, args: Sequence[Value], attrs: Mapping[str, AttrValue]) -> Value:
    """The condition `cc` on the flags that op `name` sets from `args`: i1."""
    if name == "flags":
        return _integer(build, cc, str(attrs["kind"]), *args)
    if name == "flags_if":
        met, a, b, result, literal = args
        return met.select(_integer(build, cc, str(attrs["kind"]), a, b, result), _literal(build, cc, literal << 28))
    if name == "set_nzcv":
        return _literal(build, cc, args[0])
    if name == "fcmp_flags":
        return _float(build, cc, args[0], args[1], signaling=attrs["signaling"] is True)
    raise IRError(f"{name} sets no flags")


def _combine(cc: str, n: Value, z: Value, c: Callable[[], Value], v: Callable[[], Value]) -> Value:
    """A condition from single flags."""
    if cc in ("eq", "mi"):
        return z if cc == "eq" else n
    if cc in ("cs", "vs"):
        return c() if cc == "cs" else v()
    if cc == "hi":
        return c() & ~z
    if cc == "ge":
        return ~(n ^ v())
    if cc == "gt":
        return ~(n ^ v()) & ~z
    return ~_combine(INVERSE[cc], n, z, c, v)


def _integer(
    build: Builder, cc: str, kind: str, a: Value, b: Value, result: Value, carry: Value | None = None
) -> Value:
    if kind == "sub" and cc in _AFTER_SUB:
        compared: Value = getattr(a, _AFTER_SUB[cc])(b)
        return compared
    if kind == "sub" and INVERSE[cc] in _AFTER_SUB:
        return ~_integer(build, INVERSE[cc], kind, a, b, result)

    def carry_out() -> Value:
        if kind == "logic":
            return build.const(I1, 0)
        if kind == "sub":
            return a.uge(b)
        wrapped = result.ult(a)
        return wrapped if carry is None else wrapped | (result.eq(a) & carry)

    def overflow() -> Value:
        if kind == "logic":
            return build.const(I1, 0)
        differ = a ^ b if kind in ("sub", "sbc") else ~(a ^ b)
        return (differ & (a ^ result)).slt(0)

    return _combine(cc, result.slt(0), result.eq(0), carry_out, overflow)


def _literal(build: Builder, cc: str, word: Value) -> Value:
    """From a word with NZCV in bits 31 to 28."""

    def bit(number: int) -> Value:
        return (word & build.const(I64, 1 << number)).ne(0)

    return _combine(cc, bit(31), bit(30), lambda: bit(29), lambda: bit(28))


def _float(build: Builder, cc: str, a: Value, b: Value, *, signaling: bool) -> Value:
    if cc in _AFTER_FCMP:
        predicate, swapped, inverted = _AFTER_FCMP[cc]
        result = build.fcmp(predicate, b if swapped else a, a if swapped else b, signaling)
        return ~result if inverted else result
    ordered = build.fcmp("ge", a, b, signaling) | build.fcmp("ge", b, a, signaling)
    return ~ordered if cc == "vs" else ordered
