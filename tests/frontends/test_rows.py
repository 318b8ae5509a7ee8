"""Rows that contradict themselves, their function or each other are refused, with a message that says how."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from dbt.frontends.a64.lifter import Lifter
from dbt.frontends.a64.operands import XSP, Imm, V, X, a64
from dbt.frontends.forms import enumerate_forms
from dbt.frontends.pattern import Encoding, Pattern, RowError
from dbt.frontends.tables import Tables
from dbt.frontends.text import render

if TYPE_CHECKING:
    from collections.abc import Callable

FILL = "0" * 22


def tables(*functions: Callable[..., None]) -> Tables:
    module = ModuleType("example")
    for function in functions:
        function.__module__ = "example"
        setattr(module, function.__name__, function)
    return Tables(enumerate_forms([module], 32, Lifter), 32)


def test_pattern() -> None:
    pattern = Pattern.parse("01 x a b:4", 8)
    assert (pattern.mask, pattern.value) == (0b1100_0000, 0b0100_0000)
    assert pattern.fields == {"a": (4, 1), "b": (0, 4)}


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("01 Rd:5", "has 7 bits instead of 32"),
        ("0" * 33, "has 33 bits instead of 32"),
        ("Rd:5 Rd:5 " + FILL, "field Rd occurs twice"),
        ("Rd:0 " + "0" * 32, "neither bits nor a field"),
        ("5Rd:5 " + "0" * 27, "neither bits nor a field"),
        ("Rd:5:2 " + "0" * 27, "neither bits nor a field"),
    ],
)
def test_bad_pattern(pattern: str, message: str) -> None:
    with pytest.raises(RowError, match=message):
        Encoding(32)(pattern)


def test_unknown_static() -> None:
    @a64("0" * 27 + " Rd:5", static="size")
    def F(cpu: Lifter, Rd: X) -> None: ...

    with pytest.raises(RowError, match="static 'size' is not a field"):
        tables(F)


def test_unknown_parameter() -> None:
    @a64("0" * 27 + " Rd:5")
    def F(cpu: Lifter, Rd: X, Rn: X) -> None: ...

    with pytest.raises(RowError, match="parameter Rn is neither a field nor a keyword"):
        tables(F)


def test_unused_field() -> None:
    @a64(FILL + " Rn:5 Rd:5")
    def F(cpu: Lifter, Rd: X) -> None: ...

    with pytest.raises(RowError, match="nothing uses field Rn"):
        tables(F)


def test_unused_keyword() -> None:
    @a64("0" * 27 + " Rd:5", imm=Imm("Rd"))
    def F(cpu: Lifter, Rd: X) -> None: ...

    with pytest.raises(RowError, match="nothing uses keyword imm"):
        tables(F)


def test_operand_of_an_unknown_field() -> None:
    @a64("0" * 27 + " Rd:5", imm=Imm("imm5"))
    def F(cpu: Lifter, Rd: X, imm: Imm) -> None: ...

    with pytest.raises(RowError, match="operand field 'imm5' is not in the pattern"):
        tables(F)


def test_wrong_kind() -> None:
    @a64("0" * 27 + " Rd:5", Rd=XSP("Rd"))
    def F(cpu: Lifter, Rd: X) -> None: ...

    with pytest.raises(RowError, match="Rd is a XSP, the function wants a X"):
        tables(F)


def test_operand_without_a_kind() -> None:
    @a64("0" * 27 + " Rd:5")
    def F(cpu: Lifter, Rd: int) -> None: ...

    with pytest.raises(RowError, match="its annotation must be a kind of operand"):
        tables(F)


def test_function_of_something_that_is_not_static() -> None:
    @a64("0" * 27 + " Rd:5", n=lambda Rd: Rd)
    def F(cpu: Lifter, n: int, Rd: X) -> None: ...

    with pytest.raises(RowError, match="Rd: not a static field"):
        tables(F)


def test_overlap() -> None:
    @a64("0" * 26 + " 1 xxxxx")
    def F(cpu: Lifter) -> None: ...

    @a64("0" * 26 + " x 0000 1")
    def G(cpu: Lifter) -> None: ...

    with pytest.raises(RowError, match=r"F .* and G .* overlap, and neither fixes all bits"):
        tables(F, G)


def test_the_same_encoding_twice() -> None:
    @a64("0" * 32)
    def F(cpu: Lifter) -> None: ...

    @a64("0" * 32)
    def G(cpu: Lifter) -> None: ...

    with pytest.raises(RowError, match="overlap"):
        tables(F, G)


def test_more_fixed_bits_win() -> None:
    @a64("0" * 26 + " sf Rd:5", static="sf")
    def F(cpu: Lifter, sf: int, Rd: X) -> None: ...

    @a64("0" * 26 + " 1 11111")
    def G(cpu: Lifter) -> None: ...

    @a64.undefined("0" * 26 + " 0 0000x")
    @a64("1" * 32)
    def H(cpu: Lifter) -> None: ...

    decode = tables(F, G, H).decode
    assert decode(0b1_11111).form.name == "G"
    assert decode(0b1_11110).form.name == "F_sf1"
    assert decode(0b0_11111).form.name == "F_sf0"
    assert decode(0b0_00001).form.id == 0
    assert decode(0b0_00010).form.name == "F_sf0"
    assert decode(1 << 31).form.id == 0


def test_two_functions_of_one_name() -> None:
    modules = []
    for bits in ("0" * 32, "1" * 32):

        @a64(bits)
        def F(cpu: Lifter) -> None: ...

        module = ModuleType(f"example{bits[0]}")
        F.__module__ = module.__name__
        vars(module)["F"] = F
        modules.append(module)
    with pytest.raises(RowError, match="F is in example1 and example0"):
        enumerate_forms(modules, 32, Lifter)


def test_too_many_tokens() -> None:
    @a64("0" * 27 + " Rd:5")
    def F(_cpu: Lifter, Rd: V) -> None:
        for k in range(7):
            Rd.next(k).write_token()

    form = tables(F).forms[1]
    with pytest.raises(RowError, match="more than 6 register tokens"):
        assert form.template


def test_too_many_immediates() -> None:
    @a64("0" * 27 + " a:5", b=Imm("a"), c=Imm("a"))
    def F(cpu: Lifter, a: Imm, b: Imm, c: Imm) -> None: ...

    form = tables(F).forms[1]
    with pytest.raises(RowError, match="more than two immediates"):
        assert form.template


def test_short_table() -> None:
    @a64("0" * 27 + " a:5", a=Imm("a", table=(1, 2, 3)))
    def F(cpu: Lifter, a: Imm) -> None: ...

    form = tables(F).forms[1]
    with pytest.raises(RowError, match="has 3 entries for 5 bits"):
        assert form.template


def test_functions_of_statics_may_have_defaults() -> None:
    def name(size: int, sf: int = 1, other: str = "x") -> str:
        return f"f {size} {sf} {other}"

    @a64("0" * 26 + " sf Rd:5", static="sf", size=3, asm=name)
    def F(cpu: Lifter, sf: int, size: int, Rd: X) -> None: ...

    form = tables(F).forms[1]
    assert render(form, 0) == "f 3 0 x"
