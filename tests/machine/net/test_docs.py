"""The examples of docs/network.md run, and its tables name every network and option."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dbt.machine.net.spec import COMMON, KINDS

from tests.machine.net.guest import Card

TEXT = (Path(__file__).parents[3] / "docs" / "network.md").read_text()


def test_the_examples_run() -> None:
    names: dict[str, Any] = {"__name__": "network"}
    for code in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        exec(compile(code, "network.md", "exec"), names)  # noqa: S102 - our own file
    machine = names["machine"]
    echo = names["Echo"](machine.clock)
    card = Card(echo, buffers=1)
    frames = [bytes((number,)) * 14 for number in range(3)]
    assert [echo.send(frame) for frame in frames[:2]] == [True, False]
    got: list[bytes] = []
    while len(got) < 3:
        machine.advance(1000)
        new = card.poll()
        got += new
        if new and len(got) < 3:
            assert echo.send(frames[len(got)])
    assert got == frames


def test_everything_is_named() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", TEXT, re.MULTILINE))
    assert set(rows) | {"sink"} == set(KINDS)
    for kind, options in KINDS.items():
        assert all(f"`{option.name}`" in rows.get(kind, "") for option in options)
    assert all(f"`{option.name}=" in TEXT for option in COMMON)
