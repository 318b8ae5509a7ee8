"""Source, names, constants and types of one native function: what the checker asks before it looks at expressions."""

from __future__ import annotations

import ast
import inspect
import operator
import textwrap
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from .function import Intrinsic, Native, NativeError
from .types import (
    CONST,
    VOID,
    AnyPtr,
    ArrayOf,
    Code,
    Function,
    Int,
    Pointer,
    StructType,
    evaluate,
    name_of,
    parameter_type,
    u64,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_NONE_ARGUMENTS = 11  # LLVM's preserve_nonecc aborts the process above 11 integer arguments with indirect calls

FOLD: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.Pow: operator.pow,
}
_MISSING = object()


def signature(native: Native) -> Function:
    """The type of a native function, from its annotations alone."""
    function = native.function
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]

    def fail(message: str) -> NoReturn:
        raise NativeError(message, code.co_filename, code.co_firstlineno, f"def {native.name}(...)")

    if code.co_kwonlyargcount or code.co_flags & 0x0C or code.co_posonlyargcount or function.__defaults__:
        fail(f"{native.name}: only plain positional parameters without defaults are in the native subset")
    kinds = []
    for name in (*names, "return"):
        what = f"{native.name}: the result" if name == "return" else f"{native.name}: parameter {name!r}"
        if name not in function.__annotations__:
            fail(f"{what} has no type annotation")
        try:
            kinds.append(parameter_type(evaluate(function.__annotations__[name], function.__globals__)))
        except NameError as error:
            fail(f"{what}: {error} (types must be importable from the module's globals)")
        except TypeError as error:
            fail(f"{what}: {error}")
    if VOID in kinds[:-1]:
        fail(f"{native.name}: a parameter cannot be None")
    kind = Function(kinds[-1], tuple(kinds[:-1]), native.convention)
    if native.convention == "code" and not same_shape(kind, Code):
        fail(f"{native.name}: a cc='code' function takes (4 x u64, 2 pointers, 2 x u64) and returns None, as Code does")
    if native.convention == "none" and len(kind.parameters) > MAX_NONE_ARGUMENTS:
        fail(f"{native.name}: a cc='none' function takes at most {MAX_NONE_ARGUMENTS} parameters")
    if native.convention == "none" and any(isinstance(k, Int) and k.bits > u64.bits for k in kinds):
        fail(f"{native.name}: a cc='none' function takes and returns at most 64 bits at once")
    return kind


def same_shape(a: Function, b: Function) -> bool:
    """Whether both look alike to the machine: convention, number of arguments, widths."""

    def shape(kind: Any) -> Any:
        return kind.bits if isinstance(kind, Int) else "none" if kind is VOID else "ptr"

    def shapes(f: Function) -> list[Any]:
        return [shape(f.result), *(shape(p) for p in f.parameters)]

    return a.convention == b.convention and shapes(a) == shapes(b)


class Scope:
    """Reads the source of a function; resolves module-level names, constants and types."""

    def __init__(self, native: Native) -> None:
        self.native = native
        self.globals: dict[str, Any] = native.function.__globals__
        self.file: str = native.function.__code__.co_filename
        self.locals: dict[str, Any] = {}
        try:
            source = inspect.getsource(native.function)
        except (OSError, TypeError) as error:
            message = f"{native.name}: its source cannot be read ({error})"
            raise NativeError(message, self.file, native.function.__code__.co_firstlineno) from error
        self.first_line: int = native.function.__code__.co_firstlineno
        self.source = textwrap.dedent(source).splitlines()
        node = ast.parse("\n".join(self.source)).body[0]
        if not isinstance(node, ast.FunctionDef):
            raise self.error(node, "only plain functions can be native")
        self.node = node
        targets = [n for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        self.stored = {n.id for n in targets} | {a.arg for a in node.args.args}  # as in Python: local everywhere
        if native.function.__closure__:
            names = ", ".join(native.function.__code__.co_freevars)
            raise self.error(node, f"{native.name} uses variables of an enclosing function: {names}")

    def error(self, node: ast.AST, message: str) -> NativeError:
        """What is wrong, with the line of the file and its text."""
        line = getattr(node, "lineno", 1)
        return NativeError(message, self.file, self.first_line + line - 1, self.source[line - 1].strip())

    def line(self, node: ast.AST) -> int:
        return self.first_line + int(getattr(node, "lineno", 1)) - 1

    def find(self, node: ast.expr) -> Any:
        """The module-level object that a (dotted) name stands for, or _MISSING."""
        if isinstance(node, ast.Name):
            return _MISSING if node.id in self.stored else self.globals.get(node.id, _MISSING)
        if isinstance(node, ast.Attribute):
            base = self.find(node.value)
            if isinstance(base, ModuleType) or (isinstance(base, type) and not isinstance(base, StructType)):
                found = getattr(base, node.attr, _MISSING)
                if found is _MISSING:
                    raise self.error(node, f"{base.__name__} has no {node.attr!r}")
                return found
        return _MISSING

    def intrinsic(self, node: ast.expr) -> str | None:
        """The name of the intrinsic that is called, if one is."""
        found = self.find(node)
        return found.name if isinstance(found, Intrinsic) else None

    def constant(self, node: ast.expr) -> int | None:
        """The value of an integer constant expression, or None."""
        if isinstance(node, ast.Constant):
            return node.value if type(node.value) is int else None
        if isinstance(node, (ast.Name, ast.Attribute)):
            found = self.find(node)
            return int(found) if isinstance(found, int) and not isinstance(found, bool) else None
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Invert, ast.UAdd)):
            value = self.constant(node.operand)
            if value is None:
                return None
            return -value if isinstance(node.op, ast.USub) else ~value if isinstance(node.op, ast.Invert) else value
        if isinstance(node, ast.BinOp):
            return self._fold(node)
        if isinstance(node, ast.Call) and self.intrinsic(node.func) in ("sizeof", "offsetof"):
            return self._layout_constant(node)
        return None

    def _fold(self, node: ast.BinOp) -> int | None:
        left = self.constant(node.left)
        if left is None:
            return None
        right = self.constant(node.right)
        if right is None:
            return None
        if type(node.op) not in FOLD:
            raise self.error(node, "'/' is not in the native subset: integers divide by '//'")
        try:
            return FOLD[type(node.op)](left, right)
        except (ArithmeticError, ValueError) as error:
            raise self.error(node, f"constant expression: {error}") from error

    def _layout_constant(self, node: ast.Call) -> int:
        name = self.intrinsic(node.func)
        if len(node.args) != (1 if name == "sizeof" else 2):
            raise self.error(node, "use sizeof(T) or offsetof(Struct, 'field')")
        kind = self.type_of(node.args[0], value=True)
        if name == "sizeof":
            return int(kind.size)
        field = node.args[1]
        if not isinstance(kind, StructType) or not isinstance(field, ast.Constant):
            raise self.error(node, "use offsetof(Struct, 'field')")
        return self.field(node, kind, str(field.value))[0]

    def field(self, node: ast.AST, kind: StructType, name: str) -> tuple[int, Any]:
        found = kind.layout.fields.get(name)
        if found is None:
            raise self.error(
                node, f"struct {name_of(kind)} has no field {name!r}: it has {', '.join(kind.layout.fields)}"
            )
        return found

    def type_of(self, node: ast.expr, *, value: bool = False) -> Any:
        """The type that an annotation or a type argument names; `value`: a struct means itself, not a reference."""
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ast.unparse(node)
        try:
            kind = evaluate(text, self.globals) if text != "None" else None
        except Exception as error:
            raise self.error(node, f"{text!r} is not a type: {error}") from error
        if value and isinstance(kind, StructType):
            return kind
        if isinstance(kind, ArrayOf) and value:
            raise self.error(node, "the size of an array is not known here")
        try:
            return parameter_type(kind)
        except TypeError as error:
            raise self.error(node, str(error)) from error

    def is_type(self, node: ast.expr) -> bool:
        return isinstance(self.find(node), (Int, StructType)) or self.find(node) is bool


def fits(value: int, kind: Any) -> bool:
    """Whether a constant can become a value of this type: negative ones count as their two's complement."""
    if isinstance(kind, Int):
        return -(1 << (kind.bits - 1)) <= value <= (kind.mask >> 1 if kind.signed else kind.mask)
    return isinstance(kind, (Pointer, Function)) and value == 0


def assignable(kind: Any, to: Any) -> bool:
    """Whether a value converts without being asked to: same type, wider from unsigned, or any pointer to AnyPtr."""
    if kind is CONST:
        return False
    if isinstance(kind, Int) and isinstance(to, Int):
        return kind is to or (not kind.signed and 1 < kind.bits < to.bits)
    if isinstance(kind, Pointer) and isinstance(to, Pointer):
        return to in (AnyPtr, kind)
    return bool(kind == to)
