"""Passes on templates written by hand: text in, text out."""

from pathlib import Path

import pytest

from dbt.engine.formats import (
    ENDS_ALWAYS,
    ENDS_CONDITIONAL,
    ENDS_DIRECT,
    ENDS_NO,
    USES_IMM,
    USES_NPC,
    USES_PC,
    USES_TARGET,
)
from dbt.ir.ops import CONDITIONS
from dbt.ir.passes import (
    Joining,
    Slots,
    dead_code,
    dead_puts,
    drop_flags,
    flag_effects,
    fold,
    forward,
    fuse,
    join,
    uses,
)
from dbt.ir.text import parse_template, parse_templates
from dbt.ir.values import IRError, Template
from dbt.ir.verify import verify

SAMPLES = parse_templates((Path(__file__).with_name("data") / "every_op.ir").read_text())


def ops(template: Template) -> str:
    """The ops alone, without head and indentation."""
    verify(template, fused=True)
    return "\n".join(line.strip() for line in template.text().splitlines()[1:-1])


def lines(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


def test_dead_code_removes_pure_ops_and_register_reads() -> None:
    template = parse_template("""
        %0: i64 = get [r0]
        %1: i64 = get [r1]
        %2: i64 = add %0, %1
        %3: i1 = cond [eq]
        %4: i64 = fpsr
        %5: i64 = helper [h] {effects=reads}
        put [r2] %0
    """)
    assert ops(dead_code(template)) == lines("""
        %0: i64 = get [r0]
        put [r2] %0
    """)


def test_dead_code_keeps_loads_exceptions_and_helpers() -> None:
    text = lines("""
        %0: i64 = get [r0]
        %1: i64 = load %0
        %2: f64 = bitcast %1
        %3: f64 = fadd %2, %2
        %4: i64 = helper [h]
    """)
    template = parse_template(text)
    assert dead_code(template) is template


def test_drop_flags() -> None:
    template = parse_template("""
        %0: i64 = get [r0]
        %1: i64 = get [r1]
        %2: i64 = sub %0, %1
        %3: i64 = xor %0, %1
        put [r2] %2
        flags [logic] %3, %3, %3
    """)
    assert ops(drop_flags(template)) == lines("""
        %0: i64 = get [r0]
        %1: i64 = get [r1]
        %2: i64 = sub %0, %1
        put [r2] %2
    """)


def test_drop_flags_keeps_the_exceptions_of_a_comparison() -> None:
    template = parse_template("%0: f32 = get [r0]\nfcmp_flags [True] %0, %0")
    assert ops(drop_flags(template)) == "%0: f32 = get [r0]\n%1: i1 = fcmp [eq True] %0, %0"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("%0: i8 = const [200]\n%1: i8 = const [100]\n%2: i8 = add %0, %1", "const [44]"),
        ("%0: i8 = const [200]\n%1: i64 = sext %0\n%2: i64 = add %1, %1", "const [0xffffffffffffff90]"),
        ("%0: i8 = get [r1]\n%1: i8 = const [0]\n%2: i8 = add %1, %0", "get [r1]"),
        ("%0: i8 = get [r1]\n%1: i8 = const [0]\n%2: i8 = and %0, %1", "const [0]"),
        ("%0: i8 = get [r1]\n%1: i8 = const [255]\n%2: i8 = and %0, %1", "get [r1]"),
        ("%0: i8 = get [r1]\n%1: i8 = xor %0, %0", "const [0]"),
        ("%0: i8 = get [r1]\n%1: i8 = const [1]\n%2: i8 = mul %0, %1", "get [r1]"),
        ("%0: i8 = get [r1]\n%1: i64 = sext %0\n%2: i8 = trunc %1", "get [r1]"),
        ("%0: i1 = const [1]\n%1: i8 = get [r1]\n%2: i8 = get [r2]\n%3: i8 = select %0, %1, %2", "get [r1]"),
        (
            "%0: v2i32 = get [r1]\n%1: v2i32 = const [<0,0>]\n%2: v2i32 = lshr %0, %1",
            "get [r1]",
        ),
        ("%0: v2i32 = const [<1,2>]\n%1: v2i32 = const [<3,5>]\n%2: v2i32 = mul %0, %1", "const [<3,10>]"),
    ],
)
def test_fold(text: str, result: str) -> None:
    source = parse_template(text)
    last = source.ops[-1].result
    assert last is not None
    template = parse_template(f"{text}\nput [r0] %{last.index}")
    folded = ops(fold(template)).splitlines()
    assert [line.partition(" = ")[2] for line in folded[:-1]] == [result]


def test_fold_leaves_what_depends_on_the_order_of_operands() -> None:
    text = "%0: i8 = get [r1]\n%1: i8 = const [0]\n%2: i8 = sub %1, %0\n%3: i8 = shl %1, %0\nput [r0] %2\nput [r2] %3"
    assert ops(fold(parse_template(text))) == text


def test_forward_joins_reads() -> None:
    template = parse_template("""
        %0: i64 = get [r0]
        %1: i64 = get [r0]
        %2: i32 = get [r0]
        %3: i64 = zext %2
        %4: i64 = imm
        %5: i64 = imm
        %6: i64 = add %0, %1
        %7: i64 = add %4, %5
        %8: i64 = add %6, %7
        %9: i64 = add %3, %8
        put [r1] %9
    """)
    assert ops(forward(template)) == lines("""
        %0: i64 = get [r0]
        %1: i32 = trunc %0
        %2: i64 = zext %1
        %3: i64 = imm
        %4: i64 = add %0, %0
        %5: i64 = add %3, %3
        %6: i64 = add %4, %5
        %7: i64 = add %2, %6
        put [r1] %7
    """)


def test_forward_gives_what_was_written_and_minds_aliases() -> None:
    template = parse_template("""
        %0: i64 = imm
        %1: i64 = get [r1]
        put [r0] %0
        %2: f64 = get [r0]
        %3: i64 = get [r1]
        %4: i64 = get [r0+8]
        put [r2] %2
        put [r3] %3
        put [r4] %4
    """)
    assert ops(forward(template)) == lines("""
        %0: i64 = imm
        put [r0] %0
        %1: f64 = bitcast %0
        %2: i64 = get [r1]
        %3: i64 = get [r0+8]
        put [r2] %1
        put [r3] %2
        put [r4] %3
    """)


COMPARE = "%0: i64 = get [r0]\n%1: i64 = imm\n%2: i64 = sub %0, %1\nput [r1] %2\nflags [sub] %0, %1, %2"
BRANCH = "%0: i1 = cond [{}]\ngoto_if %0"


def test_fuse_compares_directly() -> None:
    fused = fuse(parse_template(COMPARE), parse_template(BRANCH.format("hi")))
    assert ops(fused) == lines("""
        %0: i64 = get [r0]
        %1: i64 = imm
        %2: i64 = sub %0, %1
        put [r1] %2
        %3: i1 = ult %1, %0
        goto_if %3
    """)


@pytest.mark.parametrize("cc", CONDITIONS)
@pytest.mark.parametrize("kind", ["add", "sub", "logic"])
def test_fused_pairs_write_no_flags(kind: str, cc: str) -> None:
    fused = fuse(parse_template(COMPARE.replace("[sub]", f"[{kind}]")), parse_template(BRANCH.format(cc)))
    assert flag_effects(verify(fused, fused=True)) == (0, 0, 0)


def test_fuse_renumbers_tokens_of_the_second() -> None:
    second = "%0: i1 = cond [eq]\n%1: i64 = get [r0+8]\n%2: i64 = npc\nput [r1] %2\ngoto_if %0"
    text = fuse(parse_template(COMPARE), parse_template(second)).text()
    assert "put [r3]" in text


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("%0: i64 = imm\nput [r0] %0", BRANCH.format("eq")),
        (COMPARE.replace("imm", "pc"), BRANCH.format("eq")),
        (COMPARE.replace("imm", "imm2"), BRANCH.format("eq")),
        (COMPARE, "%0: i64 = imm\nput [r0] %0\ngoto"),
        (COMPARE, "%0: i1 = cond [eq]"),
        (COMPARE, "%0: i64 = nzcv\nput [r0] %0\ngoto"),
    ],
)
def test_fuse_refuses(first: str, second: str) -> None:
    with pytest.raises(IRError):
        fuse(parse_template(first), parse_template(second))


def test_flag_effects() -> None:
    assert flag_effects(parse_template(COMPARE)) == (0, 15, 15)
    assert flag_effects(parse_template("%0: i1 = cond [gt]\n%1: i1 = carry")) == (15, 0, 0)
    assert flag_effects(parse_template("%0: i1 = cond [ls]\n%1: i64 = imm\nset_nzcv %1")) == (6, 15, 15)
    may_fault = "%0: i64 = imm\n%1: i64 = load %0\nset_nzcv %1"
    assert flag_effects(parse_template(may_fault)) == (0, 15, 0)


@pytest.mark.parametrize(
    ("text", "values", "ends"),
    [
        ("%0: i64 = imm\n%1: i64 = imm2", USES_IMM | USES_TARGET, ENDS_NO),
        ("%0: i64 = pc\n%1: i64 = npc\ngoto_indirect %0", USES_PC | USES_NPC, ENDS_ALWAYS),
        ("goto", 0, ENDS_ALWAYS | ENDS_DIRECT),
        (BRANCH.format("eq"), 0, ENDS_CONDITIONAL | ENDS_DIRECT),
        ("exit [1] {pc=next}", USES_NPC, ENDS_ALWAYS),
        ("exit [2]", USES_PC, ENDS_ALWAYS),
        ("%0: i1 = const [1]\nrepeat_if %0", USES_PC, ENDS_CONDITIONAL),
    ],
)
def test_uses(text: str, values: int, ends: int) -> None:
    assert uses(parse_template(text))[:2] == (values, ends)


def test_uses_counts_tokens() -> None:
    found = uses(parse_template("%0: i64 = get [r3+8]\nput [@8] %0"))
    assert (found.tokens, found.may_leave, found.writes_flags) == (4, False, False)


@pytest.mark.parametrize("template", SAMPLES, ids=lambda t: t.name)
def test_passes_keep_templates_valid(template: Template) -> None:
    for apply in (dead_code, drop_flags, fold, forward):
        verify(apply(template), fused=True)


def joined_ops(template: Template) -> str:
    """As `ops`, of several instructions, which the verifier does not take."""
    return "\n".join(line.strip() for line in template.text().splitlines()[1:-1])


def test_dead_puts() -> None:
    template = parse_template("""
        %0: i64 = get [@0]
        put [@8] %0
        put [@16] %0
        %1: i32 = get [@8]
        put [@24] %0
        put [@8] %0
        %2: i64 = load %0
        put [@24] %2
        put [@16] %1
        put [@16] %2
        put [@32] %0
        put [@32] %1
    """)
    assert joined_ops(dead_puts(template)) == lines("""
        %0: i64 = get [@0]
        put [@8] %0
        put [@16] %0
        %1: i32 = get [@8]
        put [@24] %0
        put [@8] %0
        %2: i64 = load %0
        put [@24] %2
        put [@16] %2
        put [@32] %0
        put [@32] %1
    """)


def test_dead_puts_wants_fixed_places() -> None:
    with pytest.raises(IRError, match="not fixed"):
        dead_puts(parse_template("%0: i64 = get [r0]"))


ADD = parse_template("""
    %0: i64 = get [r0]
    %1: i64 = imm
    %2: i64 = add %0, %1
    put [r1] %2
""")
LOAD = parse_template("""
    %0: i64 = get [r0]
    %1: i64 = imm2
    %2: i64 = add %0, %1
    %3: i64 = load %2
    put [r1] %3
""")
SLOTS = Slots(248, 264)


def test_join() -> None:
    parts = [Joining(ADD, (8, 16), 5, 0), Joining(ADD, (16, 16), 7, 0), Joining(LOAD, (16, 24), 0, 8)]
    joined = join([*parts, Joining(ADD, (24, 16), 1, 0)], SLOTS)
    assert joined.accesses == (2,)
    assert joined_ops(joined.template) == lines("""
        %0: i64 = get [@8]
        %1: i64 = const [5]
        %2: i64 = add %0, %1
        %3: i64 = const [7]
        %4: i64 = add %2, %3
        put [@16] %4
        %5: i64 = const [8]
        %6: i64 = add %4, %5
        %7: i64 = load %6
        put [@24] %7
        %8: i64 = const [1]
        %9: i64 = add %7, %8
        put [@16] %9
    """)


def test_join_knows_the_register_that_is_zero_and_the_one_that_nobody_reads() -> None:
    joined = join([Joining(ADD, (248, 8), 5, 0), Joining(LOAD, (8, 264), 0, 0)], SLOTS)
    assert joined_ops(joined.template) == lines("""
        %0: i64 = const [5]
        put [@8] %0
        %1: i64 = load %0
    """)


def test_join_wants_ends_at_the_end() -> None:
    branch = parse_template("goto")
    assert join([Joining(ADD, (0, 8), 1, 0), Joining(branch, (), 0, 0)], SLOTS).template.ops[-1].name == "goto"
    with pytest.raises(IRError):
        join([Joining(branch, (), 0, 0), Joining(ADD, (0, 8), 1, 0)], SLOTS)
