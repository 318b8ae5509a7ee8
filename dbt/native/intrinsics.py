"""The checks of the intrinsics: number and types of their arguments, and the type of the result."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from . import tree
from .function import Assembly
from .types import BOOL, CONST, VOID, Array, Function, Int, Pointer, StructType, i64, name_of, u64

if TYPE_CHECKING:
    from collections.abc import Callable

    from .expressions import Expressions
    from .tree import Expr

MAX_SYSCALL_ARGUMENTS = 6
_COUNTS = {  # name -> (least, most) arguments
    "addr": (1, 1), "asm": (2, 12), "atomic_add": (2, 2), "atomic_and": (2, 2), "atomic_load": (1, 1),
    "atomic_or": (2, 2), "atomic_store": (2, 2), "atomic_xchg": (2, 2), "bitreverse": (1, 1), "bswap": (1, 1),
    "cas": (3, 3), "cast": (2, 2), "clz": (1, 1), "copy": (2, 2), "ctz": (1, 1), "fence": (0, 0), "likely": (1, 1),
    "max": (2, 2), "min": (2, 2), "mul_high": (2, 2), "new": (1, 2), "pause": (0, 0), "popcount": (1, 1),
    "rotl": (2, 2), "rotr": (2, 2), "symbol": (2, 2), "syscall": (1, 1 + MAX_SYSCALL_ARGUMENTS), "trap": (0, 0),
    "unlikely": (1, 1), "volatile_load": (1, 1), "volatile_store": (2, 2),
}  # fmt: skip


def check(scope: Expressions, name: str, node: ast.Call) -> Expr:
    """The typed tree of a call to the intrinsic `name`."""
    if name == "tail":
        raise scope.error(node, "tail(f, ...) is a statement of its own")
    least, most = _COUNTS[name]
    if not least <= len(node.args) <= most:
        count = str(least) if least == most else f"{least} to {most}"
        raise scope.error(node, f"{name}() takes {count} arguments, {len(node.args)} given")
    checker = next(function for names, function in _CHECKS.items() if name in names)
    return checker(scope, name, node)


def _cast(scope: Expressions, _name: str, node: ast.Call) -> Expr:
    return scope.cast(scope.expression(node.args[1]), scope.type_of(node.args[0]), node)


def _new(scope: Expressions, _name: str, node: ast.Call) -> Expr:
    """new(S) or new(T, n)."""
    kind = scope.type_of(node.args[0], value=True)
    count = 1
    if len(node.args) > 1:
        found = scope.constant(node.args[1])
        if found is None or found < 1:
            raise scope.error(node, "new(T, n): n must be a constant of at least 1")
        count = found
    elif not isinstance(kind, StructType):
        raise scope.error(node, f"new({name_of(kind)}): write new({name_of(kind)}, n) for an array of n on the stack")
    if kind is BOOL or kind is VOID:
        raise scope.error(node, f"there is no memory of type {name_of(kind)}")
    scope.slots.append(kind.size * count)
    return tree.New(Pointer(kind), len(scope.slots) - 1, kind.size * count)


def _addr(scope: Expressions, _name: str, node: ast.Call) -> Expr:
    """addr(place), or a struct reference as a pointer."""
    argument = node.args[0]
    if isinstance(argument, (ast.Attribute, ast.Subscript)):
        address, kind = scope.address(argument)
        address.type = Pointer(kind.item if isinstance(kind, Array) else kind)
        return address
    value = scope.expression(argument)
    if isinstance(value.type, Pointer) and isinstance(value.type.to, StructType):
        return value
    raise scope.error(node, "a local variable has no address: use new()")


def _symbol(scope: Expressions, _name: str, node: ast.Call) -> Expr:
    found, label = scope.find(node.args[0]), node.args[1]
    if not isinstance(found, Assembly) or not isinstance(label, ast.Constant):
        raise scope.error(node, "use symbol(ASSEMBLY, 'label')")
    if label.value not in found.symbols:
        raise scope.error(node, f"{found.name} has no symbol {label.value!r}: it has {', '.join(found.symbols)}")
    return tree.SymbolRef(u64, found, str(label.value))


def _expect(scope: Expressions, name: str, node: ast.Call) -> Expr:
    return tree.Intrinsic(BOOL, name, [scope.condition(node.args[0])])


def _integer(scope: Expressions, node: ast.expr, name: str) -> Expr:
    value = scope.expression(node)
    if value.type is CONST or value.type is BOOL or not isinstance(value.type, Int):
        raise scope.error(node, f"{name}() needs an integer of a known type, not {name_of(value.type)}")
    return value


def _bits(scope: Expressions, name: str, node: ast.Call) -> Expr:
    value = _integer(scope, node.args[0], name)
    if name == "bswap" and value.type.bits == 8:
        raise scope.error(node, "bswap() of one byte")
    return tree.Intrinsic(value.type, name, [value])


def _rotate(scope: Expressions, name: str, node: ast.Call) -> Expr:
    """The amount counts modulo the width."""
    value = _integer(scope, node.args[0], name)
    amount = scope.expression(node.args[1])
    if amount.type is not CONST and (amount.type is BOOL or not isinstance(amount.type, Int)):
        raise scope.error(node, f"{name}() by {name_of(amount.type)}")
    return tree.Intrinsic(value.type, name, [value, scope.cast(amount, value.type, node)])


def _two(scope: Expressions, name: str, node: ast.Call) -> Expr:
    left, right = scope.pair(scope.expression(node.args[0]), scope.expression(node.args[1]), node)
    if left.type is BOOL or not isinstance(left.type, Int):
        raise scope.error(node, f"{name}() needs integers, not {name_of(left.type)}")
    if name == "mul_high" and left.type.bits > 64:
        raise scope.error(node, "mul_high() takes at most 64 bits")
    return tree.Intrinsic(left.type, name, [left, right])


def _word(scope: Expressions, node: ast.expr, what: str) -> Expr:
    """A value for a machine register: integers are extended by their sign, pointers are their address."""
    value = scope.expression(node)
    if value.type is CONST:
        return scope.cast(value, i64, node)
    if not isinstance(value.type, (Int, Pointer, Function)) or value.type.size > u64.size:
        raise scope.error(node, f"{what} cannot be {name_of(value.type)}")
    return scope.cast(value, i64, node)


def _syscall(scope: Expressions, name: str, node: ast.Call) -> Expr:
    return tree.Intrinsic(i64, name, [_word(scope, a, "an argument of syscall()") for a in node.args])


def _asm(scope: Expressions, name: str, node: ast.Call) -> Expr:
    """asm(template, constraints, *args): a result if the constraints begin with '='."""
    texts = [a.value for a in node.args[:2] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    if len(texts) != 2:
        raise scope.error(node, "asm(template, constraints, ...): the first two arguments are string constants")
    values = [_word(scope, a, "an argument of asm()") for a in node.args[2:]]
    return tree.Intrinsic(u64 if texts[1].startswith("=") else VOID, name, values, (texts[0], texts[1]))


def _pointed(scope: Expressions, node: ast.expr, name: str) -> tuple[Expr, Any]:
    pointer = scope.expression(node)
    to = pointer.type.to if isinstance(pointer.type, Pointer) else None
    if not isinstance(to, (Int, Pointer, Function)):
        raise scope.error(node, f"{name}() needs a pointer to an integer or pointer, not {name_of(pointer.type)}")
    return pointer, to


def _memory(scope: Expressions, name: str, node: ast.Call) -> Expr:
    """Atomic (naturally aligned, sequentially consistent but for load/store: acquire/release) and volatile."""
    pointer, to = _pointed(scope, node.args[0], name)
    values = [scope.convert(scope.expression(a), to, a) for a in node.args[1:]]
    if name in ("atomic_add", "atomic_and", "atomic_or") and not isinstance(to, Int):
        raise scope.error(node, f"{name}() needs an integer in memory, not {name_of(to)}")
    stores = name in ("atomic_store", "volatile_store")
    return tree.Intrinsic(VOID if stores else to, name, [pointer, *values])


def _copy(scope: Expressions, name: str, node: ast.Call) -> Expr:
    """copy(to, from): the contents of one struct."""
    values = [scope.expression(a) for a in node.args]
    kind = values[0].type
    if not isinstance(kind, Pointer) or not isinstance(kind.to, StructType) or values[1].type != kind:
        raise scope.error(node, "copy(to, from) copies one struct: both must be references to the same struct")
    return tree.Intrinsic(VOID, name, values)


def _plain(_scope: Expressions, name: str, _node: ast.Call) -> Expr:
    return tree.Intrinsic(VOID, name, [])


_CHECKS: dict[tuple[str, ...], Callable[[Expressions, str, ast.Call], Expr]] = {
    ("cast",): _cast,
    ("new",): _new,
    ("addr",): _addr,
    ("symbol",): _symbol,
    ("likely", "unlikely"): _expect,
    ("ctz", "clz", "bswap", "popcount", "bitreverse"): _bits,
    ("rotl", "rotr"): _rotate,
    ("mul_high", "min", "max"): _two,
    ("syscall",): _syscall,
    ("asm",): _asm,
    (
        "atomic_load", "atomic_store", "atomic_add", "atomic_and", "atomic_or", "atomic_xchg", "cas",
        "volatile_load", "volatile_store",
    ): _memory,
    ("copy",): _copy,
    ("fence", "pause", "trap"): _plain,
}  # fmt: skip
