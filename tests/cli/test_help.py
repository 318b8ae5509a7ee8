"""Every page of help says what the command is for, how it is used by an example, and what its exit status means."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pytest
from dbt.machine.block.tool import parser as img
from dbt.machine.block.tool import serving

from dbt import cli
from dbt.launch import Origin
from dbt.run import HELP

if TYPE_CHECKING:
    from collections.abc import Iterator


def pages(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """(words, page) of a parser and of all commands in it that have a parser of their own."""
    yield parser.prog, parser.format_help()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for found in action.choices.values():
                if found.add_help:  # run, img and nbd are in the list only
                    yield from pages(found)


ORIGIN = Origin([], [], 0)
PAGES = dict([*pages(cli.build_parser()), *pages(img.build()), *pages(serving.build()), ("dragoman run", HELP)])


def test_all_commands_are_there() -> None:
    assert {f"dragoman {name}" for name in ("run", "img", "nbd", "trace", "cache build", "machine")} <= set(PAGES)
    assert len(PAGES) > 25


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_enough_to_start(name: str) -> None:
    page = PAGES[name]
    usage, about, *_ = page.split("\n\n")
    assert usage.startswith(f"usage: {name} ")
    assert about[0].isupper()
    assert about.endswith(".")
    if name.startswith("dragoman cache "):  # its own page says it for all
        return
    assert f"\n  {name} " in page
    assert "exit status" in page or name == "dragoman"
    assert max(map(len, page.splitlines())) <= 120


@pytest.mark.parametrize("words", ["img", "cache build", "profile", "run"])
def test_help_of_a_command_is_its_own(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["help", *words.split()], ORIGIN) == 0
    shown = capsys.readouterr().out
    assert cli.main([*words.split(), "--help"], ORIGIN) == 0
    assert capsys.readouterr().out == shown
    assert shown.startswith(f"usage: dragoman {words} ")


@pytest.mark.parametrize("words", ["features fly", "cache info fly", "explain prog fly", "machine virt fly"])
def test_words_too_many_show_that_commands_usage(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words.split(), ORIGIN) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"usage: dragoman {words.split(maxsplit=1)[0]} ")
    assert "unrecognized arguments: fly" in said
