"""A guest process without a processor: real guest memory, host calls and signals, and registers that a test sets."""

from __future__ import annotations

import ctypes
import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from dbt.engine.memory import AddressSpace
from dbt.engine.plain import PlainKernel
from dbt.linux.process import Process

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAP = 0x100000  # two pages that tests may write to
READ_ONLY = 0x200000
UNMAPPED = 0x300000


class FakeSignals:
    """Remembers what it is told; `arrived` is what `take` hands over."""

    def __init__(self, env: SimpleNamespace) -> None:
        self.env = env
        self.arrived: list[tuple[int, bytes]] = []
        self.dispositions: dict[int, object] = {}
        self.guests = False

    def guest(self, *, on: bool) -> None:
        self.guests = on

    def install(self, signo: int, flags: int = 0) -> None:
        self.dispositions[signo] = ("handler", flags)

    def restore(self, signo: int, how: int, flags: int = 0) -> None:
        self.dispositions[signo] = (how, flags)

    def ignore(self, signo: int) -> None:
        self.dispositions[signo] = (1, 0)

    def take_back(self) -> None:
        self.dispositions = {signo: how for signo, how in self.dispositions.items() if how != (1, 0)}

    def take(self) -> list[tuple[int, bytes]]:
        self.env.poll = 0
        arrived, self.arrived = self.arrived, []
        return arrived


class FakeCpu:
    """The part of dbt.engine.cpu.Cpu that a process uses. `exits` are the reasons that `run` answers with."""

    engine = "fake"
    baseline = None
    instrumentation = None

    def __init__(self) -> None:
        self.memory = AddressSpace()
        self.env = SimpleNamespace(poll=0, value=0, pc=0, fault_error=0)
        self.x = memoryview((ctypes.c_uint64 * 31)()).cast("B").cast("Q")
        self.registers: dict[str, int] = {}
        self.kernel = PlainKernel(self.env)
        self.signals = FakeSignals(self.env)
        self.exits: list[int] = []

    def reg(self, name: str) -> int:
        return int(self.env.pc) if name == "pc" else self.registers.get(name, 0)

    def set_reg(self, name: str, value: int) -> None:
        if name == "pc":
            self.env.pc = value
        else:
            self.registers[name] = value

    def run(self) -> int:
        return self.exits.pop(0)

    def reset(self) -> None:
        self.memory.clear()

    def clear_exclusive(self) -> None:
        self.registers["exclusive"] = 0

    @property
    def faults(self) -> Any:
        return SimpleNamespace(is_write=lambda: bool(self.env.fault_error & 2))

    def pass_calls(self, _rows: object, _fd_limit: int) -> None:
        """There is no native code."""


@pytest.fixture
def cpu() -> Iterator[Any]:
    fake = FakeCpu()
    yield fake
    fake.memory.close()


@pytest.fixture
def notes() -> list[str]:
    """What the process has logged."""
    return []


@pytest.fixture
def process(cpu: Any, notes: list[str]) -> Iterator[Process]:
    """A process that does not run. What it blocks is blocked in this process as well, and is not any more behind it."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    made = Process(cpu, log=notes.append)
    made.memory.map(HEAP, 0x2000, 3)
    made.memory.map(READ_ONLY, 0x1000, 1)
    made.mmap_top = made.limit - 0x100000
    made.brk_start = made.brk = 0x400000
    yield made
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
