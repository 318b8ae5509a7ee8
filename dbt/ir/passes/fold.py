"""Constant folding: ops on constants become constants, ops that change nothing go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.ir.lanes import EXPRESSIONS, function
from dbt.ir.ops import OPS

from .dead_code import dead_code
from .rewrite import Rewriter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbt.ir.builder import Builder
    from dbt.ir.values import Op, Template, Value

_ZERO_IS_NEUTRAL: Final = {"add", "sub", "or", "xor", "shl", "lshr", "ashr", "rotr", "umax", "uaddsat", "usubsat"}
_ONE_IS_NEUTRAL: Final = {"mul", "udiv", "sdiv"}
_ZERO_GIVES_ZERO: Final = {"and", "mul", "umulh", "smulh", "udiv", "sdiv", "umin"}
_WIDENINGS: Final = ("zext", "sext")


def fold(template: Template) -> Template:
    """Fold what can be folded, and remove what is no longer needed."""
    rewriter = Rewriter()
    for op in template.ops:
        value = None
        if op.result is not None and op.args and not OPS[op.name].effects:
            value = _folded(rewriter.builder, op, rewriter.args(op))
        if value is None:
            rewriter.copy(op)
        else:
            rewriter.replace(op, value)
    return dead_code(rewriter.template(template.name))


def _lanes(value: Value) -> tuple[int, ...] | None:
    """The lanes of a constant (one for a scalar)."""
    if value.op.name != "const":
        return None
    bits = value.op.attrs["value"]
    if isinstance(bits, tuple):
        return tuple(int(lane or 0) for lane in bits)
    return (int(bits),)


def _splat(value: Value) -> int | None:
    """The lane of a constant whose lanes are all equal."""
    lanes = _lanes(value)
    return lanes[0] if lanes is not None and len(set(lanes)) == 1 else None


def _folded(build: Builder, op: Op, args: Sequence[Value]) -> Value | None:
    constants = [_lanes(a) for a in args]
    if op.name in EXPRESSIONS and all(c is not None for c in constants):
        return _constant(build, op, args, [c for c in constants if c is not None])
    if op.name == "select":
        return _select(args)
    if op.name == "trunc" and args[0].op.name in _WIDENINGS and args[0].op.args[0].type is op.type:
        return args[0].op.args[0]
    return _identity(build, op, args) if len(args) == len(("a", "b")) else None


def _constant(build: Builder, op: Op, args: Sequence[Value], lanes: list[tuple[int, ...]]) -> Value | None:
    if op.type is None or (op.name == "select" and args[1].type.lanes != args[0].type.lanes):
        return None
    compute = function(op.name, args[0].type.lane, op.type.lane)
    result = [int(compute(*lane)) for lane in zip(*lanes, strict=True)]
    return build.const(op.type, result if op.type.lanes else result[0])


def _select(args: Sequence[Value]) -> Value | None:
    condition = _splat(args[0])
    if condition is not None:
        return args[1] if condition else args[2]
    return args[1] if args[1] is args[2] else None


def _identity(build: Builder, op: Op, args: Sequence[Value]) -> Value | None:
    left, right = args
    if op.type is not left.type or left.type is not right.type:
        return None
    ones = (1 << left.type.bits) - 1
    if op.name in ("xor", "sub") and left is right:
        return build.const(left.type, 0)
    if op.name in ("add", "or", "xor", "and", "mul") and _splat(left) is not None:
        left, right = right, left
    number = _splat(right)
    neutral = (
        (number == 0 and op.name in _ZERO_IS_NEUTRAL)
        or (number == 1 and op.name in _ONE_IS_NEUTRAL and left.type.bits > 1)
        or (number == ones and op.name == "and")
        or (op.name in ("and", "or") and left is right)
    )
    if neutral:
        return left
    if number == 0 and op.name in _ZERO_GIVES_ZERO:
        return right
    return None
