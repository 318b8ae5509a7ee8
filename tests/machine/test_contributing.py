"""The worked example of CONTRIBUTING.md runs, and is as short as it says."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from dbt.machine.boards import Options, Plugged
from dbt.machine.devices import DEVICES
from dbt.machine.pci import PciFunction

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[2]


def test_the_device_of_contributing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    device, board, card = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(device.splitlines()) + len(board.splitlines()) <= 61
    example = ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", example)
    for name in ("countdown", "countdown_card"):
        monkeypatch.setitem(DEVICES, name, "")
    exec(compile(device + board + card, "CONTRIBUTING.md", "exec"), example.__dict__)  # noqa: S102 - our own file
    machine, timer = example.machine, example.timer
    machine.memory.write(0x0B00_000C, 4, 1)
    assert not timer.irq.level
    machine.memory.write(0x0B00_0008, 4, 2)
    assert machine.log.counts == {"guest error": 0, "unimplemented": 1, "unassigned": 0, "trace": 0}
    machine.memory.write(0x0B00_0000, 4, 70)
    other = example.Example().build(Options(ram=1 << 20))
    other.restore(json.loads(json.dumps(machine.save())))
    other.advance(20_000)
    assert other.memory.read(0x0B00_0004, 4) == 50

    DEVICES["countdown_card"] = "example:CountdownCard"
    machine = example.Example().build(Options(ram=1 << 20, devices=(Plugged("countdown_card", "card"),)))
    machine.board.assign(machine)
    function = machine.devices["card"]
    assert isinstance(function, PciFunction)
    at = function.base_address(0).address
    machine.memory.write(at + 8, 4, 1)
    machine.memory.write(at, 4, 1)
    machine.advance(1000)
    assert function.intx.level
