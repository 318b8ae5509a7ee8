"""Runs `dragoman img`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dbt.machine.block.tool.parser import main

if TYPE_CHECKING:
    from .img_images import Img


@pytest.fixture
def img(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Img:
    """Runs a command in an empty folder: (status, output, errors)."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        status = main(words)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run
