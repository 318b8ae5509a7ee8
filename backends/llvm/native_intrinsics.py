"""Intrinsics of native functions as LLVM text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.native.types import VOID, StructType

from .native_expressions import ExpressionEmitter
from .native_words import FLAGS, escape, llvm_type

if TYPE_CHECKING:
    from dbt.native import tree

_COUNTS = {"ctz": "cttz", "clz": "ctlz", "popcount": "ctpop", "bswap": "bswap", "bitreverse": "bitreverse"}
_RMW = {"atomic_add": "add", "atomic_and": "and", "atomic_or": "or", "atomic_xchg": "xchg"}
_SYSCALL_REGISTERS = ("{rax}", "{rdi}", "{rsi}", "{rdx}", "{r10}", "{r8}", "{r9}")


class IntrinsicEmitter(ExpressionEmitter):
    """One method for each intrinsic, or for a family of them."""

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
        clobbers = f"~{{rcx}},~{{r11}},~{{memory}},{FLAGS}"
        return self.op(f'call i64 asm sideeffect "syscall", "={{rax}},{inputs},{clobbers}"({values})')

    def in_asm(self, e: tree.Intrinsic) -> str:
        template = escape(e.text[0])
        constraints = escape(f"{e.text[1]},{FLAGS}" if e.text[1] else FLAGS)
        values = ", ".join([self.typed(a) for a in e.arguments])
        call = f'asm sideeffect "{template}", "{constraints}"({values})'
        if e.type is VOID:
            self.put(f"call void {call}")
            return ""
        return self.op(f"call i64 {call}")
