"""dbt/run.py: the options of `run`, parsed by hand."""

from __future__ import annotations

import pytest

from dbt.errors import UsageError
from dbt.run import ENGINES, FLAGS, HELP, VALUES, parse

ENVIRON = [b"A=1", b"B=2", b"A=3"]


def test_all_options() -> None:
    options = parse(
        [
            "-L",
            "/usr",
            "--engine=reference",
            "--strace",
            "--stats",
            "-E",
            "C=4=5",
            "-UB",
            "-0",
            "me",
            "prog",
            "-L",
            "x",
        ],
        ENVIRON,
    )
    assert options is not None
    assert (options.root, options.engine, options.strace, options.stats) == ("/usr", "reference", True, True)
    assert (options.path, options.argv) == ("prog", [b"me", b"-L", b"x"])
    assert options.environ == [b"A=1", b"A=3", b"C=4=5"]


def test_defaults_keep_the_environment_as_it_is() -> None:
    options = parse(["prog"], ENVIRON)
    assert options is not None
    assert (options.root, options.engine, options.argv, options.environ) == ("", ENGINES[0], [b"prog"], ENVIRON)


def test_two_dashes_end_the_options() -> None:
    options = parse(["--strace", "--", "-prog"], [])
    assert options is not None
    assert (options.path, options.strace) == ("-prog", True)


def test_a_variable_set_replaces_every_one_of_its_name() -> None:
    options = parse(["-E", "A=", "prog"], ENVIRON)
    assert options is not None
    assert options.environ == [b"B=2", b"A="]


@pytest.mark.parametrize("words", [["-h"], ["--help"], ["--strace", "-h", "prog"]])
def test_help(words: list[str]) -> None:
    assert parse(words, []) is None


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], "which program"),
        (["--strace"], "which program"),
        (["--nonsense", "prog"], "--nonsense"),
        (["-x", "prog"], "-x"),
        (["-L"], "-L needs a value"),
        (["-L", "/nonexistent", "prog"], "/nonexistent"),
        (["--engine", "warp", "prog"], "'warp'"),
        (["-E", "A", "prog"], "NAME=VALUE"),
        (["-g", "x", "prog"], "-g x: no port"),
        (["-g", "99999", "prog"], "-g 99999: no port"),
        (["-g", "localhost:-1", "prog"], "-g localhost:-1: no port"),
        (["-E", "=A", "prog"], "NAME=VALUE"),
    ],
)
def test_errors_name_what_is_wrong_and_say_what_to_do(words: list[str], names: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words, [])
    assert names in caught.value.what
    assert caught.value.hint


def test_help_lists_every_option() -> None:
    for option in (*FLAGS, *VALUES):
        assert f"  {option}" in HELP
