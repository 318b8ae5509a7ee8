"""The text format: round trips, and what the parser says of bad text."""

from pathlib import Path

import pytest

from dbt.ir.ops import OPS
from dbt.ir.text import parse_template, parse_templates
from dbt.ir.values import IRError
from dbt.ir.verify import verify

EVERY_OP = Path(__file__).with_name("data") / "every_op.ir"


def test_every_op_has_a_sample_that_is_valid() -> None:
    templates = [verify(t) for t in parse_templates(EVERY_OP.read_text())]
    assert {op.name for t in templates for op in t.ops} == set(OPS)


def test_every_op_round_trips() -> None:
    text = "".join(line + "\n" for line in EVERY_OP.read_text().splitlines() if not line.startswith("#"))
    assert "".join(t.text() for t in parse_templates(text)) == text


def test_comments_names_and_spaces_are_free() -> None:
    template = parse_template("\n # one\n%3:i64=imm # two\n  put [ @0x10 ]   %3\n")
    assert template.text() == "template _ {\n  %0: i64 = imm\n  put [@16] %0\n}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("%0: i64 = frobnicate", "no op 'frobnicate'"),
        ("%0: i64 = add %1, %2", "%1 is used before"),
        ("%0: i64 = imm\n%0: i64 = imm", "%0 is defined twice"),
        ("%0: i63 = imm", "no IR type i63"),
        ("%0: i32 = imm", "imm gives i64, not i32"),
        ("%0: i64 = get", "get needs [place]"),
        ("%0: i64 = get [x0]", "is no place"),
        ("%0: i64 = imm\nput [r0] %0 {colour=red}", "no attribute 'colour'"),
        ("%0: i64 = imm\nstore %0, %0 {order=acquire}", "order='acquire' is not relaxed|release"),
        ("imm", "imm has a result"),
        ("%0: i64 = goto", "goto gives nothing"),
        ("goto now please", "cannot read"),
        ("goto\ngoto", "goto behind goto"),
        ("template a {\ngoto", "template a is not closed"),
        ("template a {\n}\nx\n", "expected 'template NAME {'"),
        ("template a {\n}\ntemplate b {\n}", "expected one template, found 2"),
        ("%0: i1 = fcmp [eq maybe]", "signaling is True or False"),
    ],
)
def test_bad_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(IRError) as caught:
        parse_template(text)
    assert message in str(caught.value)


def test_a_message_names_the_line() -> None:
    with pytest.raises(IRError, match="line 3"):
        parse_templates("template a {\n  %0: i64 = imm\n  %1: i64 = foo %0\n}\n")
