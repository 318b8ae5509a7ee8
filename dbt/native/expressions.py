"""Expressions of the native subset: Python ast to the typed tree, with every conversion made explicit."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import intrinsics, tree
from .function import Intrinsic, Native, Table
from .scope import _MISSING, Scope, assignable, fits
from .types import BOOL, CONST, VOID, Array, Function, Int, Pointer, StructType, i64, name_of, u64

if TYPE_CHECKING:
    from .tree import Expr

OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.BitAnd: "and",
    ast.BitOr: "or",
    ast.BitXor: "xor",
    ast.LShift: "shl",
    ast.RShift: "shr",
    ast.FloorDiv: "div",
    ast.Mod: "rem",
}
COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "eq",
    ast.NotEq: "ne",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
}
_SYMBOLS = {"add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^", "shl": "<<", "shr": ">>"}


class Expressions(Scope):
    """The expression half of the checker; state is what names are locals and which are assigned for certain."""

    def __init__(self, native: Native) -> None:
        super().__init__(native)
        self.assigned: set[str] = set()
        self.slots: list[int] = []

    # conversions

    def convert(self, value: Expr, kind: Any, node: ast.AST) -> Expr:
        """The implicit conversion of a value to a type, or an error that says what to write."""
        if value.type is CONST:
            return self._constant_as(value, kind, node)
        if not assignable(value.type, kind):
            raise self.error(node, self._mismatch(value.type, kind))
        if isinstance(kind, Int) and value.type is not kind:
            return tree.Convert(kind, value)
        return value if value.type == kind else tree.Convert(kind, value)

    def _constant_as(self, value: Expr, kind: Any, node: ast.AST) -> Expr:
        if isinstance(value, tree.Select):
            then = self._constant_as(value.then, kind, node)
            return tree.Select(kind, value.condition, then, self._constant_as(value.otherwise, kind, node))
        assert isinstance(value, tree.Literal)
        if kind is BOOL or not isinstance(kind, (Int, Pointer, Function)):
            raise self.error(node, f"cannot use the constant {value.value} as {name_of(kind)}")
        if not fits(value.value, kind):
            if isinstance(kind, Int):
                raise self.error(
                    node, f"the constant {value.value} does not fit {kind}: write {kind}({value.value}) to wrap it"
                )
            raise self.error(
                node, f"the constant {value.value} is no {name_of(kind)}: write cast({name_of(kind)}, ...)"
            )
        return tree.Literal(kind, kind(value.value) if isinstance(kind, Int) else value.value)

    def _mismatch(self, kind: Any, wanted: Any) -> str:
        text = f"cannot use {name_of(kind)} as {name_of(wanted)}"
        if kind is VOID:
            return f"{text}: the call returns nothing"
        if isinstance(wanted, Int) and wanted is not BOOL and isinstance(kind, Int):
            return f"{text}: write {wanted}(...)"
        if wanted is BOOL:
            return f"{text}: write a comparison"
        return f"{text}: write cast({name_of(wanted)}, ...)"

    def typed(self, value: Expr, node: ast.AST) -> Expr:
        """A value whose type must be known here: an untyped constant becomes i64 (u64 if it is too large)."""
        if value.type is CONST:
            large = isinstance(value, tree.Literal) and not fits(value.value, i64)
            return self._constant_as(value, u64 if large else i64, node)
        if value.type is VOID:
            raise self.error(node, "the call returns nothing")
        return value

    def pair(self, left: Expr, right: Expr, node: ast.AST) -> tuple[Expr, Expr]:
        """Both operands in one type: a constant takes the other's, an unsigned one widens to the wider one."""
        if left.type is CONST and right.type is CONST:
            return self.typed(left, node), self.typed(right, node)
        if left.type is CONST:
            return self.convert(left, right.type, node), right
        if right.type is CONST:
            return left, self.convert(right, left.type, node)
        if assignable(right.type, left.type):
            return left, self.convert(right, left.type, node)
        if assignable(left.type, right.type):
            return self.convert(left, right.type, node), right
        raise self.error(node, f"{name_of(left.type)} and {name_of(right.type)} do not mix: convert one of them")

    def condition(self, node: ast.expr) -> Expr:
        """The truth of a value: integers and pointers are compared with 0."""
        value = self.expression(node)
        if value.type is CONST:
            value = self.typed(value, node)
        if value.type is BOOL:
            return value
        if isinstance(value.type, (Int, Pointer, Function)):
            return tree.Compare(BOOL, "ne", value, tree.Literal(value.type, 0))
        raise self.error(node, f"{name_of(value.type)} has no truth value")

    def index(self, node: ast.expr) -> Expr:
        """A 64-bit index."""
        value = self.expression(node)
        if value.type is CONST:
            return self.convert(value, i64, node)
        if not isinstance(value.type, Int) or value.type is BOOL or value.type.bits > i64.bits:
            raise self.error(node, f"an index is an integer of at most 64 bits, not {name_of(value.type)}")
        return value if value.type.bits == i64.bits else tree.Convert(i64 if value.type.signed else u64, value)

    # memory

    def address(self, node: ast.expr) -> tuple[Expr, Any]:
        """The address and the type of what an attribute or subscript names."""
        if isinstance(node, ast.Attribute):
            base = self.expression(node.value)
            if not isinstance(base.type, Pointer) or not isinstance(base.type.to, StructType):
                raise self.error(node, f"{name_of(base.type)} is not a struct and has no field {node.attr!r}")
            offset, kind = self.field(node, base.type.to, node.attr)
            return tree.Offset(Pointer(kind), base, tree.Literal(i64, offset), 1), kind
        if isinstance(node, ast.Subscript):
            base = self.expression(node.value)
            if not isinstance(base.type, Pointer):
                raise self.error(node, f"{name_of(base.type)} cannot be indexed: it is not a pointer or an array")
            if isinstance(node.slice, ast.Slice):
                raise self.error(node, "slices are not in the native subset")
            return self._element(base, self.index(node.slice), node), base.type.to
        raise self.error(node, "this has no address: only fields and elements have (use new() for memory of your own)")

    def _element(self, base: Expr, index: Expr, node: ast.AST) -> Expr:
        to = base.type.to
        if to is None or to is VOID:
            raise self.error(node, "AnyPtr does not know what it points to: write cast(Ptr[T], ...)")
        return tree.Offset(base.type, base, index, to.size)

    def load(self, address: Expr, kind: Any) -> Expr:
        """The value at an address; a struct or an array is its address."""
        if isinstance(kind, StructType):
            return replace(address, type=Pointer(kind))
        if isinstance(kind, Array):
            return replace(address, type=Pointer(kind.item))
        return tree.Load(kind, address)

    # expressions

    def expression(self, node: ast.expr) -> Expr:
        value = self.constant(node)
        if value is not None:
            return tree.Literal(CONST, value)
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            raise self.error(node, f"{type(node).__name__} expressions are not in the native subset")
        result: Expr = method(node)
        return result

    def _constant(self, node: ast.Constant) -> Expr:
        if isinstance(node.value, bool):
            return tree.Literal(BOOL, int(node.value))
        raise self.error(node, f"{type(node.value).__name__} constants are not in the native subset")

    def _name(self, node: ast.Name) -> Expr:
        if node.id in self.locals:
            if node.id not in self.assigned:
                raise self.error(node, f"{node.id!r} may be used before it has a value")
            return tree.Local(self.locals[node.id], node.id)
        if node.id in self.stored:
            raise self.error(node, f"{node.id!r} may be used before it has a value")
        return self._global(node, node.id)

    def _global(self, node: ast.expr, name: str) -> Expr:
        found = self.find(node)
        if isinstance(found, Native):
            return tree.FunctionRef(found.signature, found)
        if isinstance(found, Table):
            return tree.TableRef(Pointer(found.item), found, name)
        if isinstance(found, bool):
            return tree.Literal(BOOL, int(found))
        if isinstance(found, Intrinsic):
            raise self.error(node, f"{name} is an intrinsic: it can only be called")
        if found is _MISSING:
            raise self.error(node, f"{name!r} is not known here")
        raise self.error(
            node, f"{name!r} is a {type(found).__name__}: native code can use ints, tables and native functions"
        )

    def _attribute(self, node: ast.Attribute) -> Expr:
        if self.find(node) is not _MISSING:
            return self._global(node, ast.unparse(node))
        return self.load(*self.address(node))

    def _subscript(self, node: ast.Subscript) -> Expr:
        return self.load(*self.address(node))

    def _binop(self, node: ast.BinOp) -> Expr:
        op = OPERATORS.get(type(node.op))
        if op is None:
            raise self.error(node, f"the operator of {ast.unparse(node)!r} is not in the native subset")
        return self.binary(op, self.expression(node.left), node.right, node)

    def binary(self, op: str, left: Expr, right_node: ast.expr, node: ast.AST) -> Expr:
        """left op right; pointers take + and - only."""
        if isinstance(left.type, Pointer):
            return self._pointer_arithmetic(op, left, right_node, node)
        right = self.expression(right_node)
        if isinstance(right.type, Pointer) and op == "add":
            raise self.error(node, "write the pointer on the left of '+'")
        for side in (left, right):
            if side.type is not CONST and (side.type is BOOL or not isinstance(side.type, Int)):
                raise self.error(node, f"{name_of(side.type)} is not an integer: no arithmetic with it")
        if op in ("shl", "shr"):
            return self._shift(op, left, right, node)
        left, right = self.pair(left, right, node)
        if op in ("div", "rem") and left.type.bits > u64.bits:
            raise self.error(node, f"{left.type} cannot be divided: there is no such instruction")
        return tree.Binary(left.type, op, left, right)

    def _shift(self, op: str, left: Expr, right: Expr, node: ast.AST) -> Expr:
        if left.type is CONST:
            raise self.error(node, "a constant that is shifted by a variable needs a type: write u64(1) << n")
        if isinstance(right, tree.Literal) and not 0 <= right.value < left.type.bits:
            raise self.error(node, f"a shift by {right.value} is out of range for {left.type}")
        if right.type is CONST:
            right = self.convert(right, left.type, node)
        elif right.type is not left.type:
            right = tree.Convert(left.type, right)
        return tree.Binary(left.type, op, left, right)

    def _pointer_arithmetic(self, op: str, left: Expr, right_node: ast.expr, node: ast.AST) -> Expr:
        right = self.expression(right_node)
        if isinstance(right.type, Pointer) and op == "sub":
            if left.type != right.type or left.type.to is None:
                raise self.error(node, f"{name_of(left.type)} and {name_of(right.type)} cannot be subtracted")
            distance = tree.Binary(i64, "sub", tree.Convert(i64, left), tree.Convert(i64, right))
            size = left.type.to.size
            return distance if size == 1 else tree.Binary(i64, "div", distance, tree.Literal(i64, size))
        if op not in ("add", "sub"):
            raise self.error(node, f"pointers have + and - only: cast(u64, p) for other arithmetic, not {op!r}")
        index = self.index(right_node)
        if op == "sub":
            index = tree.Binary(index.type, "sub", tree.Literal(index.type, 0), index)
        return self._element(left, index, node)

    def _unaryop(self, node: ast.UnaryOp) -> Expr:
        if isinstance(node.op, ast.Not):
            return tree.Not(BOOL, self.condition(node.operand))
        value = self.typed(self.expression(node.operand), node)
        if value.type is BOOL or not isinstance(value.type, Int):
            raise self.error(node, f"{name_of(value.type)} is not an integer: no arithmetic with it")
        if isinstance(node.op, ast.Invert):
            return tree.Binary(value.type, "xor", value, tree.Literal(value.type, value.type(-1)))
        if isinstance(node.op, ast.USub):
            return tree.Binary(value.type, "sub", tree.Literal(value.type, 0), value)
        return value

    def _compare(self, node: ast.Compare) -> Expr:
        if len(node.ops) != 1:
            raise self.error(node, "chained comparisons are not in the native subset: write `a < b and b < c`")
        op = COMPARISONS.get(type(node.ops[0]))
        if op is None:
            raise self.error(node, f"{ast.unparse(node)!r}: only == != < <= > >= are in the native subset")
        left, right = self.expression(node.left), self.expression(node.comparators[0])
        for a, b in ((left, right), (right, left)):
            negative = isinstance(a, tree.Literal) and a.type is CONST and a.value < 0
            if negative and isinstance(b.type, Int) and not b.type.signed:
                raise self.error(node, f"{b.type} is never negative: write {b.type}(...) around the constant")
        left, right = self.pair(left, right, node)
        if left.type is BOOL and op not in ("eq", "ne"):
            raise self.error(node, "bools compare by == and != only")
        if not isinstance(left.type, (Int, Pointer, Function)):
            raise self.error(node, f"{name_of(left.type)} cannot be compared")
        return tree.Compare(BOOL, op, left, right)

    def _boolop(self, node: ast.BoolOp) -> Expr:
        operands = [self.condition(value) for value in node.values]
        return tree.Logical(BOOL, "and" if isinstance(node.op, ast.And) else "or", operands)

    def _ifexp(self, node: ast.IfExp) -> Expr:
        condition = self.condition(node.test)
        then, otherwise = self.expression(node.body), self.expression(node.orelse)
        if then.type is CONST and otherwise.type is CONST:
            return tree.Select(CONST, condition, then, otherwise)
        then, otherwise = self.pair(then, otherwise, node)
        return tree.Select(self.typed(then, node).type, condition, then, otherwise)

    def _call(self, node: ast.Call) -> Expr:
        if node.keywords:
            raise self.error(node, "keyword arguments are not in the native subset")
        if any(isinstance(a, ast.Starred) for a in node.args):
            raise self.error(node, "starred arguments are not in the native subset")
        found = self.find(node.func)
        if isinstance(found, Intrinsic):
            return intrinsics.check(self, found.name, node)
        if isinstance(found, Int):
            if len(node.args) != 1:
                raise self.error(node, f"{found}(...) takes one value")
            return self.cast(self.expression(node.args[0]), found, node)
        if found is _MISSING and isinstance(node.func, ast.Name) and node.func.id not in self.locals:
            if node.func.id in ("min", "max"):
                return intrinsics.check(self, node.func.id, node)
            if node.func.id == "bool" and len(node.args) == 1:
                return self.condition(node.args[0])
            raise self.error(node, f"{node.func.id!r} is not known here, or is not in the native subset")
        return self.call(node.func, node.args, node)

    def call(self, func: ast.expr, args: list[ast.expr], node: ast.AST) -> tree.Call:
        """A call to a native function or through a function pointer."""
        found = self.find(func)
        if found is not _MISSING and callable(found) and not isinstance(found, (Native, Table)):
            raise self.error(node, f"{ast.unparse(func)} is not a native function")
        target = self.expression(func)
        kind = target.type
        if not isinstance(kind, Function):
            raise self.error(node, f"{name_of(kind)} cannot be called")
        if len(args) != len(kind.parameters):
            raise self.error(node, f"{ast.unparse(func)} takes {len(kind.parameters)} arguments, {len(args)} given")
        values = [self.convert(self.expression(a), t, a) for a, t in zip(args, kind.parameters, strict=True)]
        return tree.Call(kind.result, target, kind, values)

    def cast(self, value: Expr, kind: Any, node: ast.AST) -> Expr:
        """The explicit conversion."""
        if value.type is VOID or kind is VOID:
            raise self.error(node, "None cannot be cast")
        if value.type is CONST:
            if isinstance(value, tree.Literal):
                if kind is BOOL:
                    return tree.Literal(BOOL, int(value.value != 0))
                number = kind(value.value) if isinstance(kind, Int) else u64(value.value)
                return tree.Literal(kind, number)
            return self.cast(self.typed(value, node), kind, node)
        if kind is BOOL and value.type is not BOOL:
            return tree.Compare(BOOL, "ne", value, tree.Literal(value.type, 0))
        return value if value.type == kind else tree.Convert(kind, value)
