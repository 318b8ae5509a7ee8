"""The example of docs/devices.md runs, and its table names every device."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dbt.machine.devices import DEVICES

TEXT = (Path(__file__).parents[2] / "docs" / "devices.md").read_text()


def test_the_examples_run() -> None:
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        code = code.replace("console.take()", "taken = console.take()").replace("(console,)", "(MemoryChar(),)")  # noqa: PLW2901
        exec(compile(code, "devices.md", "exec"), names)  # noqa: S102 - our own file
    assert names["taken"] == b"!"
    assert len(names["machine"].devices["gic"].irq) == 4


def test_every_device_is_in_the_table() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)) == set(DEVICES)
