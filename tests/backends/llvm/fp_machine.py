"""Runs one lowered floating-point op on this host: operands and results in Env.guest, FPCR and flags as the guest's."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, NamedTuple

import llvmlite.binding as llvm
from dbt.backends.llvm.compile import compile_text, host_cpu
from dbt.backends.llvm.lower import Lowering
from dbt.backends.llvm.source import Flags, Immediate, Source
from dbt.backends.llvm.text import METADATA, Body, Declarations, attributes

from dbt.engine.layout import Env
from dbt.ir.builder import Builder, Place
from dbt.ir.state import StateOffsets
from dbt.ir.types import I64

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.ir.types import Type
    from dbt.ir.values import Template, Value

INPUTS = (512, 528, 544)
RESULT, STATUS, CONTROL = 576, 592, 600
MASKED = 0x1F80
HOST_MODE = {0: 0, 1: 2, 2: 1, 3: 3}  # FPCR.RMode to MXCSR.RC


class PlainSource(Source):
    """No tokens; the flag words go to Env.flags, and the function returns."""

    def __init__(self, body: Body) -> None:
        self.body = body

    def pointer(self, place: Place) -> str:
        return self.body.emit(f"getelementptr i8, ptr %env, i64 {place.offset}")

    def value(self, immediate: Immediate) -> str:
        raise AssertionError(immediate)

    def next(self, flags: Flags) -> None:
        for i, word in enumerate(flags):
            self.body.line(f"store i64 {word}, ptr {self.pointer(Place(None, Env.offset('flags') + 8 * i))}")
        self.body.line("ret void")

    def reload(self) -> None:
        raise AssertionError

    def taken(self, flags: Flags) -> None:
        self.next(flags)

    again = leave = taken

    def indirect(self, address: str, flags: Flags, hint: str) -> None:
        raise AssertionError(address, flags, hint)


class Outcome(NamedTuple):
    """Result bytes as a number, NZCV, FPSR."""

    value: int
    nzcv: int
    fpsr: int


def template(types: list[Type], make: Callable[..., Value | None]) -> Template:
    """make(builder, *operands) between its operands and its result, then the status register."""
    builder = Builder()
    operands = [builder.get(type_, Place(None, offset)) for type_, offset in zip(types, INPUTS, strict=False)]
    result = make(builder, *operands)
    status = builder.fpsr()
    if result is not None:
        if result.type.bits == 1:
            result = result.sext(64 if not result.type.lanes else 128 // result.type.lanes)
        builder.put(Place(None, RESULT), result)
    builder.put(Place(None, STATUS), status)
    return builder.template("test")


class Machine:
    """Compiled functions by name, all in one module."""

    def __init__(self, templates: dict[str, Template]) -> None:
        declarations = Declarations()
        functions = []
        for name, found in templates.items():
            body = Body(declarations)
            source = PlainSource(body)
            lowering = Lowering(source, StateOffsets())
            lowering.run(found)
            if isinstance(lowering.flags, Flags):
                source.next(lowering.flags)
            functions.append(
                f"define internal void @body_{name}(i64 %n, i64 %z, i64 %c, i64 %v, ptr %env) #0 {{\n"
                + "\n".join(body.lines)
                + f"""\n}}
define void @{name}(ptr %env) #0 {{
  %host = alloca i32
  %guest = getelementptr i8, ptr %env, i64 {Env.offset("mxcsr")}
  call void asm sideeffect "stmxcsr $0", "=*m,~{{memory}}"(ptr elementtype(i32) %host)
  call void asm sideeffect "ldmxcsr $0", "*m,~{{memory}}"(ptr elementtype(i32) %guest)
  call void @body_{name}(i64 0, i64 1, i64 0, i64 0, ptr %env)
  call void asm sideeffect "ldmxcsr $0", "*m,~{{memory}}"(ptr elementtype(i32) %host)
  ret void
}}"""
            )
        self.text = "\n".join([declarations.text(), *functions, attributes(host_cpu()[1]), METADATA])
        objects = compile_text(self.text)
        cpu, features = host_cpu()
        empty = llvm.parse_assembly("")
        machine = llvm.Target.from_default_triple().create_target_machine(cpu=cpu, features=features)
        self._engine = llvm.create_mcjit_compiler(empty, machine)
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(objects))
        self._engine.finalize_object()
        self._env = (ctypes.c_uint8 * Env.size)()
        prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        self._functions = {name: prototype(self._engine.get_function_address(name)) for name in templates}
        self._view = memoryview(self._env).cast("B")

    def run(self, name: str, operands: list[int], fpcr: int = 0, size: int = 16) -> Outcome:
        """Operands and the result as numbers of up to 128 bits; the result's low `size` bytes."""
        view, offsets = self._view, StateOffsets()
        for value, offset in zip(operands, INPUTS, strict=False):
            view[offset : offset + 16] = value.to_bytes(16, "little")
        view[RESULT : RESULT + 16] = bytes(16)
        for offset, value in ((offsets.fpcr, fpcr), (offsets.fpsr, 0)):
            view[offset : offset + 8] = value.to_bytes(8, "little")
        control = MASKED | HOST_MODE[fpcr >> 22 & 3] << 13
        view[Env.offset("mxcsr") : Env.offset("mxcsr") + 4] = control.to_bytes(4, "little")
        self._functions[name](ctypes.addressof(self._env))
        status = int.from_bytes(view[STATUS : STATUS + 8], "little")
        at = Env.offset("flags")
        n, z, c, v = (int.from_bytes(view[at + 8 * i : at + 8 * i + 8], "little") for i in range(4))
        nzcv = n >> 63 << 3 | (z == 0) << 2 | c << 1 | v >> 63
        return Outcome(int.from_bytes(view[RESULT : RESULT + size], "little"), nzcv, status)


__all__ = ["I64", "Machine", "Outcome", "template"]
