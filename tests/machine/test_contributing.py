"""The worked example of CONTRIBUTING.md runs, and is as short as it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def test_the_device_of_contributing_runs() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(code.splitlines()) <= 60
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)  # noqa: S102 - our own file
    machine, timer = names["machine"], names["timer"]
    machine.memory.write(0x1000_000C, 4, 1)
    assert not timer.irq.level
    machine.memory.write(0x1000_0008, 4, 2)
    assert machine.log.counts == {"guest error": 0, "unimplemented": 1, "unassigned": 0, "trace": 6}
