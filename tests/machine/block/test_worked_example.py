"""The format that docs/storage-drivers.md shows does what is said there."""

from __future__ import annotations

import random
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from dbt.machine.block import BlockError, Disk, create_image, formats, open_image
from dbt.machine.block.tool.parser import main

PAGE = Path(__file__).parents[3] / "docs" / "storage-drivers.md"
MIB = 1 << 20


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (code,) = re.findall(r'\n\n(    """TOY.*?    DRIVER = Toy\n)', PAGE.read_text(), re.DOTALL)
    (tmp_path / "formats").mkdir()
    (tmp_path / "formats" / "toy.py").write_text(textwrap.dedent(code))
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path / "formats")])
    monkeypatch.chdir(tmp_path)
    yield "toy"
    sys.modules.pop("dbt.machine.block.formats.toy", None)


def test_the_worked_example(toy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["create", "-f", toy, "a.toy", "1M"]) == 0
    data = random.Random(1).randbytes(MIB)
    with Disk(open_image("a.toy", toy, writable=True)) as disk:
        disk.write(0, data)
        disk.flush()
    assert Path("a.toy").read_bytes()[512:] == data
    assert main(["info", "-v", "a.toy"]) == 0  # probed
    assert "version" in capsys.readouterr().out
    create_image({"driver": toy, "file": {"driver": "file", "filename": "b.toy"}}, toy, MIB)
    assert main(["convert", "-f", toy, "-O", "raw", "a.toy", "a.raw"]) == 0
    assert main(["convert", "-f", "raw", "-O", toy, "a.raw", "c.toy"]) == 0
    assert Path("c.toy").read_bytes() == Path("a.toy").read_bytes()
    Path("a.toy").write_bytes(b"TOY\0" + bytes(3))
    with pytest.raises(BlockError):
        open_image("a.toy", toy)
