"""Guests for the tools."""

from __future__ import annotations

import struct
import subprocess
import zlib
from typing import TYPE_CHECKING

import pytest

from .guests import write_guest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def looping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of two functions, with symbols."""
    return write_guest(tmp_path_factory.mktemp("guests") / "looping")


@pytest.fixture
def browser(tmp_path: Path) -> Callable[[Path], tuple[int, int, int]]:
    """Shows a page in headless Chromium: width, height and number of different bytes of its picture's rows."""

    def show(page: Path) -> tuple[int, int, int]:
        picture = tmp_path / "picture.png"
        quiet = ["quic", "first-run", "background-networking", "component-update", "sync"]
        words = [f"--disable-{word}" if word != "first-run" else "--no-first-run" for word in quiet]
        subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *words,
             f"--user-data-dir={tmp_path / 'browser'}", "--window-size=1200,900", f"--screenshot={picture}",
             page.as_uri()],
            capture_output=True, check=True, timeout=120,
        )  # fmt: skip
        data = picture.read_bytes()
        width, height = struct.unpack(">II", data[16:24])
        at, pixels = 8, b""
        while at < len(data):
            (size,) = struct.unpack(">I", data[at : at + 4])
            if data[at + 4 : at + 8] == b"IDAT":
                pixels += data[at + 8 : at + 8 + size]
            at += 12 + size
        return width, height, len(set(zlib.decompress(pixels)))

    return show
