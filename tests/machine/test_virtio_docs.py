"""The examples of docs/virtio.md run, and a driver has what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dbt.machine.memory import RAM

from tests.machine.qtest import Ours
from tests.machine.virtio import Guest, Mmio, Pool

TEXT = (Path(__file__).parents[2] / "docs" / "virtio.md").read_text()


def test_the_examples_run() -> None:
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        exec(compile(code, "virtio.md", "exec"), names)  # noqa: S102 - our own file
    machine = names["machine"]
    machine.place(RAM("ram", 1 << 20), 0x4000_0000)
    for at, kind in ((0x0A00_0000, 2), (0x0A00_0200, 42)):
        assert Mmio(Ours(machine), at).identity()[2] == kind
    guest = Guest(Mmio(Ours(machine), 0x0A00_0200), Pool(0x4000_0000, 1 << 20))
    guest.begin()
    queue = guest.queue(0, 64)
    guest.go()
    assert guest.transport.config(0, 4) == 4096
    assert guest.request(queue, [b"hello"], [8]) == (5, b"hello\xee\xee\xee")
    assert {function.name for function in names["bus"].functions.values()} == {"b.pci"}
    for disk in ("first", "second"):
        names[disk].disk.close()
