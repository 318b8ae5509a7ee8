"""A CPU of each engine with a page of code and some of data."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

import dbt
from dbt.run import ENGINES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CODE, DATA, SIZE = 0x10000, 0x40000, 0x4000


@pytest.fixture(params=ENGINES)
def cpu(request: pytest.FixtureRequest) -> Iterator[dbt.CPU]:
    with dbt.open_cpu(engine=request.param) as cpu:
        cpu.memory.map(CODE, 0x1000, "rwx")
        cpu.memory.map(DATA, SIZE)
        yield cpu


@pytest.fixture
def load(cpu: dbt.CPU) -> Callable[..., None]:
    def put(*words: int) -> None:
        cpu.memory.write(CODE, struct.pack(f"<{len(words)}I", *words))
        cpu.registers["pc"] = CODE

    return put
