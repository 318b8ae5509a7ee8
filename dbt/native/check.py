"""Statements of the native subset, and the checks of a whole function: assignment before use, results everywhere."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from . import tree
from .expressions import OPERATORS, Expressions
from .function import Table
from .scope import same_shape, signature
from .types import BOOL, CONST, VOID, Array, Int, StructType, i64, name_of

if TYPE_CHECKING:
    from .function import Native
    from .tree import Expr, FunctionTree, Stmt


def check(native: Native) -> FunctionTree:
    """The typed tree of a native function; raises NativeError."""
    return Checker(native).run()


class Checker(Expressions):
    """One function. `live` tells whether the statement that comes next can be reached."""

    def __init__(self, native: Native) -> None:
        super().__init__(native)
        self.kind = signature(native)
        self.live = True
        self.loops: list[list[set[str]]] = []  # for each loop: what is assigned at its breaks
        self.temporaries = 0

    def run(self) -> FunctionTree:
        names = [a.arg for a in self.node.args.args]
        self.locals.update(zip(names, self.kind.parameters, strict=True))
        self.assigned.update(names)
        body = self.block(self.node.body)
        if self.live and self.kind.result is not VOID:
            raise self.error(self.node, f"{self.native.name} may end without returning its {name_of(self.kind.result)}")
        return tree.FunctionTree(self.native, self.kind, names, self.locals, self.slots, body)

    def block(self, nodes: list[ast.stmt]) -> list[Stmt]:
        statements: list[Stmt] = []
        for node in nodes:
            if not self.live:
                raise self.error(node, "this statement can never be reached")
            method = getattr(self, f"_st_{type(node).__name__.lower()}", None)
            if method is None:
                raise self.error(node, f"{type(node).__name__} statements are not in the native subset")
            statements += method(node)
        return statements

    # assignment

    def bind(self, name: str, value: Expr, node: ast.AST, kind: Any = None) -> Stmt:
        """Assign to a local; the first assignment, or an annotation, gives it its type."""
        if kind is not None and self.locals.get(name, kind) != kind:
            raise self.error(node, f"{name!r} is {name_of(self.locals[name])} already")
        if name not in self.locals:
            if value.type is VOID:
                raise self.error(node, "the call returns nothing")
            self.locals[name] = kind or self.typed(value, node).type
        converted = self.convert(value, self.locals[name], node)
        self.assigned.add(name)
        return tree.Assign(self.line(node), name, converted)

    def _st_annassign(self, node: ast.AnnAssign) -> list[Stmt]:
        if not isinstance(node.target, ast.Name):
            raise self.error(node, "only local variables are annotated")
        kind = self.type_of(node.annotation)
        if kind is VOID:
            raise self.error(node, "a variable cannot be None")
        if node.value is None:
            if self.locals.get(node.target.id, kind) != kind:
                raise self.error(node, f"{node.target.id!r} is {name_of(self.locals[node.target.id])} already")
            self.locals[node.target.id] = kind
            return []
        return [self.bind(node.target.id, self.expression(node.value), node, kind)]

    def _st_assign(self, node: ast.Assign) -> list[Stmt]:
        target = node.targets[0]
        if len(node.targets) != 1 or isinstance(target, (ast.Tuple, ast.List, ast.Starred)):
            raise self.error(node, "one target for each assignment: several at once are not in the native subset")
        value = self.expression(node.value)
        if isinstance(target, ast.Name):
            return [self.bind(target.id, value, node)]
        address, kind = self._place(target)
        return [tree.Store(self.line(node), address, self.convert(value, kind, node))]

    def _place(self, node: ast.expr) -> tuple[Expr, Any]:
        """Where an assignment stores."""
        if isinstance(node, ast.Subscript) and isinstance(self.find(node.value), Table):
            raise self.error(node, "a table is constant")
        address, kind = self.address(node)
        if isinstance(kind, (StructType, Array)):
            raise self.error(node, f"{name_of(kind)} is not assigned as a whole: use copy(to, from), or its parts")
        return address, kind

    def _st_augassign(self, node: ast.AugAssign) -> list[Stmt]:
        op = OPERATORS.get(type(node.op))
        if op is None:
            raise self.error(node, "this operator is not in the native subset")
        if isinstance(node.target, ast.Name):
            if node.target.id not in self.locals:
                raise self.error(node, f"{node.target.id!r} has no value yet")
            current = self.expression(ast.copy_location(ast.Name(node.target.id, ast.Load()), node))
            return [self.bind(node.target.id, self.binary(op, current, node.value, node), node)]
        address, kind = self._place(node.target)
        self.temporaries += 1
        name = f"_place{self.temporaries}"  # the address is computed once
        self.locals[name] = address.type
        held = tree.Local(address.type, name)
        value = self.convert(self.binary(op, tree.Load(kind, held), node.value, node), kind, node)
        return [tree.Assign(self.line(node), name, address), tree.Store(self.line(node), held, value)]

    # control

    def _st_pass(self, _node: ast.Pass) -> list[Stmt]:
        return []

    def _st_expr(self, node: ast.Expr) -> list[Stmt]:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return []  # a docstring
        if not isinstance(node.value, ast.Call):
            raise self.error(node, "this expression does nothing")
        if self.intrinsic(node.value.func) == "tail":
            return self._tail(node.value)
        value = self.expression(node.value)
        if isinstance(value, tree.Intrinsic) and value.name == "trap":
            self.live = False
        return [tree.Eval(self.line(node), value)]

    def _tail(self, node: ast.Call) -> list[Stmt]:
        if not node.args:
            raise self.error(node, "tail(f, ...) needs a function")
        call = self.call(node.args[0], node.args[1:], node)
        if not same_shape(call.kind, self.kind):
            raise self.error(node, f"tail() needs a function of the caller's shape {self.kind}, not {call.kind}")
        self.live = False
        return [tree.TailCall(self.line(node), call)]

    def _st_return(self, node: ast.Return) -> list[Stmt]:
        result = self.kind.result
        value = None
        if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            if result is VOID:
                raise self.error(node, f"{self.native.name} is declared to return None")
            value = self.convert(self.expression(node.value), result, node)
        elif result is not VOID:
            raise self.error(node, f"{self.native.name} must return {name_of(result)}")
        self.live = False
        return [tree.Return(self.line(node), value)]

    def _st_if(self, node: ast.If) -> list[Stmt]:
        condition = self.condition(node.test)
        before = set(self.assigned)
        body = self.block(node.body)
        live, assigned = self.live, self.assigned
        self.live, self.assigned = True, before
        orelse = self.block(node.orelse)
        self._merge([(live, assigned), (self.live, self.assigned)])
        return [tree.If(self.line(node), condition, body, orelse)]

    def _merge(self, ends: list[tuple[bool, set[str]]]) -> None:
        """Join the states at the ends of several branches."""
        reached = [assigned for live, assigned in ends if live]
        self.live = bool(reached)
        self.assigned = set.intersection(*reached) if reached else ends[0][1]

    def _loop(self, nodes: list[ast.stmt]) -> tuple[list[Stmt], list[set[str]]]:
        """A loop's body, and what is assigned at each of its breaks."""
        self.loops.append([])
        body = self.block(nodes)
        self.live = True
        return body, self.loops.pop()

    def _st_while(self, node: ast.While) -> list[Stmt]:
        if node.orelse:
            raise self.error(node, "else of a loop is not in the native subset")
        forever = self.constant(node.test) or (isinstance(node.test, ast.Constant) and node.test.value is True)
        condition = tree.Literal(BOOL, 1) if forever else self.condition(node.test)
        before = set(self.assigned)
        body, breaks = self._loop(node.body)
        self._merge([(not forever, before), *((True, b) for b in breaks)])
        return [tree.While(self.line(node), condition, body)]

    def _st_for(self, node: ast.For) -> list[Stmt]:
        call, target = node.iter, node.target
        if node.orelse:
            raise self.error(node, "else of a loop is not in the native subset")
        ranged = isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "range"
        if not ranged or not isinstance(call, ast.Call) or not isinstance(target, ast.Name):
            raise self.error(node, "a for loop is `for name in range(...)`")
        if not 1 <= len(call.args) <= 3 or call.keywords:
            raise self.error(node, "range() takes 1 to 3 arguments")
        step = self.constant(call.args[2]) if len(call.args) == 3 else 1
        if not step:
            raise self.error(node, "the step of range() must be a constant other than 0")
        bounds = [self.expression(a) for a in call.args[:2]]
        if len(bounds) == 1:
            bounds.insert(0, tree.Literal(CONST, 0))
        kind = self._range_type(target.id, bounds, node)
        start, stop = (self.convert(b, kind, node) for b in bounds)
        if abs(step) > kind.mask >> 1:
            raise self.error(node, f"the step {step} is out of range for {kind}")
        self.locals.setdefault(target.id, kind)
        before = set(self.assigned)
        self.assigned.add(target.id)
        body, breaks = self._loop(node.body)
        self._merge([(True, before), *((True, b) for b in breaks)])
        return [tree.For(self.line(node), target.id, kind, start, stop, step, body)]

    def _range_type(self, name: str, bounds: list[Expr], node: ast.AST) -> Int:
        """Of the loop variable: what it has already, else of the bounds, else i64."""
        kind = self.locals.get(name)
        if kind is None:
            start, stop = bounds
            kind = i64 if start.type is CONST and stop.type is CONST else self.pair(start, stop, node)[0].type
        if kind is BOOL or not isinstance(kind, Int) or kind.bits > 64:
            raise self.error(node, f"the variable of a range is an integer of at most 64 bits, not {name_of(kind)}")
        return kind

    def _st_match(self, node: ast.Match) -> list[Stmt]:
        subject = self.typed(self.expression(node.subject), node)
        if subject.type is BOOL or not isinstance(subject.type, Int):
            raise self.error(node, f"match works on integers, not {name_of(subject.type)}")
        before = set(self.assigned)
        cases: list[tuple[list[int], list[Stmt]]] = []
        default: list[Stmt] | None = None
        ends = []
        seen: set[int] = set()
        for case in node.cases:
            if default is not None:
                raise self.error(case.pattern, "no case can follow `case _`")
            values = self._case_values(case, subject.type, seen)
            self.live, self.assigned = True, set(before)
            body = self.block(case.body)
            ends.append((self.live, self.assigned))
            if values is None:
                default = body
            else:
                cases.append((values, body))
        if default is None:
            ends.append((True, before))
        self._merge(ends)
        return [tree.Switch(self.line(node), subject, cases, default or [])]

    def _case_values(self, case: ast.match_case, kind: Int, seen: set[int]) -> list[int] | None:
        """The constants of a case; None for `case _`."""
        if case.guard is not None:
            raise self.error(case.pattern, "a guard on a case is not in the native subset")
        patterns = case.pattern.patterns if isinstance(case.pattern, ast.MatchOr) else [case.pattern]
        values = []
        for pattern in patterns:
            if isinstance(pattern, ast.MatchAs):
                if pattern.name is not None:
                    message = f"`case {pattern.name}` would bind a variable: write the module in front of a constant"
                    raise self.error(pattern, message)
                return None
            value = self.constant(pattern.value) if isinstance(pattern, ast.MatchValue) else None
            if value is None:
                raise self.error(pattern, f"{ast.unparse(pattern)!r} is not an integer constant")
            literal = self.convert(tree.Literal(CONST, value), kind, pattern)
            assert isinstance(literal, tree.Literal)
            if literal.value in seen:
                raise self.error(pattern, f"{ast.unparse(pattern)} is a case already")
            seen.add(literal.value)
            values.append(literal.value)
        return values

    def _st_break(self, node: ast.Break) -> list[Stmt]:
        self.loops[-1].append(set(self.assigned))
        self.live = False
        return [tree.Break(self.line(node))]

    def _st_continue(self, node: ast.Continue) -> list[Stmt]:
        self.live = False
        return [tree.Continue(self.line(node))]
