"""What runs when everything is cached must not import what is slow to import (DESIGN, section 5)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = frozenset(
    [
        "dataclasses",
        "enum",
        "typing",
        "re",
        "argparse",
        "inspect",
        "ast",
        "subprocess",
        "json",
        "pathlib",
        "tempfile",
        "llvmlite",
        "numpy",
        "capstone",
        "site",
        "dbt.ir.builder",
        "dbt.frontends.pattern",
        "dbt.frontends.forms",
        "dbt.native.check",
    ]
)
SHOW = "import sys; sys.path[:0] = {paths!r}; {code}; print(*sys.modules)"


def modules_after(code: str) -> set[str]:
    """What is loaded after `code` has run in a fresh interpreter that is started as the launcher does it."""
    code = SHOW.format(paths=[str(ROOT)], code=code)
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "dbt",
        "dbt.errors",
        "dbt.launch",
        "dbt.streams",
        "dbt.run",
        "dbt.engine.formats",
        "dbt.engine.layout",
        "dbt.engine.memory",
        "dbt.engine.cache",
        "dbt.engine.cpu",
        "dbt.linux.elf",
        "dbt.linux.loader",
        "dbt.linux.process",
    ],
)
def test_module_imports_nothing_slow(module: str) -> None:
    assert not modules_after(f"import {module}") & FORBIDDEN
