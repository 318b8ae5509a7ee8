"""The LLVM emitter of the native subset: typed trees to LLVM text.

Locals are allocas in the entry block, which mem2reg turns into values. Memory accesses have alignment 1: guest data
and packed tables may lie anywhere, and on x86-64 it costs nothing. Everything is dso_local, so that an object refers
to its own parts relative to the program counter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.native import tree
from dbt.native.function import Assembly, Native, NativeError, Table
from dbt.native.types import BOOL, VOID, Int, StructType, i64, u64

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dbt.native.tree import Expr, Stmt

# No builtins: a loop must not become a call of memset. No red zone: inline assembly may push.
ATTRIBUTES = 'attributes #0 = { nounwind noredzone "no-builtins" "frame-pointer"="none" }'
_CONVENTIONS = {"c": "", "none": "preserve_nonecc ", "code": "preserve_nonecc "}
_COUNTS = {"ctz": "cttz", "clz": "ctlz", "popcount": "ctpop", "bswap": "bswap", "bitreverse": "bitreverse"}
_RMW = {"atomic_add": "add", "atomic_and": "and", "atomic_or": "or", "atomic_xchg": "xchg"}
_FLAGS = "~{dirflag},~{fpsr},~{flags}"  # what any inline assembly may change
# preserve_nonecc: where the arguments go; the callee keeps rbp and nothing else.
_NONE_ARGUMENTS = ("r12", "r13", "r14", "r15", "rdi", "rsi", "rdx", "rcx", "r8", "r9", "r11")
_NONE_REGISTERS = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
_NONE_CALL = (
    "pushq %rbp; movq %rsp, %rbp; andq $$-16, %rsp; subq $$16, %rsp; movq %rbp, (%rsp); "
    "callq *%rbx; movq (%rsp), %rsp; popq %rbp"
)
_SYSCALL_REGISTERS = ("{rax}", "{rdi}", "{rsi}", "{rdx}", "{r10}", "{r8}", "{r9}")


def module_text(roots: Iterable[Native], assembly: Iterable[Assembly] = ()) -> str:
    """LLVM text of a module with these functions under their own names, and all that they need, internal."""
    module = Module()
    for root in roots:
        module.export(root)
    for text in assembly:
        module.include(text)
    return module.text()


def llvm_type(kind: object) -> str:
    """How LLVM spells a native type."""
    if isinstance(kind, Int):
        return f"i{kind.bits}"
    return "void" if kind is VOID else "ptr"


def literal(kind: object, value: int) -> str:
    """A constant as LLVM prints it."""
    if not isinstance(kind, Int):
        return "null" if value == 0 else f"inttoptr (i64 {i64(value)} to ptr)"
    if kind is BOOL:
        return "true" if value else "false"
    value &= kind.mask
    return str(value - kind.mask - 1 if value >> (kind.bits - 1) else value)


class Module:
    """Collects functions, tables, assembly and declarations until nothing more is needed."""

    def __init__(self) -> None:
        self.functions: dict[int, tuple[Native, str]] = {}  # by identity: the symbol
        self.symbols: dict[str, Native] = {}
        self.queue: list[Native] = []
        self.bodies: list[str] = []
        self.tables: dict[int, tuple[str, Table]] = {}
        self.assembly: dict[str, Assembly] = {}
        self.declarations: set[str] = set()

    def export(self, native: Native) -> None:
        self._add(native, native.name)

    def symbol(self, native: Native) -> str:
        """The symbol of a function that is called; the function becomes part of the module."""
        if id(native) not in self.functions:
            if native.export:
                self._add(native, native.name)
            else:
                name = native.qualified_name
                while name in self.symbols:
                    name += "'"
                self._add(native, name)
        return f'@"{self.functions[id(native)][1]}"'

    def _add(self, native: Native, name: str) -> None:
        if id(native) in self.functions:
            return
        other = self.symbols.get(name)
        if other is not None:
            raise NativeError(f"two functions are exported as {name!r}: {native} and {other}")
        self.symbols[name] = native
        self.functions[id(native)] = (native, name)
        self.queue.append(native)

    def include(self, assembly: Assembly) -> None:
        other = self.assembly.setdefault(assembly.name, assembly)
        if other is not assembly:
            raise NativeError(f"two assembly texts are named {assembly.name!r}")

    def table(self, table: Table, name: str) -> str:
        if id(table) not in self.tables:
            self.tables[id(table)] = (f"table.{len(self.tables)}.{name}", table)
        return f'@"{self.tables[id(table)][0]}"'

    def declare(self, text: str) -> None:
        self.declarations.add(text)

    def text(self) -> str:
        while self.queue:
            native = self.queue.pop()
            self.bodies.append(FunctionEmitter(self, native).text())
        parts = [f'module asm "{_escape(line)}"' for a in self.assembly.values() for line in a.text.splitlines()]
        labels = sorted({s for a in self.assembly.values() for s in a.symbols})
        parts += [f'@"{label}" = external hidden global i8' for label in labels]
        parts += [_table_text(name, table) for name, table in self.tables.values()]
        parts += sorted(self.declarations)
        return "\n".join([*parts, ATTRIBUTES, *self.bodies]) + "\n"


def _escape(text: str) -> str:
    return "".join(c if c.isprintable() and c not in '"\\' else f"\\{ord(c):02X}" for c in text)


def _table_text(name: str, table: Table) -> str:
    item = llvm_type(table.item)
    items = ", ".join(f"{item} {literal(table.item, v)}" for v in table.data)
    return f'@"{name}" = internal constant [{len(table.data)} x {item}] [{items}], align 16'


def passed_as(kind: object, convention: str) -> object:
    """The type in which a value crosses a call: preserve_nonecc passes 64 bits in other registers than fewer."""
    return u64 if convention != "c" and isinstance(kind, Int) else kind


def _extension(kind: object) -> str:
    return " zeroext" if kind is BOOL else ""


class FunctionEmitter:
    """Emits one function; expressions return the LLVM operand that holds their value."""

    def __init__(self, module: Module, native: Native) -> None:
        self.module = module
        self.function = native.tree
        self.lines: list[str] = []
        self.count = 0
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
        parameters = ", ".join(f'{t}{_extension(k)} %"arg {n}"' for n, k, t in arguments)
        result = passed_as(f.kind.result, f.kind.convention)
        linkage = "dso_local" if exported else "internal"
        head = f"define {linkage} {_CONVENTIONS[f.kind.convention]}{_extension(result)} {llvm_type(result)}"
        head += f" {symbol}({parameters}) {attributes}#0 {{"
        return "\n".join([head, "entry:", *entry, *self.lines, "}", ""])

    # text

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
        registers = _NONE_ARGUMENTS[: len(e.arguments)]
        outputs = ["={rax}", *(f"={{{r}}}" for r in (*registers, "rbx"))]
        inputs = [str(n) for n in range(1, len(outputs))]
        lost = [f"~{{{r}}}" for r in _NONE_REGISTERS if r not in (*registers, "rax", "rbx")]
        lost += [f"~{{xmm{n}}}" for n in range(16)]
        constraints = ",".join([*outputs, *inputs, *lost, "~{memory}", _FLAGS])
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
            arguments.append(f"{llvm_type(kind)}{_extension(kind)} {value}")
        target = self.ex(e.target)
        result = passed_as(e.type, convention)
        head = f"call {_CONVENTIONS[convention]}{_extension(result)} {llvm_type(result)}"
        return f"{head} {target}({', '.join(arguments)})"

    def ex_new(self, e: tree.New) -> str:
        return f"%stack{e.slot}"

    # intrinsics

    def ex_intrinsic(self, e: tree.Intrinsic) -> str:
        if e.name in _COUNTS:
            return self.bits(e)
        if e.name.startswith(("atomic_", "volatile_")):
            return self.memory(e)
        result: str = getattr(self, f"in_{e.name}")(e)
        return result

    def bits(self, e: tree.Intrinsic) -> str:
        kind, name = llvm_type(e.type), _COUNTS[e.name]
        flag = ", i1 false" if name in ("cttz", "ctlz") else ""
        self.module.declare(f"declare {kind} @llvm.{name}.{kind}({kind}{', i1' if flag else ''})")
        return self.op(f"call {kind} @llvm.{name}.{kind}({self.typed(e.arguments[0])}{flag})")

    def memory(self, e: tree.Intrinsic) -> str:
        pointer = self.ex(e.arguments[0])
        values = [self.typed(a) for a in e.arguments[1:]]
        to = e.arguments[0].type.to
        match e.name:
            case "atomic_load":
                return self.op(f"load atomic {llvm_type(to)}, ptr {pointer} acquire, align {to.size}")
            case "volatile_load":
                return self.op(f"load volatile {llvm_type(to)}, ptr {pointer}, align 1")
            case "atomic_store":
                self.put(f"store atomic {values[0]}, ptr {pointer} release, align {to.size}")
                return ""
            case "volatile_store":
                self.put(f"store volatile {values[0]}, ptr {pointer}, align 1")
                return ""
        return self.op(f"atomicrmw {_RMW[e.name]} ptr {pointer}, {values[0]} seq_cst, align {to.size}")

    def in_cas(self, e: tree.Intrinsic) -> str:
        pointer, expected, value = self.ex(e.arguments[0]), self.typed(e.arguments[1]), self.typed(e.arguments[2])
        size = e.arguments[0].type.to.size
        pair = self.op(f"cmpxchg ptr {pointer}, {expected}, {value} seq_cst seq_cst, align {size}")
        return self.op(f"extractvalue {{ {llvm_type(e.type)}, i1 }} {pair}, 0")

    def in_fence(self, _e: tree.Intrinsic) -> str:
        self.put("fence seq_cst")
        return ""

    def in_pause(self, _e: tree.Intrinsic) -> str:
        self.put('call void asm sideeffect "pause", "~{memory}"()')
        return ""

    def in_trap(self, _e: tree.Intrinsic) -> str:
        self.module.declare("declare void @llvm.trap()")
        self.put("call void @llvm.trap()")
        self.end("unreachable")
        return ""

    def in_likely(self, e: tree.Intrinsic) -> str:
        return self._expect(e, "true")

    def in_unlikely(self, e: tree.Intrinsic) -> str:
        return self._expect(e, "false")

    def _expect(self, e: tree.Intrinsic, value: str) -> str:
        self.module.declare("declare i1 @llvm.expect.i1(i1, i1)")
        return self.op(f"call i1 @llvm.expect.i1(i1 {self.ex(e.arguments[0])}, i1 {value})")

    def in_rotl(self, e: tree.Intrinsic) -> str:
        return self._rotate(e, "fshl")

    def in_rotr(self, e: tree.Intrinsic) -> str:
        return self._rotate(e, "fshr")

    def _rotate(self, e: tree.Intrinsic, name: str) -> str:
        kind = llvm_type(e.type)
        self.module.declare(f"declare {kind} @llvm.{name}.{kind}({kind}, {kind}, {kind})")
        value, amount = self.typed(e.arguments[0]), self.typed(e.arguments[1])
        return self.op(f"call {kind} @llvm.{name}.{kind}({value}, {value}, {amount})")

    def in_min(self, e: tree.Intrinsic) -> str:
        return self._extreme(e, "min")

    def in_max(self, e: tree.Intrinsic) -> str:
        return self._extreme(e, "max")

    def _extreme(self, e: tree.Intrinsic, name: str) -> str:
        kind, name = llvm_type(e.type), f"{'s' if e.type.signed else 'u'}{name}"
        self.module.declare(f"declare {kind} @llvm.{name}.{kind}({kind}, {kind})")
        left = self.typed(e.arguments[0])
        return self.op(f"call {kind} @llvm.{name}.{kind}({left}, {self.typed(e.arguments[1])})")

    def in_mul_high(self, e: tree.Intrinsic) -> str:
        bits, extend = e.type.bits, "sext" if e.type.signed else "zext"
        wide = [self.op(f"{extend} {self.typed(a)} to i{2 * bits}") for a in e.arguments]
        product = self.op(f"mul i{2 * bits} {wide[0]}, {wide[1]}")
        return self.op(f"trunc i{2 * bits} {self.op(f'lshr i{2 * bits} {product}, {bits}')} to i{bits}")

    def in_copy(self, e: tree.Intrinsic) -> str:
        struct: StructType = e.arguments[0].type.to
        self.module.declare("declare void @llvm.memcpy.inline.p0.p0.i64(ptr, ptr, i64, i1)")
        to, source = self.ex(e.arguments[0]), self.ex(e.arguments[1])
        self.put(f"call void @llvm.memcpy.inline.p0.p0.i64(ptr {to}, ptr {source}, i64 {struct.size}, i1 false)")
        return ""

    def in_syscall(self, e: tree.Intrinsic) -> str:
        """Linux x86-64: number in rax, arguments in rdi rsi rdx r10 r8 r9; rcx and r11 are lost."""
        values = ", ".join([self.typed(a) for a in e.arguments])
        inputs = ",".join(_SYSCALL_REGISTERS[: len(e.arguments)])
        clobbers = f"~{{rcx}},~{{r11}},~{{memory}},{_FLAGS}"
        return self.op(f'call i64 asm sideeffect "syscall", "={{rax}},{inputs},{clobbers}"({values})')

    def in_asm(self, e: tree.Intrinsic) -> str:
        template = _escape(e.text[0])
        constraints = _escape(f"{e.text[1]},{_FLAGS}" if e.text[1] else _FLAGS)
        values = ", ".join([self.typed(a) for a in e.arguments])
        call = f'asm sideeffect "{template}", "{constraints}"({values})'
        if e.type is VOID:
            self.put(f"call void {call}")
            return ""
        return self.op(f"call i64 {call}")
