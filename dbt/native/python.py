"""The Python emitter: a typed tree as plain Python with explicit wrap-around, so that unit tests need no LLVM.

Values are ints within the range of their type, bools are bools, pointers are real addresses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import support, tree
from .types import BOOL, Int, u64

if TYPE_CHECKING:
    from collections.abc import Callable

    from .tree import Expr, FunctionTree, Stmt

_OPERATORS = {"add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^", "shl": "<<", "shr": ">>"}
_COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def compile_python(function: FunctionTree) -> Callable[..., Any]:
    """The function as a Python function on ints."""
    emitter = PythonEmitter(function)
    source = emitter.source()
    code = compile(source, f"<native {function.native.qualified_name}>", "exec")
    exec(code, emitter.names)  # noqa: S102 - our own text, from names the checker has let through
    result: Callable[..., Any] = emitter.names[function.native.name]
    return result


class PythonEmitter:
    """Emits one function; `names` collects the globals that its text refers to."""

    def __init__(self, function: FunctionTree) -> None:
        self.function = function
        self.lines: list[str] = []
        self.depth = 0
        self.names: dict[str, Any] = {}

    def source(self) -> str:
        f = self.function
        self.put(f"def {f.native.name}({', '.join(f.parameters)}):")
        self.depth = 1
        for slot, size in enumerate(f.slots):
            self.put(f"_stack{slot} = {self.name('_stack', support.stack)}({size})")
        self.block(f.body)
        return "\n".join(self.lines) + "\n"

    def name(self, name: str, value: Any) -> str:
        self.names[name] = value
        return name

    def put(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    # statements

    def block(self, statements: list[Stmt]) -> None:
        if not statements:
            self.put("pass")
        for statement in statements:
            getattr(self, f"st_{type(statement).__name__.lower()}")(statement)

    def indented(self, statements: list[Stmt]) -> None:
        self.depth += 1
        self.block(statements)
        self.depth -= 1

    def st_assign(self, st: tree.Assign) -> None:
        self.put(f"{st.name} = {self.ex(st.value)}")

    def st_store(self, st: tree.Store) -> None:
        self.put(f"{self.storer(st.value.type)}({self.ex(st.value)}, {self.ex(st.address)})")

    def st_eval(self, st: tree.Eval) -> None:
        self.put(self.ex(st.value))

    def st_tailcall(self, st: tree.TailCall) -> None:
        self.put(f"return {self.ex(st.call)}")

    def st_if(self, st: tree.If) -> None:
        self.put(f"if {self.ex(st.condition)}:")
        self.indented(st.body)
        if st.orelse:
            self.put("else:")
            self.indented(st.orelse)

    def st_while(self, st: tree.While) -> None:
        self.put(f"while {self.ex(st.condition)}:")
        self.indented(st.body)

    def st_for(self, st: tree.For) -> None:
        self.put(f"for {st.name} in range({self.ex(st.start)}, {self.ex(st.stop)}, {st.step}):")
        self.indented(st.body)

    def st_switch(self, st: tree.Switch) -> None:
        self.put(f"_subject = {self.ex(st.subject)}")
        keyword = "if"
        for values, body in st.cases:
            self.put(f"{keyword} _subject in {(*values,)}:")
            self.indented(body)
            keyword = "elif"
        if st.cases and st.default:
            self.put("else:")
            self.indented(st.default)
        elif st.default:
            self.block(st.default)

    def st_break(self, _st: tree.Break) -> None:
        self.put("break")

    def st_continue(self, _st: tree.Continue) -> None:
        self.put("continue")

    def st_return(self, st: tree.Return) -> None:
        self.put("return" if st.value is None else f"return {self.ex(st.value)}")

    # expressions

    def ex(self, expr: Expr) -> str:
        text: str = getattr(self, f"ex_{type(expr).__name__.lower()}")(expr)
        return text

    def wrap(self, kind: Any, text: str) -> str:
        """A number reduced to the range of its type."""
        if not isinstance(kind, Int):
            return f"(({text}) & {u64.mask})"
        if not kind.signed:
            return f"(({text}) & {kind.mask})"
        half = kind.mask // 2 + 1
        return f"((({text}) + {half} & {kind.mask}) - {half})"

    def loader(self, kind: Any) -> str:
        return self.name(f"_load_{self.suffix(kind)}", support.loader(kind))

    def storer(self, kind: Any) -> str:
        return self.name(f"_store_{self.suffix(kind)}", support.storer(kind))

    def suffix(self, kind: Any) -> str:
        return str(kind) if isinstance(kind, Int) else "pointer"

    def kind(self, kind: Any) -> str:
        return self.name(f"_kind_{self.suffix(kind)}", kind)

    def ex_literal(self, e: tree.Literal) -> str:
        return str(bool(e.value)) if e.type is BOOL else f"({e.value})" if e.value < 0 else str(e.value)

    def ex_local(self, e: tree.Local) -> str:
        return e.name

    def ex_functionref(self, e: tree.FunctionRef) -> str:
        return str(support.function_address(e.function))

    def ex_tableref(self, e: tree.TableRef) -> str:
        return str(e.table.address())

    def ex_symbolref(self, _e: tree.SymbolRef) -> str:
        return f"{self.name('_unavailable', support.unavailable)}('symbol')"

    def ex_load(self, e: tree.Load) -> str:
        return f"{self.loader(e.type)}({self.ex(e.address)})"

    def ex_offset(self, e: tree.Offset) -> str:
        if isinstance(e.index, tree.Literal):
            offset = e.index.value * e.scale
            return self.wrap(e.type, f"{self.ex(e.base)} + {offset}") if offset else self.ex(e.base)
        return self.wrap(e.type, f"{self.ex(e.base)} + {self.ex(e.index)} * {e.scale}")

    def ex_binary(self, e: tree.Binary) -> str:
        left, right = self.ex(e.left), self.ex(e.right)
        if e.op in ("div", "rem"):
            function = support.divide if e.op == "div" else support.remainder
            return self.wrap(e.type, f"{self.name(f'_{e.op}', function)}({left}, {right})")
        if e.op in ("shl", "shr") and not isinstance(e.right, tree.Literal):
            right = f"{self.name('_amount', support.amount)}({right}, {e.type.bits})"
        text = f"({left} {_OPERATORS[e.op]} {right})"
        return text if e.op in ("and", "or", "xor", "shr") else self.wrap(e.type, text)

    def ex_compare(self, e: tree.Compare) -> str:
        return f"({self.ex(e.left)} {_COMPARISONS[e.op]} {self.ex(e.right)})"

    def ex_not(self, e: tree.Not) -> str:
        return f"(not {self.ex(e.operand)})"

    def ex_logical(self, e: tree.Logical) -> str:
        return "(" + f" {e.op} ".join(self.ex(o) for o in e.operands) + ")"

    def ex_select(self, e: tree.Select) -> str:
        return f"({self.ex(e.then)} if {self.ex(e.condition)} else {self.ex(e.otherwise)})"

    def ex_convert(self, e: tree.Convert) -> str:
        text = self.ex(e.operand)
        if e.operand.type is BOOL:
            return f"int({text})"
        return self.wrap(e.type, text)

    def ex_call(self, e: tree.Call) -> str:
        arguments = [self.ex(a) for a in e.arguments]
        if isinstance(e.target, tree.FunctionRef):
            native = e.target.function
            function = self.name(f"_call_{native.name}_{id(native)}", native.raw)
            return f"{function}({', '.join(arguments)})"
        kind = self.name(f"_signature_{id(e.kind)}", e.kind)
        pointer = self.name("_call_pointer", support.call_pointer)
        return f"{pointer}({', '.join([kind, self.ex(e.target), *arguments])})"

    def ex_new(self, e: tree.New) -> str:
        return f"{self.name('_fresh', support.fresh)}(_stack{e.slot})"

    def ex_intrinsic(self, e: tree.Intrinsic) -> str:
        name, arguments = e.name, [self.ex(a) for a in e.arguments]
        if name in support.BIT_OPERATIONS:
            function = self.name(f"_{name}", support.BIT_OPERATIONS[name])
            return self.wrap(e.type, f"{function}({', '.join(arguments)}, {e.type.bits})")
        if name in ("likely", "unlikely"):
            return arguments[0]
        if name in ("min", "max"):
            return f"{self.name(f'_{name}', min if name == 'min' else max)}({', '.join(arguments)})"
        if name == "mul_high":
            return f"({arguments[0]} * {arguments[1]} >> {e.type.bits})"
        if name in ("atomic_load", "volatile_load"):
            return f"{self.loader(e.type)}({arguments[0]})"
        if name == "syscall":
            return f"{self.name('_syscall', support.system_call)}({', '.join(arguments)})"
        if name in ("fence", "pause"):
            return "None"
        return self._memory(e, arguments)

    def _memory(self, e: tree.Intrinsic, arguments: list[str]) -> str:
        name = e.name
        if name in ("asm", "trap"):
            return f"{self.name('_unavailable', support.unavailable)}({name!r})"
        to = e.arguments[0].type.to
        if name == "copy":
            return f"{self.name('_copy', support.copy_struct)}({arguments[0]}, {arguments[1]}, {to.size})"
        if name in ("atomic_store", "volatile_store"):
            return f"{self.storer(to)}(*({', '.join(arguments)})[::-1])"
        kind = self.kind(to)
        if name == "cas":
            return f"{self.name('_cas', support.compare_and_swap)}({kind}, {', '.join(arguments)})"
        return f"{self.name('_update', support.update)}({name!r}, {kind}, {', '.join(arguments)})"
