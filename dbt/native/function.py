"""Declarations of native code: the @native decorator, constant tables, assembly text and the intrinsics.

On the warm path: a declaration keeps the Python function and its options. Source is read when it is compiled.
"""

from __future__ import annotations

from dbt.errors import InternalError

from .types import VOID, Int, Pointer, StructType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

CONVENTIONS = ("c", "none", "code")


class NativeError(InternalError):
    """A native function that is not in the subset, or is wrong. Names the file, the line and the source text."""

    def __init__(self, message: str, file: str = "", line: int = 0, source: str = "") -> None:
        self.message = message
        self.file = file
        self.line = line
        self.source = source
        where = f"{file}:{line}: " if file else ""
        super().__init__(f"{where}{message}" + (f"\n    {source}" if source else ""))


class Native:
    """A function of the native subset. Calling it from Python runs its translation to plain Python."""

    __slots__ = ("_python", "_tree", "convention", "export", "function", "inline", "name")

    def __init__(self, function: Callable[..., Any], convention: str, inline: bool | None, export: bool) -> None:
        self.function = function
        self.name: str = function.__name__
        self.convention = convention
        self.inline = inline
        self.export = export
        self._tree: Any = None
        self._python: Any = None

    @property
    def qualified_name(self) -> str:
        return f"{self.function.__module__}.{self.name}"

    @property
    def tree(self) -> Any:
        """The typed tree (dbt.native.tree.FunctionTree); raises NativeError."""
        if self._tree is None:
            from .check import check  # only when something is compiled

            self._tree = check(self)
        return self._tree

    @property
    def signature(self) -> Any:
        """The Function type, known without looking at the body."""
        from .scope import signature

        return signature(self)

    def raw(self, *args: int) -> Any:
        """Run under CPython; arguments and result are ints that are in range already."""
        if self._python is None:
            from .python import compile_python

            self._python = compile_python(self.tree)
        return self._python(*args)

    def __call__(self, *args: Any) -> Any:
        """Run under CPython. Views of structs stand for their address; a returned reference becomes a view."""
        from .support import argument

        kind = self.signature
        if len(args) != len(kind.parameters):
            raise TypeError(f"{self.name}() takes {len(kind.parameters)} arguments, {len(args)} given")
        result = self.raw(*[argument(a, t) for a, t in zip(args, kind.parameters, strict=True)])
        if isinstance(kind.result, Pointer) and isinstance(kind.result.to, StructType):
            return kind.result.to.at(result) if result else None
        return None if kind.result is VOID else result

    def __repr__(self) -> str:
        return f"<native {self.qualified_name}>"


def native(function: Any = None, /, *, cc: str = "c", inline: bool | None = None, export: bool = False) -> Any:
    """Declare a native function. cc: "c", "none" (a call clobbers all registers) or "code" (translated code)."""
    if cc not in CONVENTIONS:
        raise TypeError(f"native(cc={cc!r}): the conventions are {', '.join(CONVENTIONS)}")
    if function is not None:
        return Native(function, cc, inline, export)
    return lambda f: Native(f, cc, inline, export)


class Table:
    """A constant table of integers in read-only memory; native code sees a Ptr to its first item."""

    __slots__ = ("_memory", "data", "item")

    def __init__(self, item: Int, data: Iterable[int]) -> None:
        if not isinstance(item, Int):
            raise TypeError(f"table({item!r}, ...): the items must be of an integer type")
        self.item = item
        self.data = tuple(data)
        self._memory: Any = None
        for index, value in enumerate(self.data):
            if item(value) != value:
                raise ValueError(f"table item {index} is {value}, which is not a {item}")

    def __getitem__(self, index: int) -> int:
        return self.data[index]

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[int]:
        return iter(self.data)

    def address(self) -> int:
        """For CPython: the address of a copy that lives as long as the table."""
        import ctypes

        if self._memory is None:
            raw = b"".join((v & self.item.mask).to_bytes(self.item.size, "little") for v in self.data)
            self._memory = ctypes.create_string_buffer(raw, len(raw) or 1)
        return ctypes.addressof(self._memory)


class Assembly:
    """Assembly text (AT&T syntax, as LLVM's `module asm`) that becomes part of an image, with global labels.

    `symbol(assembly, "label")` is the address of a label in native code, and includes the text.
    """

    __slots__ = ("name", "symbols", "text")

    def __init__(self, name: str, text: str, symbols: tuple[str, ...]) -> None:
        self.name = name
        self.text = text
        self.symbols = tuple(symbols)


class Intrinsic:
    """A name that the compiler knows. A few also work in plain Python."""

    __slots__ = ("name", "python")

    def __init__(self, name: str, python: Callable[..., Any] | None = None) -> None:
        self.name = name
        self.python = python

    def __call__(self, *args: Any) -> Any:
        if self.python is None:
            raise NativeError(f"{self.name}() can only be used in a native function")
        return self.python(*args)

    def __repr__(self) -> str:
        return f"<intrinsic {self.name}>"


def _cast(kind: Any, value: Any) -> Any:
    return kind(value) if isinstance(kind, Int) else value


def _offsetof(cls: StructType, field: str) -> int:
    return cls.offset(field)


addr = Intrinsic("addr")
asm = Intrinsic("asm")
atomic_add = Intrinsic("atomic_add")
atomic_and = Intrinsic("atomic_and")
atomic_load = Intrinsic("atomic_load")
atomic_or = Intrinsic("atomic_or")
atomic_store = Intrinsic("atomic_store")
atomic_xchg = Intrinsic("atomic_xchg")
bitreverse = Intrinsic("bitreverse")
bswap = Intrinsic("bswap")
cas = Intrinsic("cas")
cast = Intrinsic("cast", _cast)
clz = Intrinsic("clz")
copy = Intrinsic("copy")
ctz = Intrinsic("ctz")
fence = Intrinsic("fence")
likely = Intrinsic("likely")
mul_high = Intrinsic("mul_high")
new = Intrinsic("new")
offsetof = Intrinsic("offsetof", _offsetof)
pause = Intrinsic("pause")
popcount = Intrinsic("popcount")
rotl = Intrinsic("rotl")
rotr = Intrinsic("rotr")
sizeof = Intrinsic("sizeof", lambda kind: kind.size)
symbol = Intrinsic("symbol")
syscall = Intrinsic("syscall")
tail = Intrinsic("tail")
trap = Intrinsic("trap")
unlikely = Intrinsic("unlikely")
volatile_load = Intrinsic("volatile_load")
volatile_store = Intrinsic("volatile_store")
