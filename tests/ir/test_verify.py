"""Each rule of the verifier is broken once; the table's rules when an op is built, the order in `verify`."""

import pytest

from dbt.engine.layout import GUEST_BYTES
from dbt.ir.builder import Builder, Place
from dbt.ir.text import parse_template
from dbt.ir.types import F32, F64, I1, I8, I32, I64, I128, vector
from dbt.ir.values import IRError, Op, Template
from dbt.ir.verify import verify

V16I8 = vector(I8, 16)
V8I8 = vector(I8, 8)


def values() -> tuple[Builder, dict[str, object]]:
    """A builder with a value of each kind."""
    b = Builder()
    types = {
        "i1": I1,
        "i8": I8,
        "i32": I32,
        "i64": I64,
        "i128": I128,
        "v16i8": V16I8,
        "v8i8": V8I8,
        "m16": vector(I1, 16),
    }
    made: dict[str, object] = {name: b.const(t, 0) for name, t in types.items()}
    made["f32"] = b.const(F32, 0)
    made["f64"] = b.const(F64, 0)
    made["v2f64"] = b.const(vector(F64, 2), 0)
    return b, made


@pytest.mark.parametrize(
    ("name", "args", "type_", "attrs"),
    [
        ("add", "i64", None, {}),  # number of arguments
        ("add", "i64 i32", None, {}),  # same type
        ("add", "f64 f64", None, {}),  # integers
        ("eq", "f64 f64", None, {}),
        ("fadd", "i64 i64", None, {}),
        ("fadd", "f64 f32", None, {}),
        ("fadd", "f64 f64", None, {"rm": "away"}),
        ("select", "i64 i64 i64", None, {}),  # the condition
        ("select", "m16 i64 i64", None, {}),
        ("select", "m16 v8i8 v8i8", None, {}),
        ("zext", "i64", I32, {}),  # widths
        ("zext", "i64", I64, {}),
        ("zext", "v8i8", I128, {}),
        ("trunc", "i32", I64, {}),
        ("trunc", "i32", F32, {}),
        ("sat_narrow", "i32", I1, {"from_signed": True, "to_signed": True}),
        ("sat_narrow", "i32", I8, {"from_signed": True}),  # attributes
        ("sat_narrow", "i32", I8, {"from_signed": 1, "to_signed": True}),
        ("bitcast", "i64", I32, {}),
        ("bitcast", "i64", None, {}),  # needs a type
        ("bswap", "i1", None, {}),
        ("lane", "i64", None, {"index": 0}),
        ("lane", "v16i8", None, {"index": 16}),
        ("with_lane", "v16i8 i32", None, {"index": 0}),
        ("splat", "i8", V8I8.lane, {}),
        ("shuffle", "v16i8 v16i8", None, {"mask": (0, 32)}),
        ("shuffle", "v16i8 v16i8", None, {"mask": (0, 1, 2)}),
        ("reduce", "v2f64", None, {"op": "add"}),
        ("reduce", "v16i8", None, {"op": "mul"}),
        ("tbl", "v16i8", None, {}),
        ("tbl", "v16i8 v8i8", None, {}),
        ("clmul", "i32 i32", None, {}),
        ("pmul", "i64 i64", None, {}),
        ("const", "", I8, {"value": 256}),
        ("const", "", I8, {"value": (1,)}),
        ("const", "", V8I8, {"value": (1, 2)}),
        ("get", "", I1, {"place": Place(0, 0)}),
        ("get", "", I64, {"place": Place(6, 0)}),
        ("get", "", I64, {"place": Place(None, GUEST_BYTES - 7)}),
        ("get", "", vector(I64, 4), {"place": Place(0, 0)}),
        ("get", "", I64, {"place": 8}),
        ("put", "i1", None, {"place": Place(0, 0)}),
        ("load", "i32", I64, {}),  # the address
        ("load", "i64", I1, {}),
        ("load", "i64", None, {}),
        ("load", "i64", I64, {"space": "moon"}),
        ("load", "i64", V16I8, {"endian": "big"}),
        ("store", "i64 m16", None, {}),
        ("load_exclusive", "i64", V16I8, {}),
        ("store_exclusive", "i64 f64", None, {}),
        ("rmw", "i64 i128", None, {"op": "add"}),
        ("rmw", "i64 i64", None, {"op": "nand"}),
        ("cas", "i64 i64 i32", None, {}),
        ("fence", "", None, {"kind": "some"}),
        ("align_check", "i64", None, {"size": 3}),
        ("flags", "i64 i64 i64", None, {"kind": "adc"}),  # the carry
        ("flags", "i64 i64 i64 i1", None, {"kind": "add"}),
        ("flags", "i1 i1 i1", None, {"kind": "add"}),
        ("flags", "i128 i128 i128", None, {"kind": "add"}),
        ("flags_if", "i1 i64 i64 i64 i64", None, {"kind": "adc"}),
        ("cond", "", None, {"cc": "al"}),
        ("fconvert", "f64", F64, {}),
        ("fconvert", "f64", I64, {}),
        ("ftoi", "f64", I32, {"signed": True, "rm": "zero", "fbits": 33}),
        ("ftoi", "f64", I1, {"signed": True, "rm": "zero"}),
        ("ftoi", "v2f64", I64, {"signed": True, "rm": "zero"}),
        ("itof", "i64", I64, {"signed": True}),
        ("goto_if", "i64", None, {}),
        ("exit", "i64 i64", None, {"reason": 1}),
        ("exit", "", None, {"reason": "syscall"}),
        ("helper", "i64 i64 i64 i64 i64 i64", None, {"name": "f"}),
        ("helper", "", F64, {"name": "f"}),
        ("put", "i64", I64, {"place": Place(0, 0)}),  # has no result
        ("nothing", "", None, {}),
    ],
)
def test_builder_refuses(name: str, args: str, type_: object, attrs: dict[str, object]) -> None:
    b, made = values()
    with pytest.raises(IRError):
        b.emit(name, *(made[a] for a in args.split()), type=type_, **attrs)  # type: ignore[arg-type]


def test_a_value_has_no_truth() -> None:
    b = Builder()
    with pytest.raises(IRError, match="select"):
        bool(b.imm().eq(0))


def test_nothing_follows_an_end() -> None:
    b = Builder()
    b.goto()
    with pytest.raises(IRError, match="behind goto"):
        b.imm()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("%0: i64 = get [r0]\nput [r1] %0\n%1: i64 = load %0\nput [r2] %1", "after put"),
        ("%0: i64 = get [r0]\nput [r1] %0\nstore %0, %0", "after put"),
        ("%0: i64 = get [r0]\nflags [sub] %0, %0, %0\n%1: i64 = load %0", "after flags"),
        ("%0: f64 = get [r0]\n%1: f64 = fadd %0, %0\n%2: i64 = imm\nstore %2, %1", "after fadd"),
        ("%0: i64 = imm\n%1: i1 = const [1]\nset_qc %1\nalign_check [8] %0", "after set_qc"),
        ("%0: i64 = imm\n%1: i1 = const [1]\nput [r0] %0\nexit_if [2] %1", "after put"),
        ("%0: i64 = imm\nput [r0] %0\n%1: i64 = get [r1]\nput [r2] %1", "already written"),
        ("%0: i64 = imm\nset_nzcv %0\n%1: i1 = cond [eq]\ngoto_if %1", "already written"),
        ("%0: i64 = helper [h]\n%1: i64 = load %0\nput [r0] %1", "after helper"),
    ],
)
def test_order_of_effects(text: str, message: str) -> None:
    with pytest.raises(IRError, match=message):
        verify(parse_template(text))


@pytest.mark.parametrize(
    "text",
    [
        "%0: i64 = get [r0]\nstore %0, %0\n%1: i64 = load %0\nstore %0, %1\nput [r0] %1",
        "%0: i64 = imm\n%1: i1 = const [1]\nput [r0] %0\nexit_if [2] %1 {pc=next}",
        "%0: i64 = imm\nput [r0] %0\nexit [1] {pc=next}",
        "%0: i64 = helper [h] {effects=pure}\n%1: i64 = load %0\nput [r0] %1",
        "%0: i64 = fpsr\n%1: i64 = load %0\nput [r0] %1",
    ],
)
def test_what_is_in_order(text: str) -> None:
    verify(parse_template(text))


def test_a_fused_pair_may_read_what_its_first_half_wrote() -> None:
    template = parse_template("%0: i64 = imm\nput [r0] %0\n%1: i64 = get [r1]\nput [r2] %1")
    assert verify(template, fused=True) is template


def test_templates_made_by_hand_are_checked_too() -> None:
    good = parse_template("%0: i64 = imm\nput [r0] %0")
    with pytest.raises(IRError, match="used before"):
        verify(Template(good.ops[::-1]))
    with pytest.raises(IRError, match="not last"):
        verify(Template((*parse_template("goto").ops, *good.ops)))
    unknown = Op("imm3", (), {}, None)
    with pytest.raises(IRError, match="no op"):
        verify(Template((unknown,)))
