"""What builds native functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from dbt.backends.llvm.compile import compile_text
from dbt.backends.llvm.image import link
from dbt.backends.llvm.native import module_text

from dbt.engine.image import Image, load_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dbt.native import Assembly

    Build = Callable[..., Image]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Compile, link and load some native functions."""

    def run(*roots: Any, assembly: tuple[Assembly, ...] = ()) -> Image:
        path = tmp_path / "image"
        path.write_bytes(link("test", compile_text(module_text(roots, assembly))))
        return load_image(str(path), "test")

    return run
