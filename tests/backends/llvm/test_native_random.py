"""The LLVM emitter against the Python emitter: random functions, the same operands, the same memory afterwards."""

from __future__ import annotations

import importlib.util
import random
import sys
from typing import TYPE_CHECKING

import pytest

from dbt.native import Native, address

from .native_machine import edges, machine_code
from .native_random import Program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dbt.engine.image import Image

    Build = Callable[..., Image]


@pytest.mark.parametrize("seed", range(8))
def test_random_programs(seed: int, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"random_native_{seed}"
    path = tmp_path / f"{name}.py"
    path.write_text(Program(seed).text(6))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    functions = [value for value in vars(module).values() if isinstance(value, Native)]
    image = build(*functions)
    rng = random.Random(seed)
    for function in functions:
        code = machine_code(image, function)
        for _ in range(12):
            operands = [edges(kind, rng) for kind in function.signature.parameters[1:]]
            content = rng.randbytes(module.S.size)
            here, there = module.S.view.from_buffer_copy(content), module.S.view.from_buffer_copy(content)
            expected, found = function(here, *operands), code(address(there), *operands)
            assert (expected, bytes(here)) == (found, bytes(there)), (seed, function.name, operands, content)
