"""Expressions of native functions as LLVM text: each method returns the operand that holds the value.

Memory accesses have alignment 1: guest data and packed tables may lie anywhere, and on x86-64 it costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.native import tree
from dbt.native.types import VOID, Int, i64, u64

from .native_words import (
    CONVENTIONS,
    FLAGS,
    NONE_ARGUMENTS,
    NONE_REGISTERS,
    extension,
    literal,
    llvm_type,
    passed_as,
)

if TYPE_CHECKING:
    from dbt.native.tree import Expr

    from .native import Module

_NONE_CALL = (
    "pushq %rbp; movq %rsp, %rbp; andq $$-16, %rsp; subq $$16, %rsp; movq %rbp, (%rsp); "
    "callq *%rbx; movq (%rsp), %rsp; popq %rbp"
)


class ExpressionEmitter:
    """Collects the lines of one function, and knows all expressions but the intrinsics."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.lines: list[str] = []
        self.count = 0

    def put(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def op(self, text: str) -> str:
        self.count += 1
        self.lines.append(f"  %t{self.count} = {text}")
        return f"%t{self.count}"

    def label(self) -> str:
        self.count += 1
        return f"b{self.count}"

    def at(self, label: str) -> None:
        self.lines.append(f"{label}:")

    def end(self, text: str) -> None:
        """A terminator; what follows is unreachable and needs a block of its own."""
        self.put(text)
        self.at(self.label())

    def jump(self, label: str) -> None:
        self.put(f"br label %{label}")

    def branch(self, condition: str, then: str, otherwise: str) -> None:
        self.put(f"br i1 {condition}, label %{then}, label %{otherwise}")

    # expressions

    def ex(self, expr: Expr) -> str:
        operand: str = getattr(self, f"ex_{type(expr).__name__.lower()}")(expr)
        return operand

    def typed(self, expr: Expr) -> str:
        return f"{llvm_type(expr.type)} {self.ex(expr)}"

    def ex_literal(self, e: tree.Literal) -> str:
        return literal(e.type, e.value)

    def ex_local(self, e: tree.Local) -> str:
        return self.op(f'load {llvm_type(e.type)}, ptr %"var {e.name}"')

    def ex_functionref(self, e: tree.FunctionRef) -> str:
        return self.module.symbol(e.function)

    def ex_tableref(self, e: tree.TableRef) -> str:
        return self.module.table(e.table, e.name)

    def ex_symbolref(self, e: tree.SymbolRef) -> str:
        self.module.include(e.assembly)
        return self.op(f'ptrtoint ptr @"{e.symbol}" to i64')

    def ex_load(self, e: tree.Load) -> str:
        return self.op(f"load {llvm_type(e.type)}, ptr {self.ex(e.address)}, align 1")

    def ex_offset(self, e: tree.Offset) -> str:
        base = self.ex(e.base)
        if isinstance(e.index, tree.Literal):
            offset = e.index.value * e.scale
            return self.op(f"getelementptr i8, ptr {base}, i64 {i64(offset)}") if offset else base
        index = self.ex(e.index)
        if e.scale != 1:
            index = self.op(f"mul i64 {index}, {e.scale}")
        return self.op(f"getelementptr i8, ptr {base}, i64 {index}")

    def ex_binary(self, e: tree.Binary) -> str:
        signed = e.type.signed
        op = {"shr": "ashr" if signed else "lshr", "div": "sdiv" if signed else "udiv"}.get(e.op, e.op)
        op = ("srem" if signed else "urem") if op == "rem" else op
        left = self.ex(e.left)
        return self.op(f"{op} {llvm_type(e.type)} {left}, {self.ex(e.right)}")

    def ex_compare(self, e: tree.Compare) -> str:
        kind = e.left.type
        sign = "" if e.op in ("eq", "ne") else "s" if isinstance(kind, Int) and kind.signed else "u"
        left = self.ex(e.left)
        return self.op(f"icmp {sign}{e.op} {llvm_type(kind)} {left}, {self.ex(e.right)}")

    def ex_not(self, e: tree.Not) -> str:
        return self.op(f"xor i1 {self.ex(e.operand)}, true")

    def ex_logical(self, e: tree.Logical) -> str:
        """A chain of branches; the result comes from each place that leaves it early, and from the end."""
        after = self.label()
        edges = []
        early = "true" if e.op == "or" else "false"
        for operand in e.operands[:-1]:
            value = self.ex(operand)
            here, following = self.label(), self.label()
            self.jump(here)
            self.at(here)
            self.branch(value, *((after, following) if e.op == "or" else (following, after)))
            edges.append(f"[ {early}, %{here} ]")
            self.at(following)
        value, here = self.ex(e.operands[-1]), self.label()
        self.jump(here)
        self.at(here)
        self.jump(after)
        self.at(after)
        return self.op(f"phi i1 {', '.join([*edges, f'[ {value}, %{here} ]'])}")

    def ex_select(self, e: tree.Select) -> str:
        then, otherwise, after = self.label(), self.label(), self.label()
        self.branch(self.ex(e.condition), then, otherwise)
        edges = []
        for label, arm in ((then, e.then), (otherwise, e.otherwise)):
            self.at(label)
            value, here = self.ex(arm), self.label()
            self.jump(here)
            self.at(here)
            self.jump(after)
            edges.append(f"[ {value}, %{here} ]")
        self.at(after)
        return self.op(f"phi {llvm_type(e.type)} {', '.join(edges)}")

    def ex_convert(self, e: tree.Convert) -> str:
        return self.convert(self.ex(e.operand), e.operand.type, e.type)

    def convert(self, value: str, kind: object, to: object) -> str:
        source, target = llvm_type(kind), llvm_type(to)
        if source == target:
            return value
        if target == "ptr":
            return self.op(f"inttoptr i64 {self.convert(value, kind, u64)} to ptr")
        if source == "ptr":
            return self.convert(self.op(f"ptrtoint ptr {value} to i64"), u64, to)
        assert isinstance(kind, Int)
        assert isinstance(to, Int)
        op = "trunc" if kind.bits > to.bits else "sext" if kind.signed else "zext"
        return self.op(f"{op} {source} {value} to {target}")

    def ex_call(self, e: tree.Call) -> str:
        if e.kind.convention != "c":
            return self.guarded_call(e)
        text = self.call_text(e)
        if e.type is VOID:
            self.put(text)
            return ""
        return self.op(text)

    def guarded_call(self, e: tree.Call) -> str:
        """A call with preserve_nonecc after which rbp is as before too, although a fault may have cut it short.

        The convention keeps rbp, and LLVM holds values in it. Code that is left by a fault (the handler puts back the
        stack pointer and returns) may have changed it, so the call itself saves it; the stack pointer after the
        return is the only thing it relies on. Volatile: LLVM sees one instruction that changes all other registers.
        """
        words = [self.convert(self.ex(a), a.type, u64) for a in (*e.arguments, e.target)]
        registers = NONE_ARGUMENTS[: len(e.arguments)]
        outputs = ["={rax}", *(f"={{{r}}}" for r in (*registers, "rbx"))]
        inputs = [str(n) for n in range(1, len(outputs))]
        lost = [f"~{{{r}}}" for r in NONE_REGISTERS if r not in (*registers, "rax", "rbx")]
        lost += [f"~{{xmm{n}}}" for n in range(16)]
        constraints = ",".join([*outputs, *inputs, *lost, "~{memory}", FLAGS])
        pack = f"{{ {', '.join(['i64'] * len(outputs))} }}"
        packed = self.op(
            f'call {pack} asm sideeffect "{_NONE_CALL}", "{constraints}"({", ".join(f"i64 {w}" for w in words)})'
        )
        if e.type is VOID:
            return ""
        return self.convert(self.op(f"extractvalue {pack} {packed}, 0"), u64, e.type)

    def call_text(self, e: tree.Call) -> str:
        convention = e.kind.convention
        arguments = []
        for argument in e.arguments:
            kind = passed_as(argument.type, convention)
            value = self.convert(self.ex(argument), argument.type, kind)
            arguments.append(f"{llvm_type(kind)}{extension(kind)} {value}")
        target = self.ex(e.target)
        result = passed_as(e.type, convention)
        head = f"call {CONVENTIONS[convention]}{extension(result)} {llvm_type(result)}"
        return f"{head} {target}({', '.join(arguments)})"

    def ex_new(self, e: tree.New) -> str:
        return f"%stack{e.slot}"
