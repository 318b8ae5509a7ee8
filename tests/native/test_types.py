from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dbt
from dbt.engine import layout
from dbt.native import Arr, Ptr, Struct, address, array, i8, i16, i32, i64, offsetof, sizeof, struct, u8, u16, u32, u64
from dbt.native.types import Array, Int, StructType

STRUCTS = [v for v in vars(layout).values() if isinstance(v, StructType) and v is not Struct]


@struct
class Inner(Struct):
    tag: u8
    wide: u64
    tail: u16


@struct
class Outer(Struct):
    size: u8  # a name that the class uses for itself
    offset: u32
    inner: Inner
    several: Arr[Inner] = array(3)
    signed: Arr[i16] = array(5)
    next: Ptr[Outer]
    last: i8


def natural(cls: Any) -> Any:
    """The ctypes structure that lays the fields out by itself."""

    def kind_of(kind: Any) -> Any:
        if isinstance(kind, Array):
            return kind_of(kind.item) * kind.count
        if isinstance(kind, StructType):
            return natural(kind)
        if isinstance(kind, Int):
            return getattr(ctypes, f"c_{'' if kind.signed else 'u'}int{kind.bits}")
        return ctypes.c_void_p

    fields = [(name, kind_of(kind)) for name, (_, kind) in cls.layout.fields.items()]
    return type(cls.__name__, (ctypes.Structure,), {"_fields_": fields})


@pytest.mark.parametrize("cls", [Inner, Outer, *STRUCTS], ids=lambda cls: cls.__name__)
def test_layout_is_that_of_c(cls: Any) -> None:
    expected = natural(cls)
    assert cls.layout.size == ctypes.sizeof(expected)
    assert cls.layout.align == ctypes.alignment(expected)
    for name, offset in cls.field_offsets.items():
        assert offset == getattr(expected, name).offset, name
        assert offset == getattr(cls.view, name).offset, name
    assert ctypes.sizeof(cls.view) == ctypes.sizeof(expected)


def test_offsets_and_sizes_of_fields_that_hide_the_class_methods() -> None:
    assert sizeof(Outer) == 8 + 24 + 3 * 24 + 16 + 8 + 8
    assert offsetof(Outer, "offset") == 4
    assert offsetof(Outer, "inner") == 8


def test_a_view_reads_and_writes_memory() -> None:
    memory = (ctypes.c_uint8 * sizeof(Outer))()
    view = Outer.at(ctypes.addressof(memory))
    view.size = 7
    view.inner.wide = 1 << 63
    view.several[2].tail = 0xBEEF
    view.signed[4] = -2
    view.last = -1
    assert memory[0] == 7
    again = Outer.at(address(view))
    assert again.inner.wide == 1 << 63
    assert again.several[2].tail == 0xBEEF
    assert list(again.signed) == [0, 0, 0, 0, -2]
    assert memory[offsetof(Outer, "last")] == 255


def test_integers_wrap_in_views_as_in_native_code() -> None:
    view = Inner.view()
    view.tag = 0x1FF
    assert view.tag == 0xFF
    assert [t(-1) for t in (u8, u16, u32, u64)] == [0xFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF]
    assert [t(0x80) for t in (i8, i32, i64)] == [-0x80, 0x80, 0x80]


def test_pack_gives_the_bytes() -> None:
    assert Inner.pack(tag=1, tail=2) == bytes([1] + [0] * 15 + [2] + [0] * 7)


def test_a_struct_without_the_base_class_is_a_struct_too() -> None:
    assert isinstance(layout.Env, StructType)
    assert layout.Env.at.__self__ is layout.Env  # type: ignore[attr-defined]


class Bare:
    nothing: Arr[u8]


class Default:
    field: u8 = 3


class Unknown:
    field: NoSuchType  # type: ignore[name-defined] # noqa: F821


class NotNative:
    field: str


class Based(int):
    field: u8


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Bare, r"Bare.nothing: an array needs its length: `Arr\[...\] = array\(n\)`"),
        (Default, r"Default.field: only an array has a value here"),
        (Unknown, r"Unknown.field: cannot evaluate the annotation 'NoSuchType'"),
        (NotNative, r"NotNative.field: 'str' cannot be a field"),
        (Based, r"struct Based: a struct has no base class but Struct"),
    ],
)
def test_wrong_structs_say_what_is_wrong(cls: type, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        struct(cls).size  # type: ignore[attr-defined] # noqa: B018


def test_unknown_fields_and_lengths() -> None:
    with pytest.raises(AttributeError, match="struct Inner has no field 'nope'"):
        offsetof(Inner, "nope")
    with pytest.raises(TypeError, match="the length must be an int of at least 1"):
        array(0)


def test_layout_is_light_enough_for_the_warm_path() -> None:
    """Nothing but ctypes comes with the declarations (DESIGN, section 5)."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(dbt.__path__[0]).parent)!r})\n"
        "import ctypes, mmap\nbefore = set(sys.modules)\n"
        "import dbt.engine.layout as l\n"
        "l.Env.view, l.Ctx.view\n"
        "print(*sorted(m for m in set(sys.modules) - before if not m.startswith('dbt')))"
    )
    run = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    forbidden = {"typing", "dataclasses", "enum", "re", "inspect", "ast", "pathlib", "llvmlite", "json"}
    assert not forbidden & set(run.stdout.split())
