"""The LLVM emitter of the native subset: modules of typed trees as LLVM text.

Everything is dso_local, so that an object refers to its own parts relative to the program counter. Functions are in
native_function, expressions and intrinsics in the modules of those names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.native.function import Assembly, Native, NativeError, Table

from .native_function import FunctionEmitter
from .native_words import escape, literal, llvm_type

if TYPE_CHECKING:
    from collections.abc import Iterable

# No builtins: a loop must not become a call of memset. No red zone: inline assembly may push.
ATTRIBUTES = 'attributes #0 = { nounwind noredzone "no-builtins" "frame-pointer"="none" }'


def module_text(roots: Iterable[Native], assembly: Iterable[Assembly] = ()) -> str:
    """LLVM text of a module with these functions under their own names, and all that they need, internal."""
    module = Module()
    for root in roots:
        module.export(root)
    for text in assembly:
        module.include(text)
    return module.text()


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
        parts = [f'module asm "{escape(line)}"' for a in self.assembly.values() for line in a.text.splitlines()]
        labels = sorted({s for a in self.assembly.values() for s in a.symbols})
        parts += [f'@"{label}" = external hidden global i8' for label in labels]
        parts += [_table_text(name, table) for name, table in self.tables.values()]
        parts += sorted(self.declarations)
        return "\n".join([*parts, ATTRIBUTES, *self.bodies]) + "\n"


def _table_text(name: str, table: Table) -> str:
    item = llvm_type(table.item)
    items = ", ".join(f"{item} {literal(table.item, v)}" for v in table.data)
    return f'@"{name}" = internal constant [{len(table.data)} x {item}] [{items}], align 16'
