"""Whole native functions as LLVM text: the frame and the statements.

Locals are allocas in the entry block, which mem2reg turns into values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.native.types import VOID

from .native_intrinsics import IntrinsicEmitter
from .native_words import CONVENTIONS, extension, literal, llvm_type, passed_as

if TYPE_CHECKING:
    from dbt.native import tree
    from dbt.native.function import Native
    from dbt.native.tree import Stmt

    from .native import Module


class FunctionEmitter(IntrinsicEmitter):
    """Emits one function."""

    def __init__(self, module: Module, native: Native) -> None:
        super().__init__(module)
        self.function = native.tree
        self.loops: list[tuple[str, str]] = []  # labels: after break, after continue

    def text(self) -> str:
        f = self.function
        native = f.native
        symbol = self.module.symbol(native)
        exported = self.module.functions[id(native)][1] == native.name
        entry = [f'  %"var {n}" = alloca {llvm_type(t)}' for n, t in f.locals.items()]
        entry += [f"  %stack{i} = alloca [{size} x i8], align 16" for i, size in enumerate(f.slots)]
        passed = [(n, passed_as(f.locals[n], f.kind.convention)) for n in f.parameters]
        arguments = [(n, kind, llvm_type(kind)) for n, kind in passed]
        for name, kind in passed:
            local = f.locals[name]
            value = self.convert(f'%"arg {name}"', kind, local)
            self.put(f'store {llvm_type(local)} {value}, ptr %"var {name}"')
        self.block(f.body)
        self.put("ret void" if f.kind.result is VOID else "unreachable")
        inline = native.inline
        if f.kind.convention != "c" and inline is None:
            inline = False  # an inlined call would clobber nothing
        attributes = "" if inline is None else "alwaysinline " if inline else "noinline "
        parameters = ", ".join(f'{t}{extension(k)} %"arg {n}"' for n, k, t in arguments)
        result = passed_as(f.kind.result, f.kind.convention)
        linkage = "dso_local" if exported else "internal"
        head = f"define {linkage} {CONVENTIONS[f.kind.convention]}{extension(result)} {llvm_type(result)}"
        head += f" {symbol}({parameters}) {attributes}#0 {{"
        return "\n".join([head, "entry:", *entry, *self.lines, "}", ""])

    # statements

    def block(self, statements: list[Stmt]) -> None:
        for statement in statements:
            getattr(self, f"st_{type(statement).__name__.lower()}")(statement)

    def st_assign(self, st: tree.Assign) -> None:
        self.put(f'store {llvm_type(st.value.type)} {self.ex(st.value)}, ptr %"var {st.name}"')

    def st_store(self, st: tree.Store) -> None:
        value = self.ex(st.value)
        self.put(f"store {llvm_type(st.value.type)} {value}, ptr {self.ex(st.address)}, align 1")

    def st_eval(self, st: tree.Eval) -> None:
        self.ex(st.value)

    def st_tailcall(self, st: tree.TailCall) -> None:
        text, kind = self.call_text(st.call), passed_as(st.call.type, st.call.kind.convention)
        if kind is VOID:
            self.put(f"musttail {text}")
            self.end("ret void")
        else:
            self.end(f"ret {llvm_type(kind)} {self.op(f'musttail {text}')}")

    def st_if(self, st: tree.If) -> None:
        then, otherwise, after = self.label(), self.label(), self.label()
        self.branch(self.ex(st.condition), then, otherwise)
        self.at(then)
        self.block(st.body)
        self.jump(after)
        self.at(otherwise)
        self.block(st.orelse)
        self.jump(after)
        self.at(after)

    def st_while(self, st: tree.While) -> None:
        head, body, after = self.label(), self.label(), self.label()
        self.jump(head)
        self.at(head)
        self.branch(self.ex(st.condition), body, after)
        self.at(body)
        self.loops.append((after, head))
        self.block(st.body)
        self.loops.pop()
        self.jump(head)
        self.at(after)

    def st_for(self, st: tree.For) -> None:
        """A counter of its own: as in Python, assignments to the variable do not change the number of rounds."""
        kind, sign = llvm_type(st.kind), "s" if st.kind.signed else "u"
        head, body, step, after = (self.label() for _ in range(4))
        start, stop = self.ex(st.start), self.ex(st.stop)
        entry = self.label()
        self.jump(entry)
        self.at(entry)
        self.jump(head)
        self.at(head)
        self.count += 1
        counter = f"%i{self.count}"
        self.put(f"{counter} = phi {kind} [ {start}, %{entry} ], [ {counter}.next, %{step} ]")
        compare = f"{sign}{'lt' if st.step > 0 else 'gt'}"
        self.branch(self.op(f"icmp {compare} {kind} {counter}, {stop}"), body, after)
        self.at(body)
        self.put(f'store {kind} {counter}, ptr %"var {st.name}"')
        self.loops.append((after, f"{step}.test"))
        self.block(st.body)
        self.loops.pop()
        self.jump(f"{step}.test")
        self.at(f"{step}.test")
        if abs(st.step) != 1:  # stop before the counter wraps around
            left, right = (stop, counter) if st.step > 0 else (counter, stop)
            distance = self.op(f"sub {kind} {left}, {right}")
            self.branch(self.op(f"icmp ugt {kind} {distance}, {abs(st.step)}"), step, after)
        else:
            self.jump(step)
        self.at(step)
        self.put(f"{counter}.next = add {kind} {counter}, {st.step}")
        self.jump(head)
        self.at(after)

    def st_switch(self, st: tree.Switch) -> None:
        subject, kind = self.ex(st.subject), llvm_type(st.subject.type)
        after, default = self.label(), self.label()
        labels = [self.label() for _ in st.cases]
        targets = " ".join(
            f"{kind} {literal(st.subject.type, value)}, label %{label}"
            for label, (values, _) in zip(labels, st.cases, strict=True)
            for value in values
        )
        self.put(f"switch {kind} {subject}, label %{default} [ {targets} ]")
        for label, (_, body) in zip(labels, st.cases, strict=True):
            self.at(label)
            self.block(body)
            self.jump(after)
        self.at(default)
        self.block(st.default)
        self.jump(after)
        self.at(after)

    def st_break(self, _st: tree.Break) -> None:
        self.end(f"br label %{self.loops[-1][0]}")

    def st_continue(self, _st: tree.Continue) -> None:
        self.end(f"br label %{self.loops[-1][1]}")

    def st_return(self, st: tree.Return) -> None:
        if st.value is None:
            self.end("ret void")
            return
        kind = passed_as(st.value.type, self.function.kind.convention)
        self.end(f"ret {llvm_type(kind)} {self.convert(self.ex(st.value), st.value.type, kind)}")
