"""Nothing grows: CPUs, programs, mappings, watchpoints and snapshots, opened and closed many times.

DRAGOMAN_LEAKS=10000 sets how many times; a few are enough to see that a count does not grow with them.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

import dbt.guests
import pytest

import dbt
from dbt.engine.cpu import ENGINES as INSTRUMENTED
from dbt.run import ENGINES

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = int(os.environ.get("DRAGOMAN_LEAKS", "60"))
HELLO = Path(dbt.guests.__file__).parent / "bin" / "hello"
CODE = 0x10000
SLACK = 4 << 20  # bytes that allocators may keep, whatever the number of rounds


def held() -> tuple[int, int, int]:
    """What this process holds: bytes of address space without Python's own, mappings, descriptors."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    resident = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * 4096
    return resident, len(maps), len(os.listdir("/proc/self/fd"))


def check(action: Callable[[], None], rounds: int = ROUNDS) -> None:
    for _ in range(min(12, rounds)):
        action()
    before = held()
    for _ in range(rounds):
        action()
    after = held()
    assert after[0] - before[0] < SLACK + rounds * 100, (before, after)
    assert after[1] - before[1] < 4, (before, after)
    assert after[2] == before[2]


@pytest.mark.parametrize("engine", ENGINES)
def test_cpus(engine: str) -> None:
    def use() -> None:
        with dbt.open_cpu(engine=engine) as cpu:
            cpu.memory.map(CODE, 0x4000, "rwx")
            cpu.memory.write(CODE, bytes.fromhex("00040091010000d4"))
            assert isinstance(cpu.run(CODE), dbt.SystemCall)

    check(use)


def test_programs(capfd: pytest.CaptureFixture[str]) -> None:
    def use() -> None:
        with dbt.open_program(HELLO) as program:
            assert program.run() == dbt.Exited(0)

    check(use)
    capfd.readouterr()


def test_mappings() -> None:
    with dbt.open_cpu() as cpu:

        def use() -> None:
            for i in range(8):
                cpu.memory.map(CODE + 0x4000 * i, 0x2000, "rwx")
                cpu.memory.protect(CODE + 0x4000 * i, 0x1000, "r")
            cpu.memory.unmap(CODE, 0x40000)

        check(use)
        assert cpu.memory.mappings() == []


def test_hot_code() -> None:
    """A region is made each time, and the process that makes it does not stay behind."""

    def use() -> None:
        with dbt.open_cpu(engine="optimizer") as cpu:
            cpu.memory.map(CODE, 0x1000, "rwx")
            cpu.memory.write(CODE, bytes.fromhex("000400d1e0ffffb5010000d4"))  # sub x0, x0, #1; cbnz; svc
            cpu.registers["x0"] = 2000
            assert isinstance(cpu.run(CODE), dbt.SystemCall)

    check(use, ROUNDS // 10)


@pytest.mark.parametrize("engine", INSTRUMENTED)
def test_hooks_on_code(engine: str) -> None:
    with dbt.open_cpu(engine=engine) as cpu:
        cpu.memory.map(CODE, 0x4000, "rwx")
        cpu.memory.write(CODE, bytes.fromhex("00040091010000d4"))

        def use() -> None:
            hooks = cpu.on_block(_ignore), cpu.on_instruction(_ignore), cpu.on_memory(_ignore)
            assert isinstance(cpu.run(CODE), dbt.SystemCall)
            for hook in hooks:
                hook.remove()

        check(use)


def _ignore(_: object) -> None:
    pass


def test_watchpoints_and_devices() -> None:
    with dbt.open_cpu() as cpu:
        cpu.memory.map(CODE, 0x4000, "rwx")

        def use() -> None:
            watch = cpu.watch(CODE + 0x1000, 8)
            device = cpu.memory.map_io(CODE + 0x10000, 0x1000, read=lambda _offset, _size: 0)
            hook = cpu.on_fault(lambda _fault: None)
            for each in (watch, device, hook):
                each.remove()

        check(use)
