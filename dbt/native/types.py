"""The types of the native subset and the layout of its structs, shared by native code, generated IR and Python.

This module is on the warm path: it evaluates nothing at import. The fields of a struct are annotations in text form
(`from __future__ import annotations`); they are looked up in their module when somebody asks for the layout.
Structs follow the C rules of the System V ABI for x86-64 (3.1.2): every field at its natural alignment.
"""

from __future__ import annotations

import ctypes
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

POINTER_SIZE = 8


class Int:
    """An integer type. Called from Python it wraps a number to its range, as native code does."""

    __slots__ = ("align", "bits", "mask", "name", "signed", "size")

    def __init__(self, name: str, bits: int, *, signed: bool) -> None:
        self.name = name
        self.bits = bits
        self.signed = signed
        self.size = self.align = (bits + 7) // 8
        self.mask = (1 << bits) - 1

    def __call__(self, value: int) -> int:
        value = int(value) & self.mask
        return value - self.mask - 1 if self.signed and value >> (self.bits - 1) else value

    def __repr__(self) -> str:
        return self.name


class Void:
    """What a function without a result returns."""

    __slots__ = ()
    size = 0
    align = 1

    def __repr__(self) -> str:
        return "None"


class Constant:
    """The type of a constant that has not met its type yet."""

    __slots__ = ()
    size = 0
    align = 1

    def __repr__(self) -> str:
        return "constant"


class Pointer:
    """The address of a value of type `to`. `to` is None for a pointer that can only be passed on or cast.

    A struct class as annotation means a Pointer to that struct too: structs are always used by reference.
    """

    __slots__ = ("_scope", "_to")
    size = align = POINTER_SIZE

    def __init__(self, to: Any, scope: Mapping[str, Any] | None = None) -> None:
        self._to = to
        self._scope = scope  # the globals in which a target in text form is to be looked up

    @property
    def to(self) -> Any:
        if self._scope is not None:
            self._to, self._scope = evaluate(self._to, self._scope), None
        return self._to

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pointer) and (self.to is other.to or bool(self.to == other.to))

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        to = self.to
        return "AnyPtr" if to is None else f"Ptr[{name_of(to)}]"


class Array:
    """`count` values of type `item` inside a struct; as a value it is a pointer to the first."""

    __slots__ = ("align", "count", "item", "size")

    def __init__(self, item: Any, count: int) -> None:
        self.item = item
        self.count = count
        self.size = item.size * count
        self.align = item.align

    def __repr__(self) -> str:
        return f"Arr[{name_of(self.item)}, {self.count}]"


class Function:
    """The address of a function. `convention` is "c", "none" or "code"."""

    __slots__ = ("convention", "parameters", "result")
    size = align = POINTER_SIZE

    def __init__(self, result: Any, parameters: tuple[Any, ...], convention: str = "c") -> None:
        self.result = result
        self.parameters = parameters
        self.convention = convention

    def key(self) -> tuple[Any, ...]:
        return (self.result, self.parameters, self.convention)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Function) and self.key() == other.key()

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        if self.convention == "code":
            return "Code"
        return f"Fn[{', '.join(name_of(t) for t in (self.result, *self.parameters))}]"


class Generic:
    """What `Ptr`, `Arr` and `Fn` are at run time: a name that is subscripted with types."""

    __slots__ = ("make", "name")

    def __init__(self, name: str, make: Callable[..., Any]) -> None:
        self.name = name
        self.make = make

    def __getitem__(self, args: Any) -> Any:
        return self.make(*args) if isinstance(args, tuple) else self.make(args)

    def __repr__(self) -> str:
        return self.name


class ArrayOf:
    """`Arr[item]` before its length is known; as a parameter it is a pointer to the first item."""

    __slots__ = ("item",)

    def __init__(self, item: Any) -> None:
        self.item = item


class ArrayLength:
    """What `array(n)` leaves as the default value of a field."""

    __slots__ = ("count",)

    def __init__(self, count: Any) -> None:
        if not isinstance(count, int) or count < 1:
            raise TypeError(f"array({count!r}): the length must be an int of at least 1")
        self.count = count


u8, i8 = Int("u8", 8, signed=False), Int("i8", 8, signed=True)
u16, i16 = Int("u16", 16, signed=False), Int("i16", 16, signed=True)
u32, i32 = Int("u32", 32, signed=False), Int("i32", 32, signed=True)
u64, i64 = Int("u64", 64, signed=False), Int("i64", 64, signed=True)
u128 = Int("u128", 128, signed=False)
BOOL = Int("bool", 1, signed=False)
VOID = Void()
CONST = Constant()
AnyPtr = Pointer(None)
Ptr = Generic("Ptr", lambda to: Pointer(_value_type(to)))
Arr = Generic("Arr", lambda item: ArrayOf(_value_type(item)))
Fn = Generic("Fn", lambda result, *args: Function(parameter_type(result), tuple(parameter_type(a) for a in args)))
# The pinned signature of translated code: flag words n, z, c, v, then env, base, mask and a temporary.
Code = Function(VOID, (u64, u64, u64, u64, AnyPtr, AnyPtr, u64, u64), "code")


class StructType(type):
    """The class of struct classes: it holds the layout, so that fields may have any name (also `size` or `offset`)."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> Any:
        # Defaults are taken out: a class attribute would hide the methods of this metaclass.
        annotations = namespace.get("__annotations__", ())
        namespace["_lengths"] = {field: namespace.pop(field) for field in annotations if field in namespace}
        namespace["_layout"] = namespace["_view"] = None
        return super().__new__(mcs, name, bases, namespace)

    @property
    def layout(cls) -> Layout:
        found: Layout | None = cls.__dict__["_layout"]
        if found is None:
            found = Layout(cls)
            type.__setattr__(cls, "_layout", found)
        return found

    @property
    def size(cls) -> int:
        """In bytes, a multiple of the alignment."""
        return cls.layout.size

    @property
    def align(cls) -> int:
        return cls.layout.align

    @property
    def field_offsets(cls) -> dict[str, int]:
        return {name: offset for name, (offset, _) in cls.layout.fields.items()}

    def offset(cls, field: str) -> int:
        """Byte offset of a field."""
        return cls.layout.field(field)[0]

    @property
    def view(cls) -> Any:
        """The ctypes class of this layout. `S.view()` is a zeroed struct that owns its memory."""
        found: Any = cls.__dict__["_view"]
        if found is None:
            found = cls.layout.make_view()
            type.__setattr__(cls, "_view", found)
        return found

    def at(cls, address: int) -> Any:
        """The struct at a host address: fields are read and written as attributes, arrays are indexed.

        The memory must stay valid; pointers are plain ints.
        """
        return cls.view.from_address(address)

    def pack(cls, **fields: int) -> bytes:
        """The bytes of a struct with these scalar fields; the others are 0."""
        return bytes(cls.view(**fields))

    def __repr__(cls) -> str:
        return cls.__name__


class Struct(metaclass=StructType):
    """The base of struct classes; `@struct` adds it to a class that does not name it."""


def struct(cls: type) -> Any:
    """Make a class with annotated fields a struct."""
    if isinstance(cls, StructType):
        return cls
    if cls.__bases__ != (object,):
        raise TypeError(f"struct {cls.__name__}: a struct has no base class but Struct")
    namespace = dict(cls.__dict__)
    del namespace["__dict__"], namespace["__weakref__"]
    return StructType(cls.__name__, (Struct,), namespace)


class Layout:
    """Offsets and types of a struct's fields, in bytes."""

    __slots__ = ("align", "fields", "name", "size")

    def __init__(self, cls: StructType) -> None:
        scope = sys.modules[cls.__module__].__dict__
        lengths: dict[str, Any] = cls.__dict__["_lengths"]
        self.name = cls.__name__
        self.fields: dict[str, tuple[int, Any]] = {}
        self.align = 1
        offset = 0
        for name, annotation in cls.__dict__.get("__annotations__", {}).items():  # noqa: RUF063 - inspect is dear
            kind = _field_type(f"{self.name}.{name}", annotation, lengths.get(name), scope)
            offset = (offset + kind.align - 1) & -kind.align
            self.fields[name] = (offset, kind)
            offset += kind.size
            self.align = max(self.align, kind.align)
        self.size = (offset + self.align - 1) & -self.align

    def field(self, name: str) -> tuple[int, Any]:
        found = self.fields.get(name)
        if found is None:
            raise AttributeError(f"struct {self.name} has no field {name!r}")
        return found

    def make_view(self) -> Any:
        """A packed ctypes structure with explicit padding: ctypes and this class cannot disagree about offsets."""
        members: list[tuple[str, Any]] = []
        end = 0
        for name, (offset, kind) in self.fields.items():
            if offset > end:
                members.append((f"_pad{end}", ctypes.c_uint8 * (offset - end)))
            members.append((name, ctype(kind)))
            end = offset + kind.size
        if self.size > end:
            members.append((f"_pad{end}", ctypes.c_uint8 * (self.size - end)))
        return type(self.name, (ctypes.Structure,), {"_pack_": 1, "_fields_": members, "__slots__": ()})


def ctype(kind: Any) -> Any:
    """The ctypes type of a field. Pointers are 64-bit ints; a u128 is two u64, low half first."""
    if isinstance(kind, Int):
        if kind.bits == 128:
            return ctypes.c_uint64 * 2
        return getattr(ctypes, f"c_{'' if kind.signed else 'u'}int{kind.bits}")
    if isinstance(kind, Array):
        return ctype(kind.item) * kind.count
    if isinstance(kind, StructType):
        return kind.view
    return ctypes.c_uint64


def evaluate(annotation: Any, scope: Mapping[str, Any]) -> Any:
    """The type that an annotation names; the usual spellings are looked up without calling the compiler."""
    if not isinstance(annotation, str):
        return annotation
    if annotation in scope:
        return scope[annotation]
    if annotation.startswith("Ptr[") and annotation[4:-1].isidentifier() and scope.get("Ptr") is Ptr:
        return Pointer(annotation[4:-1], scope)
    if annotation.startswith("Arr[") and annotation[4:-1].isidentifier() and scope.get("Arr") is Arr:
        return ArrayOf(_value_type(evaluate(annotation[4:-1], scope)))
    return eval(annotation, dict(scope))  # noqa: S307 - annotations of our own source


def parameter_type(kind: Any) -> Any:
    """The type of a parameter, local or result that is annotated with `kind`."""
    if kind is None:
        return VOID
    if kind is bool:
        return BOOL
    if kind is Ptr:
        return AnyPtr
    if isinstance(kind, ArrayOf):
        return Pointer(kind.item)
    if isinstance(kind, StructType):
        return Pointer(kind)
    if isinstance(kind, (Int, Pointer, Function, Void)):
        return kind
    raise TypeError(f"{kind!r} is not a native type")


def address(view: Any) -> int:
    """The host address of a struct view (or of one of its arrays)."""
    return ctypes.addressof(view)


def name_of(kind: Any) -> str:
    """How error messages name a type."""
    return repr(kind)


def _value_type(kind: Any) -> Any:
    """The type of what a pointer points to or an array consists of: a struct stays a struct."""
    return kind if isinstance(kind, StructType) else parameter_type(kind)


def _field_type(where: str, annotation: Any, length: Any, scope: Mapping[str, Any]) -> Any:
    try:
        kind = evaluate(annotation, scope)
    except Exception as error:
        raise TypeError(f"{where}: cannot evaluate the annotation {annotation!r}: {error}") from error
    if isinstance(kind, ArrayOf):
        if not isinstance(length, ArrayLength):
            raise TypeError(f"{where}: an array needs its length: `Arr[...] = array(n)`")
        return Array(kind.item, length.count)
    if length is not None:
        raise TypeError(f"{where}: only an array has a value here")
    if kind is Ptr:
        return AnyPtr
    if isinstance(kind, (StructType, Pointer, Function)) or (isinstance(kind, Int) and kind is not BOOL):
        return kind
    raise TypeError(f"{where}: {annotation!r} cannot be a field")
